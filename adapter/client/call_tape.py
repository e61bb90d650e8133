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
from typing import Final

import numpy as np
import numpy.typing as npt

from trunkline.bus.sound import LINE_RATE, WIRE_RATE

Samples = npt.NDArray[np.int16]

#: The most of a call that is kept, in positions: an hour.
MOST: Final = 3_600 * WIRE_RATE
#: An acknowledgement that is later than this (seconds) was not only waiting in a queue.
LATE: Final = 0.5
#: Sound is made small in pieces of about a second.
_PIECE_BYTES: Final = 2 * LINE_RATE
_POSITION_BYTES: Final = 6


def _tables() -> tuple[npt.NDArray[np.int8], Samples]:
    """The logarithmic code of each sample (by its bits), and the sample of each code."""
    sample = np.arange(65_536, dtype=np.uint16).view(np.int16).astype(np.float64)
    code = np.sign(sample) * np.rint(127 * np.log1p(255 * np.abs(sample) / 32_768) / np.log(256))
    each = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float64)
    value = np.sign(each) * 32_767 * np.expm1(np.abs(each) / 127 * np.log(256)) / 255
    return code.astype(np.int8), np.rint(np.clip(value, -32_768, 32_767)).astype(np.int16)


_CODE, _SAMPLE = _tables()


class _Track:
    """One side: pieces of sound, each with the time or position at which it begins."""

    def __init__(self) -> None:
        self._small: list[tuple[float, bytes]] = []
        self._fresh: list[bytes] = []
        self._fresh_at = 0.0
        self._fresh_bytes = 0

    def add(self, at: float, pcm: bytes, *, joins: bool) -> None:
        """``joins``: it follows the piece before it without a gap."""
        if self._fresh and (not joins or self._fresh_bytes >= _PIECE_BYTES):
            self._small.append((self._fresh_at, _small(b"".join(self._fresh))))
            self._fresh, self._fresh_bytes = [], 0
        if not self._fresh:
            self._fresh_at = at
        self._fresh.append(pcm)
        self._fresh_bytes += len(pcm)

    def cut(self, pcm_bytes: int) -> None:
        """The last of it is taken back, as far as it has not been made small."""
        whole = b"".join(self._fresh)
        self._fresh = [whole[: max(0, len(whole) - pcm_bytes)]]
        self._fresh_bytes = len(self._fresh[0])

    def pieces(self) -> list[tuple[float, Samples]]:
        """All of it, as it is now; it may be added to meanwhile by another thread."""
        small = [*self._small, (self._fresh_at, _small(b"".join(self._fresh)))]
        return [(at, _SAMPLE[np.frombuffer(codes, np.uint8)]) for at, codes in small]


def _small(pcm: bytes) -> bytes:
    # take() looks the codes up in two thirds of the time that _CODE[...] needs.
    codes: bytes = _CODE.take(np.frombuffer(pcm, "<u2")[::3]).tobytes()
    return codes


class CallTape:
    """The sound of one call. Times are the client's clock."""

    def __init__(self) -> None:
        self._heard = _Track()
        self._heard_to = -1
        self._said = _Track()
        self._said_to = 0.0
        #: how late each piece of theirs came, behind the time that its position has
        self._delays = array("d")

    def heard(self, position: int, pcm: bytes, now: float) -> None:
        """They said ``pcm`` from ``position`` on; it came at ``now``."""
        if position > MOST:
            return
        self._heard.add(position, pcm, joins=position == self._heard_to)
        self._heard_to = position + -(-len(pcm) // _POSITION_BYTES)
        self._delays.append(now - self._heard_to / WIRE_RATE)

    def said(self, begins: float, pcm: bytes, *, continues: bool = False) -> None:
        """The carrier plays ``pcm`` from ``begins`` on. ``continues``: it is the rest of an
        utterance. Where its acknowledgement came a little late, that was heard without a hole."""
        if continues and 0.0 < begins - self._said_to < LATE:
            begins = self._said_to
        if self._delays and (begins - self._delays[0]) * WIRE_RATE > MOST:
            return
        self._said.add(begins, pcm, joins=abs(begins - self._said_to) < 1e-6)
        self._said_to = begins + len(pcm) / 2 / LINE_RATE

    def cut(self, now: float) -> None:
        """The carrier dropped what it had not played yet."""
        positions = round((self._said_to - now) * WIRE_RATE)
        if positions > 0:
            self._said.cut(positions * _POSITION_BYTES)
            self._said_to = now

    @property
    def jitter_ms(self) -> float | None:
        """Nineteen of twenty messages of theirs came this close to the usual delay. None: no
        message came."""
        if not self._delays:
            return None
        delays = np.array(self._delays)
        return float(1000 * np.percentile(np.abs(delays - np.median(delays)), 95))

    def sides(self) -> tuple[Samples, Samples]:
        """(ours, theirs) as PCM16 at 8 kHz, on one clock, the far end's."""
        began = min(self._delays, default=0.0)
        theirs = _laid_out([(round(at), sound) for at, sound in self._heard.pieces()])
        ours = _laid_out(
            [(round((at - began) * WIRE_RATE), sound) for at, sound in self._said.pieces()]
        )
        return ours, theirs


def _laid_out(pieces: list[tuple[int, Samples]]) -> Samples:
    """The pieces at their positions, with silence between them."""
    longest = max((at + len(sound) for at, sound in pieces), default=0)
    track = np.zeros(max(0, longest), np.int16)
    for at, sound in pieces:
        begin = max(0, at)
        track[begin : at + len(sound)] = sound[begin - at :]
    return track
