"""Both tracks of a call that is listened to, put together on one clock.

The two tracks come one by one, each as the sound of a call of its own (:mod:`.call_media`). They
were cut out of one Media Stream, so the stream's own positions say exactly what was said at the
same time. The clock here is the stream's: it begins at 0 with the first one.

- A later stream of the call (because its gateway died, for instance) begins where its first sound
  has its place in call time. Both tracks get that one place, so they stay side by side.
- Sound that never came on one track is silence, up to the end of the other track's sound. If one
  track brings nothing at all, the other track waits for it for :data:`WAITS` at most. Sound that
  comes even later is not handed out any more, but a report has it.
- Pieces that nobody takes are kept, as many as of any call; the oldest are dropped first.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.clock import Clock
from trunkline.bus.sound import LINE_RATE, MOST_KEPT, POSITION_BYTES, WIRE_RATE

from .call_audio import new_tape
from .call_instructions import Ended
from .call_media import CallMedia, Sender
from .thread_bridge import Bell

if TYPE_CHECKING:
    from .call_tape import Samples

#: One track waits this long (positions) for the other.
WAITS: Final = 2 * WIRE_RATE
_MOST_BYTES: Final = MOST_KEPT * LINE_RATE * 2

#: (seconds on the call's clock, ours, theirs): PCM16 24 kHz of equal length
Piece = tuple[float, bytes, bytes]


class _Side:
    """The sound of one track that is not handed out yet. It begins at the common position."""

    def __init__(self) -> None:
        self.pcm = bytearray()
        #: the track's own call time and this offset make the common position
        self.offset = 0


class BothTracks:
    """The sound of one call that is listened to. The client's thread puts it in, and the user's
    takes it. ``taped``: it is kept for a report."""

    def __init__(self, *, taped: bool = True) -> None:
        self.bell = Bell()
        self._lock = threading.Lock()
        self._ours, self._theirs = _Side(), _Side()
        self._tapes = (new_tape(), new_tape()) if taped else None
        #: where the sound of both sides begins
        self._at = 0
        #: by the stream's ordinal: the position of its beginning
        self._begins: dict[int, int] = {}
        self._pieces: deque[Piece] = deque()
        self._bytes = 0
        #: bytes of both sides together that nobody has taken in time
        self.not_taken = 0
        self._open = 2

    def heard(
        self,
        *,
        ours: bool,
        ordinal: int,
        stream_end: int,
        call_end: int,
        pcm: bytes,
        codes: bytes,
        now: float,
    ) -> None:
        """A track brings ``pcm``, which ends at ``stream_end`` of stream ``ordinal``. Its own call
        time there is ``call_end``. ``codes``: the same as mu-law, if its worker says it."""
        side = self._ours if ours else self._theirs
        with self._lock:
            begins = self._begins.get(ordinal)
            if begins is None:
                begins = 0 if not self._begins else call_end + side.offset - stream_end
                begins = self._begins[ordinal] = max(begins, self._end if self._begins else 0)
            side.offset = begins + stream_end - call_end
            end = begins + stream_end
            if self._tapes is not None and codes:
                self._tapes[0 if ours else 1].heard(end - len(codes), codes, now)
            self._put(side, end - -(-len(pcm) // POSITION_BYTES), pcm)
            self._hand_out()
        self.bell.ring()

    @property
    def _end(self) -> int:
        """The position at which the sound of the two tracks ends so far."""
        return self._at + max(len(self._ours.pcm), len(self._theirs.pcm)) // POSITION_BYTES

    def _put(self, side: _Side, position: int, pcm: bytes) -> None:
        at = self._at * POSITION_BYTES
        gap = position * POSITION_BYTES - (at + len(side.pcm))
        if gap >= 0:
            side.pcm += bytes(gap)
            side.pcm += pcm
        else:  # what is there already, or handed out, is not put in again
            side.pcm += pcm[-gap:]

    def _hand_out(self, *, all_of_it: bool = False) -> None:
        """Hand out the sound that both tracks have brought, and sound of one track alone once it
        has waited long enough."""
        ours, theirs = self._ours.pcm, self._theirs.pcm
        longer = max(len(ours), len(theirs))
        size = min(len(ours), len(theirs))
        size = max(size, longer if all_of_it else longer - WAITS * POSITION_BYTES)
        size -= size % POSITION_BYTES
        if size <= 0:
            return
        piece = (
            self._at / WIRE_RATE,
            bytes(ours[:size]).ljust(size, b"\0"),
            bytes(theirs[:size]).ljust(size, b"\0"),
        )
        del ours[:size], theirs[:size]
        self._at += size // POSITION_BYTES
        self._pieces.append(piece)
        self._bytes += size
        while self._bytes > _MOST_BYTES:
            oldest = len(self._pieces.popleft()[1])
            self._bytes -= oldest
            self.not_taken += 2 * oldest

    def track_over(self) -> None:
        """One of the tracks has ended; after the second one nothing more comes."""
        with self._lock:
            self._open -= 1
            if not self._open:
                self._hand_out(all_of_it=True)
        self.bell.ring()

    @property
    def over(self) -> bool:
        """Nothing more comes."""
        return self._open <= 0

    def ready(self) -> bool:
        """Something can be taken, or nothing ever will be."""
        return bool(self._pieces) or self.over

    def take(self) -> Piece | None:
        """All that came since the last time, as one piece; None: there is nothing."""
        with self._lock:
            if not self._pieces:
                return None
            pieces = list(self._pieces)
            self._pieces.clear()
            self._bytes = 0
        if len(pieces) == 1:
            return pieces[0]
        ours = b"".join(ours for _, ours, _ in pieces)
        return pieces[0][0], ours, b"".join(theirs for _, _, theirs in pieces)

    @property
    def is_kept(self) -> bool:
        """It is kept for a report."""
        return self._tapes is not None

    def sides(self) -> tuple[Samples, Samples]:
        """(ours, theirs): all that both have said so far, as PCM16 at 8 kHz."""
        assert self._tapes is not None
        ours, theirs = (tape.sides()[1] for tape in self._tapes)
        return ours, theirs

    @property
    def jitter_ms(self) -> float | None:
        """As a call's: nineteen of twenty messages of theirs came this close to the usual delay."""
        assert self._tapes is not None
        return self._tapes[1].jitter_ms


class Track(CallMedia):
    """The inbound or the ``outbound`` track of the call that ``info`` is about: a call that is only
    heard, whose sound goes where the other track's goes."""

    def __init__(
        self, info: m.CallInfo, send: Sender, clock: Clock, both: BothTracks, *, outbound: bool
    ) -> None:
        call = m.outbound_track(info.call) if outbound else info.call
        super().__init__(replace(info, call=call), send, clock, taped=False)
        self.outbound = outbound
        self._both = both
        self._is_ours = (info.theirs == "outbound") != outbound

    def heard(self, worker: str, sound: m.Sound, now: float) -> None:
        """A worker brings sound of this track."""
        pcm = self.audio.heard(worker, sound, now)
        if pcm:
            self._both.heard(
                ours=self._is_ours,
                ordinal=sound.ordinal,
                stream_end=sound.stream_end,
                call_end=self.audio.heard_to,
                pcm=pcm,
                codes=sound.codes[-(len(pcm) // POSITION_BYTES) :],
                now=now,
            )

    def _finish(self, ended: Ended) -> None:
        super()._finish(ended)
        self._both.track_over()
