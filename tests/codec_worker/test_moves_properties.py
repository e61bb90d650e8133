"""Whatever happens to workers and streams, no sound is lost in silence and none comes twice."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from trunkline.bus import messages as m
from trunkline.bus.sound import MOST_GATHERED
from trunkline.codec_worker import mulaw

from .peers import CALL, Bench

LENGTH = 8000 * 100  # positions: more than all steps of an example can say or hear
SMOOTH = 8000 * np.sin(np.arange(LENGTH) * 0.02) * np.sin(np.arange(LENGTH) * 0.00037)
CODES = mulaw.encode(np.rint(SMOOTH).astype(np.int16)).tobytes()


def pcm(position: int, length: int) -> bytes:
    """24 kHz sound whose value at each position is SMOOTH there."""
    at = np.arange(position, position + length + 1)
    time = np.arange(position * 3, (position + length) * 3) / 3
    return bytes(np.rint(np.interp(time, at, SMOOTH[at])).astype("<i2").tobytes())


class MovingCall(RuleBasedStateMachine):
    """Two workers, one call; every step may break something."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(workers=2)
        self.bench.open()
        self.frame = 0  # the carrier's next inbound frame in this stream
        self.seams = 1

    @property
    def position(self) -> int:
        return len(self.bench.adapter.said) // 6

    @rule(frames=st.integers(1, 30), odd=st.integers(0, 159))
    def speak(self, frames: int, odd: int) -> None:
        if self.position < LENGTH - 10_000:
            self.bench.speak(pcm(self.position, frames * 160 + odd))

    @rule(ticks=st.integers(1, 12))
    def listen(self, ticks: int) -> None:
        for _ in range(ticks):
            position = self.frame * 160
            self.bench.hear(position, CODES[position : position + 160])
            self.frame += 1
            self.bench.tick()

    @rule(lost=st.integers(1, 5))
    def frames_get_lost(self, lost: int) -> None:
        self.frame += lost
        self.seams += 1

    @rule(samples=st.integers(0, MOST_GATHERED))
    def gather(self, samples: int) -> None:
        """The client takes other pieces of sound than before."""
        self.bench.from_adapter(self.bench.adapter.gather(samples))
        self.bench.run()

    @rule(ms=st.integers(0, 19))
    def interrupt(self, ms: int) -> None:
        self.bench.from_adapter(self.bench.adapter.interrupt())
        self.bench.run()
        self.seams += 1

    @precondition(lambda self: not self.bench.stopped)
    @rule()
    def kill(self) -> None:
        self.bench.replace(self.bench.active)
        self.bench.move(1 - self.bench.active)
        self.seams += 2

    @precondition(lambda self: not self.bench.stopped)
    @rule(silent_ticks=st.integers(0, 25))
    def stop(self, silent_ticks: int) -> None:
        """The active worker stands still; the gateway notices later."""
        former = self.bench.active
        self.bench.stopped[former] = []
        self.listen(silent_ticks)
        self.bench.move(1 - former)
        self.seams += 2

    @precondition(lambda self: bool(self.bench.stopped))
    @rule()
    def wake(self) -> None:
        self.bench.wake(next(iter(self.bench.stopped)))

    @precondition(lambda self: not self.bench.stopped)
    @rule()
    def move_on_purpose(self) -> None:
        self.bench.move(1 - self.bench.active)
        self.bench.run()
        self.seams += 2

    @precondition(lambda self: self.bench.active not in self.bench.stopped)
    @rule(gap=st.integers(0, 30), said=st.booleans())
    def redirect(self, gap: int, said: bool) -> None:
        """The stream ends or breaks; a later one comes on the same worker."""
        self.bench.new_stream("close" if said else None)
        if not said:
            self.bench.worker.disconnected(b"gateway", self.bench.now)
        self.frame = 0
        self.bench.tick(gap)
        self.bench.open()
        self.seams += 2

    def teardown(self) -> None:
        bench = self.bench
        while bench.stopped:
            self.wake()
        for _ in range(2 * (self.position // 160) + 200):
            self.listen(1)
            sent = max(bench.adapter.acknowledged, bench.adapter.floor)
            if sent >= self.position:
                break
        else:
            raise AssertionError(f"{sent} of {self.position} were sent")
        generation = bench.gateway.generation
        bench.from_gateway(m.StreamEnded(CALL, generation, generation >> 16, "stop"))
        bench.run()

        # Outbound: positions in order, none twice; what was written is what was said there.
        positions = [p for _, p in bench.gateway.frames]
        assert positions == sorted(set(positions))
        written = mulaw.decode(np.frombuffer(bytes(bench.gateway.written), np.uint8)).astype(float)
        said = SMOOTH[: len(written)]
        there = np.frombuffer(bytes(bench.gateway.written), np.uint8) != 0
        wrong = np.abs(written - said)[there] > 300
        assert np.count_nonzero(wrong) <= 40 * self.seams

        # Inbound: FakeAdapter has checked that sound and losses add up; the last is all there.
        assert bench.adapter.heard_at == (generation >> 16, self.frame * 160)
        heard = np.frombuffer(bytes(bench.adapter.heard), "<i2")
        assert len(heard) % 3 == 0


MovingCall.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestMovingCall = MovingCall.TestCase
