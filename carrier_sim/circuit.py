"""The media plane: two ends bridged in 20 ms frames, all circuits on one grid of ticks.

No I/O and no clock. While there are circuits, ``Switchboard.tick(now)`` is called every 5 ms of
nominal time and serves a quarter of them; ``now`` is the nominal time. The near end is a Leg, the
far end a Leg or a Bot. A circuit whose call has not been answered carries no sound, but lets its
legs count their pauses.
"""

from __future__ import annotations

from typing import Final

from . import tones
from .far_ends import MAX_KEPT, Bot
from .leg import Leg
from .mulaw import FRAME_SECONDS, SILENCE

PHASES: Final = 4
TICK_SECONDS: Final = FRAME_SECONDS / PHASES


class Circuit:
    """A leg and its far end: a bot, or another leg of the carrier."""

    def __init__(self, near: Leg, far: Bot | Leg, *, keep: bool = True) -> None:
        self.near = near
        self.far = far
        self.connected_at: float | None = None
        self.frames = 0
        self.phase = 0
        #: What the far end has heard of the near one, and said to it, since ``connected_at``.
        self.played = far.heard if isinstance(far, Bot) else bytearray()
        self.said = far.said if isinstance(far, Bot) else bytearray()
        self._keep = keep and isinstance(far, Leg)
        self._near_tracker = tones.DigitTracker()
        self._far_tracker = tones.DigitTracker()

    def connect(self, now: float) -> None:
        """The call was answered: sound flows from the circuit's next tick on."""
        if self.connected_at is None:
            self.connected_at = now

    def tick(self, now: float, heard: list[tuple[tones.DigitTracker, bytes, Bot | Leg]]) -> None:
        """Exchange 20 ms. Sound of streams is added to ``heard``, for the detector of keys."""
        near, far = self.near, self.far
        if self.connected_at is None:
            near.emit(now)
            if isinstance(far, Leg):
                far.emit(now)
            return
        if self.frames == 0:
            self.connected_at = now
        self.frames += 1
        forward = near.emit(now)
        if isinstance(far, Bot):
            backward = far.emit()
            near.hear_who(far.words)
            far.receive(forward)
            pressed_far = far.take_pressed()
        else:
            backward = far.emit(now)
            near.hear_who(backward)
            far.hear_who(forward)
            far.receive(forward, now)
            pressed_far = far.take_pressed()
            if self._keep and len(self.played) < MAX_KEPT:
                self.played += forward
                self.said += backward
            if backward is not SILENCE and far.doing == "stream":
                heard.append((self._far_tracker, backward, near))
        near.receive(backward, now)
        for digit in pressed_far:
            near.key(digit, now)
        for digit in near.take_pressed():
            self._hear(far, digit, now)
        if forward is not SILENCE and near.doing == "stream":
            heard.append((self._near_tracker, forward, far))

    @staticmethod
    def _hear(end: Bot | Leg, digit: str, now: float, *, in_sound: bool = False) -> None:
        if isinstance(end, Bot):
            end.hear_digit(digit, in_sound=in_sound)
        else:
            end.key(digit, now)


class Switchboard:
    """All circuits."""

    def __init__(self) -> None:
        self._phases: list[dict[Circuit, None]] = [{} for _ in range(PHASES)]
        self._tick = 0

    @property
    def busy(self) -> bool:
        """There is a circuit."""
        return any(self._phases)

    def add(self, circuit: Circuit) -> None:
        """Put a circuit on the phase with the fewest."""
        circuit.phase = min(range(PHASES), key=lambda p: len(self._phases[p]))
        self._phases[circuit.phase][circuit] = None

    def remove(self, circuit: Circuit) -> None:
        """Take a circuit off. One that is not on it changes nothing."""
        self._phases[circuit.phase].pop(circuit, None)

    def tick(self, now: float) -> list[Circuit]:
        """One tick of the grid. Returns the circuits that were served."""
        phase = self._phases[self._tick % PHASES]
        self._tick += 1
        if not phase:
            return []
        served = list(phase)
        heard: list[tuple[tones.DigitTracker, bytes, Bot | Leg]] = []
        for circuit in served:
            circuit.tick(now, heard)
        for index, digit in tones.detect([(t, f) for t, f, _ in heard]):
            Circuit._hear(heard[index][2], digit, now, in_sound=True)
        return served
