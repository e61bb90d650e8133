"""``trunkline up``: a whole stack of real processes, and the deaths it answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trunkline import Line
from trunkline.bus import hosts
from trunkline.bus.launch import free_ports, trunkline_argv
from trunkline.bus.process import ALIVE, READY, Stop
from trunkline.bus.settings import load
from trunkline.bus.testing import hanging_up
from trunkline.carrier_sim.client import SimClient
from trunkline.stack import up

from .conftest import ENDS_WITHIN, Running, Trunkline, all_end, commands

pytestmark = pytest.mark.e2e

NUMBER = "+14155551234"
BEFORE = "https://agent.example/voice"


@contextlib.contextmanager
def carrier(trunkline: Trunkline) -> Iterator[SimClient]:
    """carrier_sim as a process, and the stack's settings pointing at it."""
    (port,) = free_ports(1)
    trunkline.environment["TRUNKLINE_TWILIO_API_URL"] = f"http://127.0.0.1:{port}"
    running = trunkline.start("carrier-sim", "--port", str(port), "--number", f"{NUMBER}={BEFORE}")
    running.until(lambda: "listening" in running.out)
    with SimClient(f"http://127.0.0.1:{port}") as client:
        yield client


@pytest.fixture
def sim(trunkline: Trunkline) -> Iterator[SimClient]:
    with carrier(trunkline) as client:
        yield client


@pytest.fixture
def stack(trunkline: Trunkline, sim: SimClient) -> Running:
    return ready(trunkline.start("up"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Trunkline, Running]]:
    with commands(tmp_path_factory) as trunkline, carrier(trunkline):
        yield trunkline, ready(trunkline.start("up"))


def ready(running: Running) -> Running:
    running.until(lambda: "trunkline is ready" in running.out, 30)
    return running


def status(trunkline: Trunkline) -> dict[str, Any]:
    asked = subprocess.run(
        trunkline_argv("status", "--json"),
        env=trunkline.environment,
        cwd=trunkline.directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=20,
    )
    found: dict[str, Any] = json.loads(asked.stdout)
    return found


def test_the_ready_line_and_the_status_tell_what_runs(shared: tuple[Trunkline, Running]) -> None:
    trunkline, stack = shared
    (line,) = stack.out.splitlines()
    assert f"trunkline is ready: http://me:***@127.0.0.1:{trunkline.port}/line -> " in line
    assert "pa55" not in stack.out + stack.err
    assert trunkline.environment["TRUNKLINE_BUS"] in line
    found = status(trunkline)
    assert set(found) == {
        "controller",
        "gateways",
        "codec_workers",
        "sessions",
        "calls",
        "overrides",
    }
    assert [found["controller"]["pid"]] == stack.children("controller")
    assert {g["pid"] for g in found["gateways"]} == set(stack.children("gateway"))
    assert {w["pid"] for w in found["codec_workers"]} == set(stack.children("codec-worker"))
    assert len(found["gateways"]) == len(found["codec_workers"]) == 2


