"""Whatever is given to an option or an argument: one line that says what is wrong, no traceback.

Nothing is started here, and nobody is asked over a network: commands come as far as they would
without that.
"""

from __future__ import annotations

import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from trunkline.bus import control
from trunkline.bus.errors import StackUnavailableError
from trunkline.carrier_sim.command import command as carrier_sim
from trunkline.cli import main

VALUES = (
    "",
    "-1",
    "nan",
    "999999999999999999999",
    "é\x1b[2J\nsecond line",
    "\udcff",
    "x" * 5_000,
    "/dev/null/x",
    "directory",
    "text.wav",
    "http://[",
    "tcp://127.0.0.1:1",
    "+1=b=c",
)
COMMANDS = {
    name: carrier_sim if name == "carrier-sim" else command
    for name, command in main.cli.commands.items()
    if not command.hidden
}


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory with a few wrong files; no settings, no stack, no network."""
    where = tmp_path / "a/b/c"
    (where / "directory").mkdir(parents=True)
    (where / "text.wav").write_text("no sound")
    monkeypatch.chdir(where)
    for name in list(os.environ):
        if name.startswith(("TWILIO_", "TRUNKLINE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TRUNKLINE_BUS", f"ipc://{tmp_path}/bus")
    monkeypatch.setenv("TRUNKLINE_STATE_DIR", str(tmp_path / "state"))

    async def nobody(self: control.ControlClient, timeout: float = 0.0) -> Any:
        raise StackUnavailableError("no controller answers: start a stack with `trunkline up`")

    def started(*_: object, **__: object) -> int:
        return 0

    def not_run(work: Coroutine[Any, Any, Any]) -> None:
        work.close()

    monkeypatch.setattr(control.ControlClient, "wait_welcome", nobody)
    for module in ("gateway", "controller", "codec_worker"):
        monkeypatch.setattr(f"trunkline.{module}.process.main", started)
    monkeypatch.setattr("trunkline.stack.keep_alive.keep_alive", started)
    monkeypatch.setattr("trunkline.stack.public_port.PublicPort.claim", Claimed)
    # It would leave this process without the signals that end it, and so all that is started later.
    monkeypatch.setattr("trunkline.demo.run.run", started)
    monkeypatch.setattr("trunkline.carrier_sim.command.uvloop.run", not_run)
    yield


class Claimed:
    """Stands for the public port."""

    def __init__(self, *_: object) -> None: ...
    def detach(self) -> int:
        return 0

    def close(self) -> None: ...


def given(command: click.Command, param: click.Parameter, value: str) -> list[str]:
    """A command line that is right but for this value."""
    line: list[str] = []
    for each in command.params:
        if isinstance(each, click.Argument) and each.nargs == 1:
            line.append(value if each is param else "CA1")
        elif each is param:
            line.append(f"{each.opts[-1]}={value}")
        elif each.required:
            line.append(f"{each.opts[-1]}={fitting(each)}")
    return line


def fitting(param: click.Parameter) -> str:
    return (
        "text.wav"
        if "say" in param.opts[-1]
        else "3"
        if "calls" in param.opts[-1]
        else "+14155551234"
    )


def cases() -> Iterator[Any]:
    for name, command in COMMANDS.items():
        for param in command.params:
            flag = isinstance(param, click.Option) and (param.is_flag or param.hidden)
            if not flag:
                yield pytest.param(name, param, id=f"{name} {param.opts[-1]}")


def run(argv: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status, and what was said on stderr."""
    with pytest.raises(SystemExit) as ended:
        main.main(argv)
    code = ended.value.code
    assert isinstance(code, int)
    return code, capfd.readouterr().err


@pytest.mark.parametrize(("name", "param"), list(cases()))
def test_a_hostile_value_is_one_line(
    name: str, param: click.Parameter, capfd: pytest.CaptureFixture[str]
) -> None:
    for value in VALUES:
        argv = [name, *given(COMMANDS[name], param, value)]
        code, said = run(argv, capfd)
        assert code in (0, 1, 2), (argv, said)
        assert "Traceback" not in said and "unexpected" not in said, (argv, said)
        assert "\x1b" not in said, (argv, said)
        if code:
            *_, last = said.splitlines()
            assert last.startswith("trunkline"), (argv, said)
            # A command may say before how it got there, for example `calls` that no stack answers.
            assert said.count("\n") <= 2, (argv, said)


# `record` takes it for the program that it is to run.
@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"record"}))
def test_an_option_that_there_is_not_is_wrong_usage_in_one_line(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said = run([name, "--no-such-option"], capfd)
    assert code == 2 and said.count("\n") == 1
    assert f"`trunkline {name} --help` has examples" in said
