"""Commands that are asked to end at awkward moments: at once, while they import, half started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from trunkline.bus.launch import free_ports, trunkline_argv

from .conftest import ENDS_WITHIN, Running, Trunkline, all_end

pytestmark = pytest.mark.e2e

#: Python runs this first. The process sends itself a signal when it comes to importing a module.
HOOK = """
import os, signal, sys

# A shell's job may be born ignoring it.
signal.signal(signal.SIGINT, signal.default_int_handler)

class Finder:
    module, number = os.environ.pop("SIGNALLED_AT", "none 0").split()

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == cls.module:
            os.kill(os.getpid(), int(cls.number))

sys.meta_path.insert(0, Finder)
"""
#: What systemd takes for a good end after SIGTERM.
STOPPED = (0, -signal.SIGTERM)

PROCESSES = {
    "gateway": "listening on",
    "codec-worker": "codec worker",
    "controller": "epoch 1",
}


def signalled(directory: Path, module: str, number: int) -> dict[str, str]:
    """The environment of a process that gets the signal as it imports ``module``."""
    (directory / "sitecustomize.py").write_text(HOOK)
    path = os.pathsep.join([str(directory), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "SIGNALLED_AT": f"{module} {int(number)}"}


@pytest.fixture
def apart(trunkline: Trunkline) -> Trunkline:
    """No answer comes from Twilio's address."""
    trunkline.environment["TRUNKLINE_TWILIO_API_URL"] = f"http://127.0.0.1:{free_ports(1)[0]}"
    return trunkline


def start_up(trunkline: Trunkline, **environment: str) -> Running:
    trunkline.environment.pop("TRUNKLINE_TWILIO_API_URL", None)
    return trunkline.start("up", "--sim", **environment)


# --------------------------------------------------------------------------- SIGTERM


@pytest.mark.parametrize("role", PROCESSES)
def test_a_process_that_sigterm_stops_at_once_has_not_failed(apart: Trunkline, role: str) -> None:
    assert apart.start(role).end()[0] in STOPPED


@pytest.mark.parametrize("module", ["click", "zmq", "{}.process"])
@pytest.mark.parametrize("role", PROCESSES)
def test_a_process_that_sigterm_stops_while_it_imports_has_not_failed(
    apart: Trunkline, role: str, module: str
) -> None:
    module = module.format(f"trunkline.{role.replace('-', '_')}")
    running = apart.start(role, **signalled(apart.directory, module, signal.SIGTERM))
    assert running.process.wait(ENDS_WITHIN) in STOPPED
    assert running.err == ""


@pytest.mark.parametrize("keep", [(), ("--keep-alive",)], ids=["itself", "kept"])
@pytest.mark.parametrize("role", PROCESSES)
def test_a_process_that_sigterm_stops_before_its_stack_is_there_has_not_failed(
    apart: Trunkline, role: str, keep: tuple[str, ...]
) -> None:
    running = apart.start(role, *keep)
    running.until(lambda: PROCESSES[role] in running.err)
    assert running.end()[0] == 0, running.err


@pytest.mark.parametrize("module", [None, "click", "trunkline.stack.up"])
def test_a_stack_that_sigterm_stops_before_its_first_process_has_not_failed(
    trunkline: Trunkline, module: str | None
) -> None:
    if module is None:
        assert start_up(trunkline).end()[0] in STOPPED
        return
    running = start_up(trunkline, **signalled(trunkline.directory, module, signal.SIGTERM))
    assert running.process.wait(ENDS_WITHIN) in STOPPED
    assert running.err == ""


@pytest.mark.parametrize("child", ["carrier-sim", "controller"])
def test_a_stack_that_sigterm_stops_while_it_comes_up_has_not_failed(
    trunkline: Trunkline, child: str
) -> None:
    running = start_up(trunkline)
    running.until(lambda: running.children(child))
    children = running.children("trunkline")
    status, took = running.end()
    assert (status, took < ENDS_WITHIN) == (0, True), running.err
    assert "interrupted before the stack was ready" in running.err
    assert "trunkline is ready" not in running.out
    assert all_end(children, 0.0)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])
def test_a_stack_that_waits_for_its_tunnel_can_be_stopped(
    apart: Trunkline, number: int, status: int
) -> None:
    program, opened = apart.directory / "cloudflared", apart.directory / "opened"
    program.write_text(f"#!/bin/sh\ntouch {opened}\nexec sleep 60\n")
    program.chmod(0o755)
    path = f"{apart.directory}:{os.environ['PATH']}"
    running = apart.start("up", "--tunnel", "cloudflared", PATH=path)
    running.until(opened.exists)
    children = running.children("sleep", "60")
    found, took = running.end(number)
    assert (found, took < ENDS_WITHIN) == (status, True), running.err
    assert children and all_end(children, 0.0)


# --------------------------------------------------------------------------- Ctrl-C


def entry_point() -> list[str]:
    """What the console script does."""
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    named = tomllib.loads(pyproject.read_text())["project"]["scripts"]["trunkline"]
    module, _, function = named.partition(":")
    code = f"import sys; from {module} import {function}; sys.exit({function}())"
    return [sys.executable, "-P", "-c", code]


@pytest.mark.parametrize("module", ["trunkline.cli.main", "click", "msgspec"])
@pytest.mark.parametrize("argv", [entry_point(), trunkline_argv()], ids=["script", "-m"])
def test_ctrl_c_while_a_command_imports_shows_nothing(
    argv: list[str], module: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*argv, "status"],
        env={**os.environ, **signalled(tmp_path, module, signal.SIGINT)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (-signal.SIGINT, "")


def test_ctrl_c_while_a_command_imports_what_it_alone_needs_is_one_line(
    trunkline: Trunkline,
) -> None:
    hooked = signalled(trunkline.directory, "trunkline.stack.up", signal.SIGINT)
    running = start_up(trunkline, **hooked)
    assert running.process.wait(ENDS_WITHIN) == 1
    assert running.err.strip() == "trunkline: interrupted"
