"""``trunkline call`` and ``trunkline answer``: one call by hand, through the running stack.

The call lasts until the far end hangs up, the time of ``--listen`` is over, or Ctrl-C is pressed.
Then the recording is written. Each event of the call prints one line. With ``--json`` these lines
go to stderr, and at the end of the call one JSON object goes to stdout.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import click

from trunkline.adapter.call import Call
from trunkline.adapter.line import Line
from trunkline.bus import wav
from trunkline.bus.clock import monotonic
from trunkline.bus.digits import check_digits
from trunkline.bus.errors import TrunklineError, WrongModeError
from trunkline.bus.process import EXIT_DONE, StoppedError, run, unless
from trunkline.bus.redact import printable
from trunkline.bus.settings import Settings
from trunkline.bus.sound import LINE_RATE

from ..reports import files
from .numbers import of_the_account

#: Seconds to listen after ``--say`` where ``--listen`` is not given.
LISTEN_AFTER_SAY = 2.0


@dataclass(frozen=True)
class Wishes:
    """The options of the two commands."""

    say: Path | None = None
    record: Path | None = None
    listen: float | None = None
    timeout: float = 120.0
    attach: Literal["a-leg", "b-leg"] = "a-leg"
    dtmf: str | None = None
    callee_speaks_first: bool = False
    echo: bool = False
    as_json: bool = False

    def say_line(self, text: str) -> None:
        """Print an event of the call."""
        click.echo(text, err=self.as_json)


@dataclass
class _Heard:
    pcm: bytearray = field(default_factory=bytearray)

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 2 / LINE_RATE


def call(settings: Settings, to: str, number: str, wishes: Wishes) -> int:
    """Call ``to`` from ``number``; returns the exit status. Raises what Line raises."""
    callees = [to] if wishes.attach == "a-leg" else None
    line = Line(number, allowed_callees=callees, bus=settings.bus, report=False)

    async def dial() -> Call:
        wishes.say_line(f"calling {to} from {line.number}")
        began = monotonic()
        made = await line.place_call(
            to,
            timeout=wishes.timeout,
            attach_stream=wishes.attach,
            callee_speaks_first=wishes.callee_speaks_first,
        )
        wishes.say_line(f"answered after {monotonic() - began - made.age:.1f} s: {made.sid}")
        return made

    with of_the_account(number, "--from", to):
        return _one_call(line, dial, wishes)


def answer(settings: Settings, number: str, wishes: Wishes) -> int:
    """Answer the next call to ``number``; returns the exit status. Raises what Line raises."""
    line = Line(number, bus=settings.bus, report=False)

    async def wait() -> Call:
        wishes.say_line(f"waiting for a call to {line.number}")
        made = await line.wait_for_call(timeout=wishes.timeout)
        wishes.say_line(f"{printable(made.caller) or 'somebody'} calls: {made.sid}")
        return made

    with of_the_account(number, "NUMBER"):
        return _one_call(line, wait, wishes)


def _one_call(line: Line, connect: Callable[[], Coroutine[Any, Any, Call]], wishes: Wishes) -> int:
    """Get a call from ``connect``, talk, and close the line; returns the exit status. Wrong options
    raise before anything is dialled."""
    if wishes.dtmf is not None:
        check_digits(wishes.dtmf)
    if wishes.record is not None:
        files.check_option("--record", wishes.record)
    saying = None if wishes.say is None else wav.read(wishes.say).tobytes()

    async def main(stop: asyncio.Event) -> int:
        async with line:
            try:
                made = await unless(stop, connect())
            except StoppedError:
                made = None
            line_held = made is None or await _talk(made, wishes, saying, stop)
        _check_closed(line, line_held)
        if made is None:
            raise TrunklineError("interrupted")
        return EXIT_DONE

    return run(main)


def _check_closed(line: Line, line_held: bool) -> None:
    if line.pending_restores:
        raise TrunklineError(
            f"{', '.join(line.pending_restores)} could not be put back yet; while a stack runs, it "
            "goes on trying (`trunkline status` shows it), and without one `trunkline restore` does"
        )
    if not line_held:
        raise TrunklineError(
            "nobody hung up: the line was lost. The stack's log says why, or the stack is gone "
            "(`trunkline status`)"
        )


async def _talk(call: Call, wishes: Wishes, saying: bytes | None, stop: asyncio.Event) -> bool:
    """Do what the options ask for until the call ends. False: the stack lost the call."""
    heard = _Heard(bytearray(call.greeting or b""))
    if call.greeting is not None:
        wishes.say_line(f"greeted for {heard.seconds:.1f} s")
    hearing = asyncio.create_task(_hear(call, heard, echo=wishes.echo))
    keys: list[str] = []
    digits = asyncio.create_task(_tell_digits(call, wishes, keys))
    try:
        with contextlib.suppress(StoppedError):
            await unless(stop, _speak(call, wishes, saying, hearing))
        await call.hang_up()
        await hearing
        await digits
    finally:
        hearing.cancel()
        digits.cancel()
        await asyncio.gather(hearing, digits, return_exceptions=True)
        if wishes.record is not None:
            wav.write(wishes.record, wav.from_bytes(bytes(heard.pcm)))
    kept = f" -> {wishes.record}" if wishes.record is not None else ""
    wishes.say_line(
        f"ended ({call.ended_reason}) after {call.age:.1f} s; heard {heard.seconds:.1f} s{kept}"
    )
    if wishes.as_json:
        told = {
            "sid": call.sid,
            "direction": call.direction,
            "caller": call.caller,
            "callee": call.callee,
            "ended_reason": call.ended_reason,
            "seconds": round(call.age, 3),
            "heard_seconds": round(heard.seconds, 3),
            "digits": "".join(keys),
            "recording": None if wishes.record is None else str(wishes.record),
        }
        click.echo(json.dumps(told))
    return call.ended_reason != "error" or call.ended_by_far_end


async def _speak(
    call: Call, wishes: Wishes, saying: bytes | None, hearing: asyncio.Task[None]
) -> None:
    """Press the digits of ``--dtmf``, play the recording of ``--say``, then listen."""
    listen = wishes.listen
    try:
        if wishes.dtmf is not None:
            await call.send_dtmf(wishes.dtmf)
            wishes.say_line(f"pressed {wishes.dtmf}")
        if saying is not None:
            listen = LISTEN_AFTER_SAY if listen is None else listen
            sent = await call.send_audio(saying)
            wishes.say_line(f"said {sent / LINE_RATE:.1f} s")
    except WrongModeError as error:  # perhaps the far end has just hung up
        if call.ended_reason is None and not hearing.done():
            raise
        wishes.say_line(str(error))
    await asyncio.wait({hearing}, timeout=listen)


async def _hear(call: Call, heard: _Heard, *, echo: bool) -> None:
    """Collect all that is heard until the call ends. With ``echo``, say it back."""
    while pcm := await call.recv_audio():
        heard.pcm += pcm
        if echo:
            try:
                await call.send_audio(pcm)
            except WrongModeError:
                echo = False  # the call is ending; go on collecting the rest of its sound


async def _tell_digits(call: Call, wishes: Wishes, keys: list[str]) -> None:
    async for digit in call.dtmf:
        keys.append(digit)
        wishes.say_line(f"digit {digit}")
