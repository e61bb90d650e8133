"""The other end of a playout in tests: a carrier's buffer that plays what it gets, on a fake clock,
and a pump that stands for resampler and timer."""

from __future__ import annotations

import pickle

from trunkline.codec_worker.playout import (
    FRAME_NS,
    SAMPLE_NS,
    FlushTail,
    Frame,
    Instruction,
    Playout,
)

MS = 1_000_000


class Carrier:
    """Plays frames back to back. ``gaps`` holds (position, ns of silence before it)."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.starts: dict[int, int] = {}  # position -> when it is played
        self.gaps: list[tuple[int, int]] = []
        self.ends = 0  # when the buffer is dry
        self.deepest = 0

    def take(self, instructions: list[Instruction], now: int) -> None:
        for instruction in instructions:
            if isinstance(instruction, Frame):
                self._play(instruction, now)

    def _play(self, frame: Frame, now: int) -> None:
        if now > self.ends:
            self.gaps.append((frame.position, now - self.ends))
            self.ends = now
        self.starts[frame.position] = self.ends
        self.ends += len(frame.payload) * SAMPLE_NS
        self.deepest = max(self.deepest, self.ends - now)
        self.frames.append(frame)

    def clear(self, now: int) -> None:
        self.ends = min(self.ends, now)

    @property
    def sound(self) -> bytes:
        return b"".join(frame.payload for frame in self.frames)


class Pump:
    """A source whose last ``held`` samples stay in the resampler until it is flushed, and a gateway
    that acknowledges before the next tick what it wrote. ``together``: frames of one message."""

    def __init__(
        self, playout: Playout, carrier: Carrier, held: int = 16, together: int = 1
    ) -> None:
        self.playout = playout
        self.carrier = carrier
        self.held = held
        self.together = together
        self.rest = b""
        self.flushes: list[int] = []  # positions at which the tail was flushed
        self.written = (0, 0)  # position, when

    def speak(self, sound: bytes) -> None:
        sound = self.rest + sound
        cut = max(0, len(sound) - self.held)
        self.rest = sound[cut:]
        self.playout.speak(self.playout.end, sound[:cut], tail=len(self.rest))

    def tick(self, now: int, until: int | None = None) -> list[Instruction]:
        position, at = self.written
        if position <= self.playout.position and not self.playout.frozen:
            self.playout.acknowledge(position, at)
        if until is not None:
            self.check_the_short_way(now, until)
        done = self.playout.due(now, until, self.together)
        while done and isinstance(done[-1], FlushTail):
            self.flushes.append(self.playout.end)
            self.playout.flushed(self.rest)
            self.rest = b""
            done = done[:-1] + self.playout.due(now, until, self.together)
        self.carrier.take(done, now)
        if self.carrier.frames:
            last = self.carrier.frames[-1]
            self.written = (last.position + len(last.payload), now)
        return done

    def check_the_short_way(self, now: int, until: int) -> None:
        """Where it knows the answer, it is the long way's, and it leaves the same behind."""
        copy = pickle.dumps(self.playout)  # in a tenth of the time of copy.deepcopy
        short, long = pickle.loads(copy), pickle.loads(copy)  # noqa: S301  # it is our own
        payload = short.one_message(now, until, self.together)
        if payload is not None:
            sent = [Frame(short.position - len(payload), payload)] if payload else []
            assert sent == long.due(now, until, self.together)
            assert _state(short) == _state(long)


def _state(playout: Playout) -> dict[str, object]:
    state = {name: getattr(playout, name) for name in Playout.__slots__ if name != "_held"}
    return state | {"held": playout._held.samples}


_PERIOD = bytes(range(251))


def sound(length: int, start: int = 0) -> bytes:
    """Bytes that tell their position (modulo 251)."""
    begin = start % 251
    return (_PERIOD * (length // 251 + 2))[begin : begin + length]


__all__ = ["FRAME_NS", "MS", "Carrier", "Pump", "sound"]
