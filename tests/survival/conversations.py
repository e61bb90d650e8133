"""Calls that talk and listen at once in numbered frames, and the verdict on each of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from e2e.stack import ALICE, Stack, until

from benchmarks.chaos_client import Orders, Talk, taken
from benchmarks.chaos_judge import Verdict, judge
from benchmarks.chaos_stack import numbered_recording
from trunkline import Call, Line

#: Errors that the carrier lists when a stream's socket breaks, or when nobody takes a webhook.
BROKEN = {31903, 31921}
UNREACHED = {11200, 11205, 11210, 31901, 31902, 31920}
#: The longest hole (seconds) that a machine may make by itself where holes are measured.
QUIET_MACHINE = 0.2
#: Longer than any test.
_ENDLESS = 300.0
#: Frames in one send_audio. It is short, because the end of a talk waits for those in the queue.
_PIECE = 15


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)


def worker_of(stack: Stack, call: Call) -> int:
    """The pid of the codec worker that has the call."""
    return stack.pid_of("codec_workers", stack.call_status(call.sid)["codec_worker"])


def gateway_of(stack: Stack, call: Call) -> int:
    """The pid of the gateway that has the call's stream."""
    return stack.pid_of("gateways", stack.call_status(call.sid)["gateway"])


@dataclass
class Conversations:
    """Calls under way; ``verdicts`` once they are over."""

    stack: Stack
    line: Line
    #: numbers that may be called yet
    later: list[str] = field(default_factory=list)
    orders: Orders = field(default_factory=Orders)
    talks: list[Talk] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    #: when the blow falls: the calls are under way
    struck: float = float("inf")
    _saying: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def calls(self) -> list[Call]:
        return [talk.call for talk in self.talks]

    async def add(self, callee: str) -> Call:
        """Call somebody, and talk."""
        call = await self.line.place_call(callee, timeout=20.0, attach_stream="a-leg")
        n = len(self.talks)
        talk = Talk(call, 197 * n, piece=_PIECE, at_least=taken(n, time.monotonic()))
        self.talks.append(talk)
        self._saying.append(asyncio.ensure_future(talk.say(_ENDLESS, self.orders, 0)))
        return call

    async def both_ways(self, seconds: float) -> None:
        """Go on until every call has sent and heard so much more."""
        wanted = [
            (talk.sent + seconds * 24_000, talk.call.heard_samples + seconds * 8_000)
            for talk in self.talks
        ]

        def all_have() -> bool:
            return all(
                talk.sent >= sent and talk.call.heard_samples >= heard
                for talk, (sent, heard) in zip(self.talks, wanted, strict=True)
            )

        await until(all_have, f"{seconds:g} s of sound both ways in each call", 20.0)

    async def end(self) -> None:
        """Hang all calls up and judge them."""
        self.orders.count += 1
        await asyncio.gather(*self._saying)
        reports = await asyncio.gather(*(talk.end() for talk in self.talks))
        for found in reports:
            sid = found["sid"]
            await until(
                lambda sid=sid: sid not in self.stack.live_calls(),  # type: ignore[misc]  # bound here
                "the call is over",
            )
            carrier_call, played = self.stack.sim.call(sid), self.stack.sim.played(sid)
            self.verdicts.append(judge(found | {"kind": "a-leg"}, carrier_call, played))

    def check(self, *, streams: int = 1) -> None:
        """All calls were kept, on so many streams; nothing came twice, and every loss was told."""
        for verdict in self.verdicts:
            assert verdict.problems == [], verdict
            assert verdict.streams == streams, verdict

    def check_whole(self) -> None:
        """Not one frame was lost or came twice, and none was said to be."""
        self.check()
        for verdict in self.verdicts:
            lost = (verdict.lost_in, verdict.lost_out, verdict.reported_in, verdict.reported_out)
            assert lost == (0, 0, 0.0, 0.0), verdict

    def holes(self, *, before: bool) -> float:
        """The longest silence that a far end heard inside our speech (seconds), before or after
        the blow."""
        found = [
            seconds
            for verdict in self.verdicts
            for at, seconds in verdict.holes
            if (at + seconds < self.struck) == before
        ]
        return max(found, default=0.0)

    def check_holes(self, longest: float) -> None:
        """No silence after the blow was longer. A machine that makes holes by itself, which the
        time before the blow shows, cannot tell."""
        before = self.holes(before=True)
        assert before <= QUIET_MACHINE, f"machine too busy: a hole of {before:g} s before the blow"
        assert self.holes(before=False) <= longest, self.verdicts


@contextlib.asynccontextmanager
async def talking(stack: Stack, calls: int = 1, later: int = 0) -> AsyncIterator[Conversations]:
    """So many calls, each with a second of sound both ways behind it; judged afterwards.
    ``later``: so many numbers more may be called meanwhile."""
    recording = stack.directory / "numbered.wav"
    if not recording.exists():
        numbered_recording(recording)
    callees = [f"+1415888{n:04d}" for n in range(calls + later)]
    for callee in callees:
        stack.sim.add_callee(callee, f"wav:{recording},loop")
    async with Line(ALICE, allowed_callees=callees, bus=stack.bus) as line:
        conversations = Conversations(stack, line, callees[calls:])
        await asyncio.gather(*(conversations.add(callee) for callee in callees[:calls]))
        await conversations.both_ways(1.0)
        conversations.struck = time.monotonic()
        yield conversations
        await conversations.end()
