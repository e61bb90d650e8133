"""Listening in: both sides of a call that exists already, as its user hears them.

``Line.listen`` makes a :class:`Tap`. Nothing is ever said into the call, and the tap brings no
digits, because Twilio reports keys only on streams that go both ways.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from typing import TYPE_CHECKING, Literal

from trunkline.bus.errors import TrunklineError, WrongModeError
from trunkline.bus.messages import EndedReason
from trunkline.bus.sound import FRAME, NOT_TAKEN, POSITION_BYTES

from .client.both_tracks import BothTracks, Piece, Track
from .client.client import BusClient
from .client.session import ClientSession
from .client.telemetry import tell, trace_carrier

if TYPE_CHECKING:
    from trunkline.ear.figures import Report

    from .client.call_tape import Samples

log = logging.getLogger("trunkline.adapter")

#: ``close`` waits this long for the stream's end once the carrier was told to stop it.
ENDED_WITHIN = 3.0
_SID = re.compile(r"CA[0-9a-f]{32}")

Theirs = Literal["inbound", "outbound"]


def check(sid: str, theirs: str) -> None:
    """ValueError where this names no call, or no track of one."""
    if not isinstance(sid, str) or not _SID.fullmatch(sid):
        raise ValueError(f"{sid!r} is no CallSid: CA and 32 hex digits")
    if theirs not in ("inbound", "outbound"):
        raise ValueError(f'theirs must be "inbound" or "outbound", got {theirs!r}')


class Tap:
    """A call that is listened to, from :meth:`trunkline.Line.listen`.

    ``async for at, ours, theirs in tap`` has both sides until the call is over: ``at`` in seconds
    on the call's clock, which begins with the stream, and PCM16 24 kHz of both, of equal length.
    What never came is silence, so both stay side by side.
    """

    def __init__(
        self, client: BusClient, session: ClientSession, tracks: list[Track], both: BothTracks
    ) -> None:
        self._client = client
        self._session = session
        self._tracks = tracks
        self._both = both
        #: the figures of the report were sent to OpenTelemetry and /metrics
        self._told = False

    @classmethod
    async def open(
        cls, client: BusClient, session: ClientSession, sid: str, theirs: Theirs, timeout: float
    ) -> Tap:
        """A tap, once the stream of both tracks is up. Cancelled: the stream is stopped."""
        both = BothTracks(taped=session.taped)
        call = secrets.token_hex(16)
        try:
            tracks = await client.run(
                session.listen(call, sid, theirs, both, timeout, trace_carrier())
            )
        except asyncio.CancelledError:
            # The stream may have come up just as its user went away.
            client.post_unheard(session.stop_listening(call))
            raise
        return cls(client, session, tracks, both)

    def __repr__(self) -> str:
        return f"Tap(sid={self.sid!r}, {self.ended_reason or 'live'})"

    @property
    def sid(self) -> str:
        """CallSid of the call that is listened to."""
        return self._tracks[0].info.sid

    @property
    def theirs(self) -> Theirs:
        """Which track is the agent under test."""
        theirs = self._tracks[0].info.theirs
        assert theirs is not None
        return theirs

    @property
    def ended_reason(self) -> EndedReason | None:
        """None while there is something to hear. stop: the call is over; hang_up: we have stopped
        listening; error: its stream did not come back. Set once all that was heard can be taken."""
        return self._tracks[0].ended_reason if self._both.over else None

    @property
    def age(self) -> float:
        """Seconds since its stream came up first; of one that is over, how many it lasted."""
        return self._tracks[0].age

    @property
    def lost(self) -> dict[str, int]:
        """Samples (8 kHz) of both tracks that were lost so far, by reason."""
        found: dict[str, int] = {}
        for track in self._tracks:
            for why, samples in track.audio.lost.reasons.copy().items():
                found[why] = found.get(why, 0) + samples
        if self._both.not_taken:
            found[NOT_TAKEN] = self._both.not_taken // POSITION_BYTES
        return found

    def __aiter__(self) -> Tap:
        return self

    async def __anext__(self) -> Piece:
        await self._both.bell.wait_until(self._both.ready, None)
        piece = self._both.take()
        if piece is None:
            raise StopAsyncIteration
        return piece

    @property
    def keeps_sound(self) -> bool:
        """True if :meth:`report` works."""
        return self._both.is_kept

    def both_sides(self) -> tuple[Samples, Samples]:
        """(ours, theirs): what both sides have said so far, on one clock, as PCM16 at 8 kHz."""
        self._check_kept("both_sides")
        return self._both.sides()

    def report(self) -> Report:
        """How both sides have talked with each other so far, as of a call of ours
        (``Call.report``). WrongModeError for a tap of ``Line(…, report=False)``."""
        self._check_kept("report")
        from trunkline.ear.listen import listen

        ours, theirs = self._both.sides()
        lost = sum(samples for why, samples in self.lost.items() if why != NOT_TAKEN)
        report = listen(ours, theirs, frames_lost=-(-lost // FRAME), jitter_ms=self._both.jitter_ms)
        if self.ended_reason is not None and not self._told:
            self._told = True
            tell(self._client, self._tracks[0].info.trace, self.sid, report)
        return report

    def _check_kept(self, what: str) -> None:
        if not self.keeps_sound:
            raise WrongModeError(f"{what}: this tap keeps no sound, by its Line(report=False)")

    async def close(self) -> None:
        """Stop listening. The call itself goes on. What was heard can still be taken, and a report
        made of it."""
        if self.ended_reason is not None:
            return
        try:
            await self._client.run(self._session.hang_up(self._tracks[0]))
        except TrunklineError as error:
            log.warning(
                "the stream of call %s could not be stopped (%s); the stack goes on trying",
                self.sid,
                error,
            )
        for track in self._tracks:
            await track.wait_ended(ENDED_WITHIN)
