"""The sound of one call, both sides on the call's clock, for whoever asks for a report. No I/O of
its own: tape_store.py keeps a file for it.

- A position of theirs is a sample at 8 kHz, counted from the first sample that the far end said, as
  the line's own positions are. Our sound has outbound positions of its own. It gets its place on
  the line by the time when the carrier plays it. The acknowledgements show that time, and the far
  end's sound shows which position comes at which time.
- Messages wait, now longer, now shorter. The far end's sound that waited least shows when its first
  sample came; how much longer the other sound waited is the jitter.
- A call is kept small, because nobody asks about most calls: one byte a sample of mu-law at 8 kHz
  (a telephone's band has nothing above 4 kHz), an hour at most, of which the last seconds are in
  memory (tape_store.py). The worker sends their sound in this form. Our sound is
  converted to it when it is sent, because it is in the processor's caches at that moment.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

import numpy as np
import numpy.typing as npt

from trunkline.bus.sound import LINEAR, POSITION_BYTES, WIRE_RATE

from .tape_store import Side

Samples = npt.NDArray[np.int16]

#: At most this much of a call is kept, in positions: an hour.
MOST: Final = 3_600 * WIRE_RATE
#: Sound is joined in pieces of a second at most (positions).
_PIECE: Final = WIRE_RATE
#: An acknowledgement that is later than this (seconds) has not just waited in a queue.
LATE: Final = 0.5
#: Delays are counted in steps of this many positions (1 ms), so that a long call has few different
#: delays.
_GRAIN: Final = 8
#: Times that are as close as this (seconds) are the same.
_SAME_TIME: Final = 1e-6


def _tables() -> tuple[npt.NDArray[np.uint8], Samples]:
    """The mu-law code that is nearest to each sample (by its bits), and the sample of each code."""
    value = np.array(LINEAR, dtype=np.int32)
    order = np.argsort(value, kind="stable")
    between = (value[order][1:] + value[order][:-1]) / 2
    sample = np.arange(65_536, dtype=np.uint16).view(np.int16)
    return order[np.searchsorted(between, sample)].astype(np.uint8), value.astype(np.int16)


_CODE, _SAMPLE = _tables()


class _Playing:
    """Our positions from ``first`` to ``stop``, which the carrier plays from ``begins`` on."""

    __slots__ = ("begins", "first", "stop")

    def __init__(self, begins: float, first: int, stop: int) -> None:
        self.begins = begins
        self.first = first
        self.stop = stop


class CallTape:
    """The sound of one call. Times are the client's clock.

    The tape gets every frame, and its state has left the processor's caches each time. So at first
    it only notes a frame, in one list. Another thread may ask for the sound meanwhile.
    """

    def __init__(self) -> None:
        #: their sound, as far as it was joined
        self._heard = Side()
        #: their sound behind that: its first position; then codes and when they came, in turn
        self._fresh: tuple[int, list[bytes | float]] = (0, [])
        self._heard_to = 0
        #: grains of delay -> how many of their messages came so late behind the time that their
        #: position has, as far as they are joined; and the least delay, in positions
        self._delays: Counter[int] = Counter()
        self._least = float("inf")
        #: our sound that was sent to a worker, by its positions; and the newest of it
        self._spoken = Side()
        self._speaking: tuple[int, bytearray] = (0, bytearray())
        self._spoken_to = -1
        #: positions at which utterances begin that the carrier has not begun to play
        self._utterances: deque[int] = deque()
        #: when the carrier plays our sound
        self._said: list[_Playing] = []
        self._said_to = 0.0
        self._keys: list[tuple[float, str, bool]] = []

    def key(self, at: float, digit: str, *, ours: bool) -> None:
        """A key that no sound brings was pressed at this second of the call."""
        self._keys.append((at, digit, ours))

    def pressed(self) -> list[tuple[float, str, bool]]:
        """(second, digit, is ours) of each key that no sound has brought."""
        return list(self._keys)

    def heard(self, position: int, codes: bytes, now: float) -> None:
        """They said ``codes`` from ``position`` on; they came at ``now``."""
        began, fresh = self._fresh
        if position != self._heard_to or position - began >= _PIECE:
            if position > MOST:
                return
            if fresh:
                joined, delays = _joined(began, fresh)
                self._heard.add(began, joined)
                self._delays.update(delay // _GRAIN for delay in delays)
                self._least = min(self._least, *delays)
            fresh = []
            self._fresh = (position, fresh)
        fresh += codes, now
        self._heard_to = position + len(codes)

    def spoken(self, position: int, pcm: bytes, *, begins: bool) -> None:
        """``pcm`` (PCM16 24 kHz), which has our positions from ``position`` on, goes to a worker.
        It may have gone to another one before. ``begins``: an utterance begins with it."""
        again = self._spoken_to - position
        if again >= len(pcm) // POSITION_BYTES or position > MOST:
            return
        began, codes = self._speaking
        if again < 0 or len(codes) >= _PIECE:
            if codes:
                self._spoken.add(began, bytes(codes))
            codes = bytearray()
            self._speaking = (position + max(0, again), codes)
        if begins and again <= 0:
            self._utterances.append(position)
        samples = np.frombuffer(pcm, "<u2")[3 * max(0, again) :: 3]
        # take() looks the codes up in two thirds of the time that _CODE[...] needs.
        codes += _CODE.take(samples).data
        self._spoken_to = max(self._spoken_to, position) + len(samples)

    def said(self, begins: float, first: int, stop: int) -> None:
        """The carrier plays our positions from ``first`` to ``stop``, beginning at ``begins``.
        Where the acknowledgement of an utterance's rest came a little late, that was heard without
        a hole."""
        utterances = self._utterances
        while first < stop:
            goes_on = True
            while utterances and utterances[0] <= first:
                goes_on = utterances.popleft() < first
            end = min(stop, utterances[0]) if utterances else stop
            late = begins - self._said_to
            if goes_on and 0.0 < late < LATE:
                begins, late = self._said_to, 0.0
            last = self._said[-1] if self._said else None
            if last is not None and last.stop == first and abs(late) < _SAME_TIME:
                last.stop = end
            elif self._said and (begins - self._said[0].begins) * WIRE_RATE > MOST:
                return
            else:
                self._said.append(_Playing(begins, first, end))
            begins += (end - first) / WIRE_RATE
            self._said_to = begins
            first = end

    def cut(self, now: float) -> None:
        """The carrier dropped what it had not played yet."""
        while self._said and self._said_to > now:
            last = self._said[-1]
            played = round((now - last.begins) * WIRE_RATE)
            if played > 0:
                last.stop = min(last.stop, last.first + played)
                self._said_to = now
            else:
                self._said.pop()
                self._said_to = last.begins

    @property
    def jitter_ms(self) -> float | None:
        """Nineteen of twenty messages of theirs came this close to the usual delay. None: no
        message came."""
        counted = self._delays.copy()
        counted.update(delay // _GRAIN for delay in _joined(*self._fresh)[1])
        if not counted:
            return None
        delays = np.repeat(np.array([*counted]), [*counted.values()])
        late = np.percentile(np.abs(delays - np.median(delays)), 95)
        return float(1000 * _GRAIN * late / WIRE_RATE)

    def sides(self) -> tuple[Samples, Samples]:
        """(ours, theirs) as PCM16 at 8 kHz, on one clock, the far end's."""
        # The client's thread goes on adding. The newest sound is read before the older: if it is
        # joined to that meanwhile, it is read twice, and nothing is missed. Lists are copied.
        began_at, fresh = self._fresh
        joined, late = _joined(began_at, fresh)
        heard = [(began_at, joined), *self._heard.pieces()]
        said = [(each.begins, each.first, each.stop) for each in list(self._said)]
        speaking, newest = self._speaking
        spoken = [(speaking, bytes(newest)), *self._spoken.pieces()]
        least = min((self._least, *late))
        began = least / WIRE_RATE if least < float("inf") else 0.0
        ours = []
        for begins, first, stop in said:
            at = round((begins - began) * WIRE_RATE)
            for position, codes in spoken:
                skipped = max(0, first - position)
                part = codes[skipped : max(0, stop - position)]
                if part:
                    ours.append((at + position + skipped - first, part))
        return _laid_out(ours), _laid_out(heard)


def _joined(position: int, fresh: list[bytes | float]) -> tuple[bytes, list[int]]:
    """The codes of ``fresh``, which begin at ``position``, and how late each of them came, in
    positions."""
    parts, delays = [], []
    both = iter(list(fresh))
    for codes, now in zip(both, both, strict=True):
        assert isinstance(codes, bytes) and isinstance(now, float)
        parts.append(codes)
        position += len(codes)
        delays.append(round(now * WIRE_RATE) - position)
    return b"".join(parts), delays


def _laid_out(pieces: list[tuple[int, bytes]]) -> Samples:
    """The pieces at their positions, with silence between them."""
    longest = max((at + len(codes) for at, codes in pieces), default=0)
    track = np.zeros(max(0, longest), np.int16)
    for at, codes in pieces:
        begin = max(0, at)
        track[begin : at + len(codes)] = _SAMPLE[np.frombuffer(codes, np.uint8)[begin - at :]]
    return track