async def test_all_of_it_over_ipv6(trunkline: Trunkline) -> None:
    """Carrier, public listener, bus on tcp and doctor, with a call through them."""
    ports = []
    with contextlib.ExitStack() as held:
        for _ in range(3):
            free = held.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
            ports.append(int(free.getsockname()[1]))
    public, api, bus = ports
    trunkline.environment |= {
        "TRUNKLINE_HTTP_HOST": "::1",
        "TRUNKLINE_HTTP_PORT": str(public),
        "TRUNKLINE_PUBLIC_URL": f"HTTP://[::1]:{public}/",
        "TRUNKLINE_TWILIO_API_URL": f"http://[::1]:{api}",
        "TRUNKLINE_BUS": f"tcp://[::1]:{bus}",
    }
    argv = ("--host", "::1", "--port", str(api), "--number", f"{NUMBER}={BEFORE}")
    carrier = trunkline.start("carrier-sim", *argv)
    await asyncio.to_thread(carrier.until, lambda: "listening" in carrier.out)
    assert f"listening on http://[::1]:{api} " in carrier.out
    stack = await asyncio.to_thread(ready, trunkline.start("up"))
    (line,) = stack.out.splitlines()
    assert f"http://[::1]:{public} -> [::1]:{public} (" in line
    assert line.endswith(f"bus tcp://[::1]:{bus}")
    assert f"listening on http://[::1]:{public}" in stack.err
    token = trunkline.environment["TWILIO_AUTH_TOKEN"]
    with SimClient(f"http://[::1]:{api}") as sim:
        async with Line(NUMBER, bus=f"tcp://[::1]:{bus}", auth_token=token) as phone:
            waiting = asyncio.ensure_future(phone.wait_for_call(timeout=20))
            while sim.numbers()[NUMBER]["voice_url"] == BEFORE:
                await asyncio.sleep(0.02)
                assert not waiting.done(), waiting
            sim.place_call("+14155550000", NUMBER, "echo")
            call = await waiting
            assert await call.send_audio(bytes(4800)) == 2400
            assert await call.recv_audio(5)
            await call.hang_up()
        assert sim.numbers()[NUMBER]["voice_url"] == BEFORE
        assert sim.errors() == []
    doctor = trunkline.start("doctor")
    await asyncio.to_thread(doctor.process.wait, 30)
    assert f"public port      [::1]:{public} is in use, as it is while a stack runs" in doctor.out
    assert f"public URL       http://[::1]:{public} answers in " in doctor.out
    assert doctor.process.returncode == 0, doctor.out


