"""The sound of one call, both sides on the call's clock, for whoever asks for a report. No I/O.

- A position is a sample at 8 kHz, counted from the first that the far end said, as the line's own
  positions are. What we said has its place there by the time when the carrier plays it: the
  acknowledgements tell that, and the far end's sound tells which position comes at which time.
- Messages wait, now longer, now shorter. The far end's sound that waited least tells when its first
  sample came; how long the rest waited beyond that is the jitter.
- A call is kept small, because most of them are never asked about: one byte a sample, every third
  sample of 24 kHz (a telephone's band has nothing above 4 kHz), an hour at most.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from trunkline.bus.sound import LINE_RATE, WIRE_RATE

Samples = npt.NDArray[np.int16]

#: The most of a call that is kept, in positions: an hour.
MOST: Final = 3_600 * WIRE_RATE
#: An acknowledgement that is later than this (seconds) was not only waiting in a queue.
LATE: Final = 0.5
#: Sound is made small in pieces of a second at most (positions).
_PIECE: Final = WIRE_RATE
_POSITION_BYTES: Final = 6
_BYTES_A_SECOND: Final = 2 * LINE_RATE
#: Times that are as close as this (seconds) are the same.
_SAME_TIME: Final = 1e-6


def _tables() -> tuple[npt.NDArray[np.int8], Samples]:
    """The logarithmic code of each sample (by its bits), and the sample of each code."""
    sample = np.arange(65_536, dtype=np.uint16).view(np.int16).astype(np.float64)
    code = np.sign(sample) * np.rint(127 * np.log1p(255 * np.abs(sample) / 32_768) / np.log(256))
    each = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float64)
    value = np.sign(each) * 32_767 * np.expm1(np.abs(each) / 127 * np.log(256)) / 255
    return code.astype(np.int8), np.rint(np.clip(value, -32_768, 32_767)).astype(np.int16)


_CODE, _SAMPLE = _tables()


def _small(pcm: bytes) -> bytes:
    # take() looks the codes up in two thirds of the time that _CODE[...] needs.
    codes: bytes = _CODE.take(np.frombuffer(pcm, "<u2")[::3]).tobytes()
    return codes


@dataclass(slots=True)
class _Saying:
    """The bytes from ``first`` to ``stop`` of an utterance, which the carrier plays from ``begins``
    on."""

    begins: float
    pcm: bytes
    first: int
    stop: int

    def small(self) -> tuple[float, bytes]:
        return self.begins, _small(self.pcm[self.first : self.stop])


class CallTape:
    """The sound of one call. Times are the client's clock.

    It is told of every frame, so sound is only referred to at first, and made small a second or an
    utterance at a time. Another thread may ask for it meanwhile."""

    def __init__(self) -> None:
        #: theirs that is small, each with the position at which it begins
        self._heard: list[tuple[int, bytes]] = []
        #: theirs that is not yet: (position, pieces behind one another)
        self._fresh: tuple[int, list[bytes]] = (0, [])
        self._heard_to = 0
        #: how late each piece of theirs came, behind the time that its position has
        self._delays = array("d")
        #: ours that is small, each with the time when it begins
        self._said: list[tuple[float, bytes]] = []
        #: ours that is not yet
        self._saying: _Saying | None = None
        self._said_to = 0.0

    def heard(self, position: int, pcm: bytes, now: float) -> None:
        """They said ``pcm`` from ``position`` on; it came at ``now``."""
        began, fresh = self._fresh
        if position != self._heard_to or position - began >= _PIECE:
            if position > MOST:
                return
            if fresh:
                self._heard.append((began, _small(b"".join(fresh))))
            fresh = []
            self._fresh = (position, fresh)
        fresh.append(pcm)
        self._heard_to = position = position + -(-len(pcm) // _POSITION_BYTES)
        self._delays.append(now - position / WIRE_RATE)

    def said(self, begins: float, pcm: bytes, first: int, stop: int) -> None:
        """The carrier plays the bytes from ``first`` to ``stop`` of an utterance, beginning at
        ``begins``. Where the acknowledgement of its rest came a little late, that was heard without
        a hole."""
        if first > 0 and 0.0 < begins - self._said_to < LATE:
            begins = self._said_to
        saying = self._saying
        if (
            saying is not None
            and saying.pcm is pcm
            and saying.stop == first
            and abs(begins - self._said_to) < _SAME_TIME
            and stop - saying.first < _PIECE * _POSITION_BYTES
        ):
            saying.stop = stop
        else:
            self._make_said_small()
            if self._delays and (begins - self._delays[0]) * WIRE_RATE > MOST:
                return
            self._saying = _Saying(begins, pcm, first, stop)
        self._said_to = begins + (stop - first) / _BYTES_A_SECOND
        if stop >= len(pcm):
            self._make_said_small()  # so that the user's sound is not held on to

    def _make_said_small(self) -> None:
        if self._saying is not None:
            self._said.append(self._saying.small())
            self._saying = None

    def cut(self, now: float) -> None:
        """The carrier dropped what it had not played yet."""
        self._make_said_small()
        while self._said and self._said_to > now:
            begins, codes = self._said.pop()
            played = round((now - begins) * WIRE_RATE)
            self._said_to = begins
            if played > 0:
                self._said.append((begins, codes[:played]))
                self._said_to = now

    @property
    def jitter_ms(self) -> float | None:
        """Nineteen of twenty messages of theirs came this close to the usual delay. None: no
        message came."""
        delays = np.frombuffer(self._delays.tobytes())
        if not len(delays):
            return None
        return float(1000 * np.percentile(np.abs(delays - np.median(delays)), 95))

    def sides(self) -> tuple[Samples, Samples]:
        """(ours, theirs) as PCM16 at 8 kHz, on one clock, the far end's."""
        # What is small meanwhile is read twice, and nothing is missed.
        (at, fresh), saying = self._fresh, self._saying
        heard = [(at, _small(b"".join(fresh))), *self._heard]
        said = [*self._said, *([] if saying is None else [saying.small()])]
        delays = np.frombuffer(self._delays.tobytes())
        began = float(delays.min()) if len(delays) else 0.0
        ours = [(round((begins - began) * WIRE_RATE), codes) for begins, codes in said]
        return _laid_out(ours), _laid_out(heard)


def _laid_out(pieces: list[tuple[int, bytes]]) -> Samples:
    """The pieces at their positions, with silence between them."""
    longest = max((at + len(codes) for at, codes in pieces), default=0)
    track = np.zeros(max(0, longest), np.int16)
    for at, codes in pieces:
        begin = max(0, at)
        track[begin : at + len(codes)] = _SAMPLE[np.frombuffer(codes, np.uint8)[begin - at :]]
    return track
