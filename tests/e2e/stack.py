"""A carrier and a stack as real processes, on ports, a bus and a state directory of their own.

What the processes say goes to log files; conftest.py shows their last lines when a test fails. All
of them end when pytest ends, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil
import pytest

from benchmarks.processes import ROOT, Run
from trunkline import Call, Line
from trunkline.bus.launch import ENDS_WITHIN, trunkline_argv

#: The account's numbers, and the settings that each had before any test.
ALICE, BOB, CAROL, DAVE = "+14155551234", "+14155551235", "+14155551236", "+14155551237"
PRIOR: Final[dict[str, dict[str, str]]] = {
    ALICE: {"voice_url": "https://agent.example/voice?tenant=7", "voice_method": "GET"},
    BOB: {"voice_url": "https://agent.example/other", "voice_fallback_url": "https://b.example/f"},
    CAROL: {"voice_url": "", "voice_fallback_method": "GET"},
    DAVE: {
        "voice_url": "https://user:secret@agent.example/dave",
        "status_callback": "https://agent.example/status",
    },
}
#: The fields of a number that has no settings.
DEFAULTS: Final[dict[str, str | None]] = {
    "voice_url": "",
    "voice_method": "POST",
    "voice_fallback_url": "",
    "voice_fallback_method": "POST",
    "voice_application_sid": None,
    "trunk_sid": None,
    "status_callback": "",
    "status_callback_method": "POST",
}
#: Somebody outside who calls, and somebody outside who is called.
CALLER, CALLEE = "+14155550000", "+14155557777"

_STEP: Final = 0.03

T = TypeVar("T")

#: All stacks that stand at the moment: their logs are shown when a test fails.
STANDING: list[Stack] = []


async def until(condition: Callable[[], T], what: str, seconds: float = 15.0) -> T:
    """Ask again and again until the condition is true; its value. Fails when that is late."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(_STEP)
    return found


async def dialled(call: Call) -> str:
    """The SID of the leg that we dialled. The call may be up before Twilio has told it."""
    sid = await until(lambda: call.dialled_sid, "the SID of our leg is known")
    assert sid is not None
    return sid