def test_all_children_are_in_the_supervisors_process_group(
    shared: tuple[Trunkline, Running],
) -> None:
    _, stack = shared
    group = os.getpgid(stack.process.pid)
    assert {os.getpgid(pid) for pid in stack.children("trunkline")} == {group}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_time_and_leaves_nobody(
    trunkline: Trunkline, stack: Running, number: int
) -> None:
    children = stack.children("trunkline")
    assert len(children) == 5
    bus = trunkline.directory / "bus"
    assert len(list(bus.glob("w-*"))) == 2
    stack.process.send_signal(number)
    code, took = stack.end(number)  # twice is harmless
    assert (code, took < ENDS_WITHIN) == (0, True)
    assert all_end(children, 0.0)
    assert list(bus.glob("w-*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "closed"])
def test_what_its_terminal_sends_ends_its_processes_in_their_order(
    trunkline: Trunkline, sim: SimClient, number: int
) -> None:
    """It reaches all of them at once. The controller still ends first: none of the others has ended
    before it was asked to, which the supervisor would take for a death."""
    with hanging_up(signal.SIG_DFL):
        stack = ready(trunkline.start("up"))
    children = stack.children("trunkline")
    for pid in children:
        os.kill(pid, number)
    code, took = stack.end(number)
    assert (code, took < ENDS_WITHIN) == (0, True)
    assert all_end(children, 0.0)
    assert "starting it again" not in stack.err


def test_sigterm_to_all_of_its_processes_starts_none_again(stack: Running) -> None:
    children = stack.children("trunkline")
    stack.process.send_signal(signal.SIGTERM)
    for pid in children:
        os.kill(pid, signal.SIGTERM)
    code, took = stack.end()
    assert (code, took < ENDS_WITHIN) == (0, True)
    assert "starting it again" not in stack.err


def test_nohup_keeps_it_when_its_terminal_is_closed(trunkline: Trunkline, sim: SimClient) -> None:
    with hanging_up(signal.SIG_IGN):
        stack = ready(trunkline.start("up"))
    for pid in [stack.process.pid, *stack.children("trunkline")]:
        os.kill(pid, signal.SIGHUP)
    assert len(status(trunkline)["codec_workers"]) == 2
    assert stack.end()[0] == 0


SAYS_WHEN_IT_IS_ASKED_TO_END = """
import pathlib, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
pathlib.Path(sys.argv[1] + ".up").touch()
signal.sigwait([signal.SIGTERM])
ended = [path.name for path in pathlib.Path(".").glob("*.ended")]
pathlib.Path(sys.argv[1]).write_text(" ".join(ended))
time.sleep(float(sys.argv[2]))
pathlib.Path(sys.argv[1] + ".ended").touch()
sys.exit(3)
"""


async def test_the_others_are_asked_to_end_once_the_controller_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers first: until they are as before, somebody has to answer at the public URL."""
    monkeypatch.chdir(tmp_path)

    def stand_in(name: str, *_: str) -> list[str]:
        takes = "0.5" if name == "controller" else "0"
        return [sys.executable, "-c", SAYS_WHEN_IT_IS_ASKED_TO_END, name, takes]

    monkeypatch.setattr(up, "trunkline_argv", stand_in)
    settings = load(env_file=None, bus=f"ipc://{tmp_path}/bus", state_dir=tmp_path / "state")
    stop = Stop()
    with (tmp_path / "port").open("w") as port:
        running = asyncio.ensure_future(
            up.run_stack(settings, port.fileno(), up.Wishes(1, 1), stop)
        )
        roles = ("controller", "gateway", "codec-worker")
        async with asyncio.timeout(10):
            while not all((tmp_path / f"{role}.up").exists() for role in roles):  # noqa: ASYNC110  # processes make them
                await asyncio.sleep(0.02)
        stop.set()
        assert await running == 3
    asked = {role: (tmp_path / role).read_text() for role in roles}
    assert asked["controller"] == ""
    assert "controller.ended" in asked["gateway"]
    assert "controller.ended" in asked["codec-worker"]


def test_it_ends_with_its_parent(trunkline: Trunkline, sim: SimClient) -> None:
    ours, theirs = os.pipe()
    os.set_inheritable(ours, True)
    running = trunkline.start(
        "up",
        *("--gateways", "1", "--codec-workers", "1"),
        parent_fd=ours,
        TRUNKLINE_PARENT_FD=str(ours),
    )
    os.close(ours)
    ready(running)
    children = running.children("trunkline")
    assert len(children) == 3
    os.close(theirs)
    assert running.process.wait(ENDS_WITHIN) == 0
    assert all_end(children, 0.0)


def said(descriptor: int, until: bytes) -> bytes:
    """What was written there, up to what ends with ``until``."""
    read = b""
    while until not in read and select.select([descriptor], [], [], 15.0)[0]:
        if not (more := os.read(descriptor, 1)):
            break
        read += more
    return read


def test_each_process_says_that_it_is_ready_once_it_does_its_work(
    trunkline: Trunkline, sim: SimClient
) -> None:
    """A gateway and a codec worker once the controller has taken them, and it once Twilio has."""
    pipes = []

    def start(role: str) -> Running:
        ours, theirs = os.pipe()
        pipes.append(ours)
        os.set_inheritable(theirs, True)
        running = trunkline.start(role, parent_fd=theirs, TRUNKLINE_KEEPER_FD=str(theirs))
        os.close(theirs)
        return running

    for role in ("gateway", "codec-worker"):
        running = start(role)
        running.until(lambda running=running: " at ipc" in running.err or "listen" in running.err)
    assert [said(pipe, ALIVE) for pipe in pipes] == [ALIVE, ALIVE]
    wrong = trunkline.environment | {"TWILIO_AUTH_TOKEN": "wrong"}
    trunkline.environment, right = wrong, trunkline.environment
    assert start("controller").process.wait(15) == 1
    trunkline.environment = right
    start("controller")
    _, _, refused, taken = pipes
    for pipe in (*pipes[:2], taken):
        assert READY in said(pipe, READY)
    assert READY not in said(refused, READY)
    for pipe in pipes:
        os.close(pipe)


@pytest.mark.parametrize(
    ("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)]
)
def test_a_second_stack_on_a_tcp_bus_is_refused_before_it_starts_anything(
    trunkline: Trunkline, host: str, family: socket.AddressFamily
) -> None:
    """Its gateways and codec workers would join the first one's controller."""
    with socket.create_server((host, 0), family=family) as taken:
        bus = f"tcp://{hosts.join(host, taken.getsockname()[1])}"
        second = trunkline.start("up", TRUNKLINE_BUS=bus)
        assert second.process.wait(15) == 1
        assert second.err.count("\n") == 1
        assert f"listens at TRUNKLINE_BUS={bus}" in second.err
        taken.setblocking(False)
        with pytest.raises(BlockingIOError):
            taken.accept()
