"""Holds the speech of one call until it was written to the carrier's socket. Until then it may have
to be sent, or sent once more. No I/O.

Positions are those of playout.py: samples at 8 kHz over the whole call.
"""

from __future__ import annotations

from collections import deque


class _Segment:
    """Sound in one piece, as it came. Two segments have a gap between them only where sound was
    lost."""

    __slots__ = ("data", "end", "first", "position")

    def __init__(self, position: int, data: bytes) -> None:
        self.position = position
        self.data = data
        self.end = position + len(data)
        #: samples of this segment before this position were written, and no longer count as held
        self.first = position


class HeldSpeech:
    """mu-law in order of its positions. ``samples``: how many are held."""

    # Slots: see Call in call.py.
    __slots__ = ("_segments", "samples")

    def __init__(self) -> None:
        self.samples = 0
        self._segments: deque[_Segment] = deque()

    def append(self, position: int, data: bytes) -> None:
        """Hold ``data``, which begins at ``position``, behind all that is held."""
        self._segments.append(_Segment(position, data))
        self.samples += len(data)

    def sound(self, position: int, until: int) -> bytes:
        """The sound from ``position`` up to ``until``, or up to where some was lost."""
        sound = b""
        for segment in self._segments:
            if segment.end <= position:
                continue
            begins = segment.position
            if begins > position:
                break
            sound += segment.data[position - begins : until - begins]
            if segment.end >= until:
                break
            position = segment.end
        return sound

    def begins_behind(self, position: int, until: int) -> int:
        """Where sound was lost at ``position``: the next position that is held, but no later than
        ``until``."""
        behind = (each.position for each in self._segments if each.position > position)
        return min(until, next(behind, until))

    def forget(self, position: int) -> None:
        """Hold nothing that lies before ``position`` any more."""
        segments = self._segments
        while segments:
            segment = segments[0]
            if segment.end > position:
                if segment.first < position:
                    self.samples -= position - segment.first
                    segment.first = position
                return
            self.samples -= segment.end - segment.first
            segments.popleft()

    def clear(self) -> None:
        """Hold nothing."""
        self._segments.clear()
        self.samples = 0
