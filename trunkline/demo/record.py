"""The demo's stack, and the carrier's record of a call that has ended there.

The calls by langwatch-scenario (calls.py) and those by ``Line`` alone (line_calls.py) both use
these.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from trunkline.bus.errors import TrunklineError
from trunkline.bus.launch import StackInfo
from trunkline.bus.settings import load
from trunkline.carrier_sim.client import SimClient
from trunkline.carrier_sim.mulaw import decode

from ..stack.controller_client import controller_client, get_status
from .measure import CallRecord, Handed, place_turn

#: Seconds within which a call has to come up.
SET_UP_WITHIN: Final = 15.0
#: Seconds after the hang-up within which the carrier has to close its record of the call.
RECORDED_WITHIN: Final = 5.0


@dataclass(frozen=True)
class Stack:
    """The demo's stack, and the carrier beside it."""

    info: StackInfo
    sim: SimClient

    async def status(self) -> dict[str, Any]:
        """The object that ``trunkline status --json`` prints."""
        async with controller_client(load(env_file=None, bus=self.info.bus)) as client:
            return await get_status(client)


@dataclass
class Watch:
    """Notes that are made of a call while it lives."""

    stack: Stack
    sid: str = ""
    frames_lost: int = 0
    #: the number's voice_url while trunkline holds it
    during: str = ""
    #: seconds from dialling until sound flows both ways
    set_up: float = 0.0
    #: the sound that was handed over in each turn
    handed: list[Handed] = field(default_factory=list)

    async def note_loss(self, state: object = None) -> None:
        """Note how many frames trunkline has counted as lost. To be called before the call ends.
        ``state``: scenario's, which it passes to each step of a script."""
        for call in (await self.stack.status())["calls"]:
            if call["sid"] == self.sid:
                self.frames_lost = int(call["frames_lost"])

    async def until_written(self, number: str, before: str, waiting: asyncio.Task[Any]) -> None:
        """Wait until the number's voice_url is no longer ``before``. Raises what ``waiting`` raises
        if that ends first."""
        numbers = self.stack.sim.numbers
        while not waiting.done():
            found: str = (await asyncio.to_thread(numbers))[number]["voice_url"]
            if found != before:
                self.during = found
                return
            await asyncio.sleep(0.02)
        await waiting
        raise TrunklineError(f"{number} was answered before its voice_url was written")

    async def record(self, *, success: bool = True) -> CallRecord:
        """Wait for the call's end, and return the carrier's record of it."""
        sim = self.stack.sim
        call = await asyncio.to_thread(sim.wait_for, self.sid, timeout=RECORDED_WITHIN)
        if not call["streams"]:
            raise TrunklineError(f"the call {self.sid} had no media stream")
        stream = call["streams"][0]
        record = CallRecord(
            sid=self.sid,
            played=decode(await asyncio.to_thread(sim.played, self.sid)),
            said=decode(await asyncio.to_thread(sim.said, self.sid)),
            started=call["media_started"],
            setup_seconds=self.set_up,
            metrics=stream["metrics"],
            arrivals=await asyncio.to_thread(sim.arrivals, stream["sid"]),
            frames_lost=self.frames_lost,
            success=success,
        )
        record.events = _events(call, stream, record.started)
        record.turns = [place_turn(handed, record) for handed in self.handed if handed.pieces]
        return record


def _events(
    call: dict[str, Any], stream: dict[str, Any], started: float
) -> list[tuple[float, str]]:
    events = [(at - started, str(status)) for at, status in call["history"]]
    events.append((stream["opened_at"] - started, "stream opened"))
    if stream["ended_at"] is not None:
        events.append((stream["ended_at"] - started, f"stream ended ({stream['ended_by']})"))
    return sorted(events)