class Stack(Run):
    """A carrier with the account's numbers and, once ``up`` was called, a stack."""

    def __init__(self) -> None:
        super().__init__("tl-e2e-")
        self.bus = self.environment["TRUNKLINE_BUS"]
        self.account = self.environment["TWILIO_ACCOUNT_SID"]
        self.token = self.environment["TWILIO_AUTH_TOKEN"]
        # Where the Procfile looks for commands: the Python of these tests.
        self.environment["VIRTUAL_ENV"] = sys.prefix
        #: Error numbers of the carrier that the running test brings about itself.
        self.provoked: set[int] = set()
        STANDING.append(self)

    # ------------------------------------------------------------------ processes

    def start_carrier(self, *options: str) -> None:
        """The stand-in carrier with the account's numbers; returns once it answers."""
        super().start_carrier(*options)
        for number, fields in PRIOR.items():
            self.sim.add_number(number, **fields)

    def honcho(
        self, *options: str, procfile: str = "Procfile", env: str = "", **environment: str
    ) -> subprocess.Popen[bytes]:
        """``honcho start`` of a Procfile of the repository's; returns at once. ``env``: what stands
        in its file of settings."""
        settings = self.directory / "honcho.env"
        settings.write_text(env)
        argv = trunkline_argv(
            *("with-parent", "--grace", "8", "--", sys.executable, "-m", "honcho", "--no-colour"),
            *("-e", str(settings), "-f", str(ROOT / procfile), "start", *options),
        )
        return self.run(argv, "honcho", cwd=ROOT, **environment)

    def command(self, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a ``trunkline`` command to its end."""
        return subprocess.run(
            trunkline_argv(*argv),
            env=self.environment | environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=30.0,
        )

    def lines(self, name: str) -> list[str]:
        """What the program that was started last under this name has said."""
        log = next(log for log in reversed(self.logs) if log.stem.endswith(f"-{name}"))
        return log.read_text(errors="replace").splitlines()

    def client(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start client.py, which uses lines of this stack in a process of its own."""
        return self.run([sys.executable, str(Path(__file__).parent / "client.py"), *argv], "client")

    def said(self, process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
        """The JSON objects that a client has printed so far."""
        log = self.logs[self.processes.index(process)]
        lines = log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def stop(self) -> int:
        """SIGTERM to the stack; its exit status. Nothing of it is left."""
        process = self.stack_process
        assert process is not None
        family = self.family() if process.poll() is None else []
        self.stack_process = None
        process.terminate()
        status = process.wait(ENDS_WITHIN)
        _, alive = psutil.wait_procs(family, 2.0)
        assert not alive, f"left behind: {alive}"
        return status

    def close(self) -> None:
        """End everything, the carrier last."""
        try:
            if self.stack_process is not None:
                assert self.stop() == 0, f"the stack did not end well\n{self.tails()}"
        finally:
            super().close()
            STANDING.remove(self)

    @contextlib.contextmanager
    def contradicting(self, *beliefs: str) -> Iterator[None]:
        """The carrier contradicts these beliefs for as long as the block lasts."""
        self.sim.contradict(*beliefs)
        try:
            yield
        finally:
            self.sim.contradict()

    # ------------------------------------------------------------------ what it says

    def call_status(self, sid: str) -> dict[str, Any]:
        """The stack's own row of a call, empty when it has none."""
        rows = [call for call in self.status()["calls"] if call["sid"] == sid]
        return rows[0] if rows else {}

    def pid_of(self, section: str, name: str) -> int:
        """The process of a gateway or codec worker by its id."""
        return next(int(row["pid"]) for row in self.status()[section] if row["id"] == name)

    def stream_sound(self, sid: str) -> list[bytes]:
        """What the far end of a call has heard of each of its streams, without the holes, as
        mu-law."""
        call = self.sim.call(sid)
        played = self.sim.played(sid)
        sounds = []
        for stream in call["streams"]:
            sound = bytearray()
            for span in self.sim.spans(stream["sid"])["spans"]:
                begin = round((span["started"] - call["media_started"]) * 8000)
                sound += played[begin : begin + span["to_position"] - span["from_position"]]
            sounds.append(bytes(sound))
        return sounds

    def far_end_heard(self, sid: str) -> bytes:
        """The same of all streams of a call. A hole, where a busy machine let the carrier's buffer
        run dry, is no frame lost; how many there are is the benchmark's business."""
        return b"".join(self.stream_sound(sid))

    def played_seconds(self, sid: str) -> float:
        """For how long the far end of a call has heard us, silence left out."""
        return len(self.far_end_heard(sid)) / 8000

    # ------------------------------------------------------------------ the account

    def voice(self, number: str) -> dict[str, Any]:
        """The voice fields of a number at the carrier, those that ``PRIOR`` names among them."""
        row = self.sim.numbers()[number]
        return {name: row[name] for name in DEFAULTS}

    def changed_numbers(self) -> dict[str, dict[str, Any]]:
        """Numbers that are not as they were before the tests."""
        found = {number: self.voice(number) for number in PRIOR}
        return {n: row for n, row in found.items() if row != DEFAULTS | PRIOR[n]}

    def held(self, number: str) -> bool:
        """Whether the number's calls come to this stack (or would, were it there)."""
        return self.voice(number)["voice_url"].startswith(self.public_url)

    def armed(self, number: str) -> bool:
        """The same, and the stack has noted it. One that is killed before that leaves a doubt for a
        minute: its write may still take effect."""
        return self.overrides().get(number) == "applied"

    def overrides(self) -> dict[str, str]:
        """The state of each override by its number, as the stack knows it."""
        return {row["number"]: row["state"] for row in self.status()["overrides"]}

    def live_calls(self) -> list[str]:
        """SIDs of the carrier's calls that have not ended."""
        ended = ("completed", "busy", "failed", "no-answer", "canceled")
        return [call["sid"] for call in self.sim.calls() if call["status"] not in ended]

    def calls_to(self, number: str) -> list[dict[str, Any]]:
        """The carrier's calls to a number, newest first."""
        return [call for call in reversed(self.sim.calls()) if call["to"] == number]

    def check_nothing_left(self) -> None:
        """Every number as before, no call that lives, no error that nobody provoked."""
        assert self.changed_numbers() == {}
        assert self.live_calls() == []
        errors = [e for e in self.sim.errors() if e["code"] not in self.provoked]
        assert errors == []
        health = self.sim.health()
        assert health["ok"], health


def standing(processes: int, *options: str) -> Iterator[Stack]:
    """A stack with ``processes`` gateways and codec workers, and a carrier with these options."""
    stack = Stack()
    try:
        stack.start_carrier(*options)
        stack.up(gateways=processes, codec_workers=processes)
        yield stack
    finally:
        stack.close()


async def checked(stack: Stack, processes: int) -> AsyncIterator[Stack]:
    """The stack for one test, which has to leave it complete and all else as it was."""
    stack.provoked.clear()
    stack.forget_logs()
    yield stack
    await until(lambda: stack.complete(processes, processes), "what was killed is back", 20.0)
    try:
        # A call that our side has hung up is over at the carrier a moment later.
        await until(lambda: not stack.live_calls(), "all calls are over")
        stack.check_nothing_left()
    finally:
        stack.sim.reset()


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """SIGSTOP for as long as the block lasts."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def be_called(
    stack: Stack, line: Line, bot: str | dict[str, object], caller: str = CALLER
) -> Call:
    """Somebody calls the line's number, which it answers for the first time."""
    waiting = asyncio.ensure_future(line.wait_for_call(20.0))
    try:
        await until(lambda: stack.held(line.number) or waiting.done(), "the number is armed")
        stack.sim.place_call(caller, line.number, bot)
        return await waiting
    finally:
        waiting.cancel()


@contextlib.asynccontextmanager
async def called(stack: Stack, bot: str | dict[str, object]) -> AsyncIterator[Call]:
    """The call of somebody to ALICE, on a line of its own."""
    async with Line(ALICE, bus=stack.bus) as line:
        yield await be_called(stack, line, bot)


@contextlib.asynccontextmanager
async def calling(stack: Stack, bot: str | dict[str, object]) -> AsyncIterator[Call]:
    """A call from ALICE to somebody outside, by our own leg, on a line of its own."""
    stack.sim.add_callee(CALLEE, bot)
    async with Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus) as line:
        yield await line.place_call(CALLEE, timeout=20.0, attach_stream="a-leg")


class Ear:
    """Takes all that a call hears, from now to its end."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._heard = bytearray()
        self.task = asyncio.ensure_future(self._listen())

    async def _listen(self) -> bytes:
        while pcm := await self._call.recv_audio(20.0):
            self._heard += pcm
        return bytes(self._heard)

    @property
    def seconds(self) -> float:
        """How much was heard so far."""
        return len(self._heard) / 48_000

    async def all(self) -> bytes:
        """All of it, once the call has ended."""
        async with asyncio.timeout(20.0):
            return await self.task
