"""The line of one call, in frames of 20 ms each way. No I/O, and no clock but its frames.

``up`` takes the far end's words to the carrier, and ``down`` the carrier's sound to the far end.
The words go through these, in this order:

1. gain; 2. the echo of the sound that the far end hears; 3. noise; 4. clipping; 5. codecs;
6. loss, with concealment; 7. the delay.

The way down has 6 and 7 alone. Everything follows from the profile and the seed.

Loss is spread by seed over blocks of 1,000 frames (20 s), in bursts, and each block has just as
many lost frames as the profile says. In the place of a lost frame the last one is heard again,
quieter each time, and nothing from 60 ms on (as in ITU-T G.711, appendix I).
"""

from __future__ import annotations

import random
from collections import deque
from typing import Final

import numpy as np

from ..mulaw import DECODE, FRAME_BYTES, RATE, SILENCE, decode, encode
from . import codec, noise
from .profiles import Profile

#: Frames in which the share of lost ones is exact.
BLOCK: Final = 1000
#: Gain of the first, second and third concealed frame in a row.
_FADES: Final = (1.0, 0.7, 0.4)
#: Different loops of one kind of noise.
_LOOPS: Final = 8


class Delay:
    """Bytes of μ-law that come out ``samples`` later than they went in."""

    def __init__(self, samples: int) -> None:
        self._held = bytearray(b"\xff" * samples)

    def through(self, frame: bytes) -> bytes:
        """The next frame in, and the frame that is heard now."""
        if not self._held:
            return frame
        self._held += frame
        out = bytes(self._held[:FRAME_BYTES])
        del self._held[:FRAME_BYTES]
        return out


class Loss:
    """Loses frames, and conceals it."""

    def __init__(self, share: float, burst: int, seed: str) -> None:
        self._of_a_block = round(share * BLOCK)
        self._burst = burst
        self._random = random.Random(seed)
        self._doomed: deque[bool] = deque()
        self._last = SILENCE
        self._in_a_row = 0
        #: Frames that went in, and those of them that were lost.
        self.frames = 0
        self.lost = 0

    def through(self, frame: bytes) -> bytes:
        """The frame, or the sound in its place."""
        if not self._of_a_block:
            return frame
        if not self._doomed:
            self._plan()
        self.frames += 1
        if not self._doomed.popleft():
            self._last, self._in_a_row = frame, 0
            return frame
        self.lost += 1
        fade = _FADES[self._in_a_row] if self._in_a_row < len(_FADES) else 0.0
        self._in_a_row += 1
        if fade == 1.0:
            return self._last
        return encode(np.asarray(decode(self._last) * fade, dtype=np.int16)) if fade else SILENCE

    def _plan(self) -> None:
        """Which frames of the next block are lost. Between two bursts lies one frame at least."""
        whole, rest = divmod(self._of_a_block, self._burst)
        bursts = [self._burst] * whole + ([rest] if rest else [])
        self._random.shuffle(bursts)
        free = BLOCK - self._of_a_block
        at = sorted(self._random.sample(range(free), len(bursts)))
        plan: list[bool] = []
        for n, place in enumerate(at):
            plan += [False] * (place + 1 - (at[n - 1] + 1 if n else 0)) + [True] * bursts[n]
        self._doomed = deque(plan + [False] * (BLOCK - len(plan)))


class BadLine:
    """The line between the carrier and the far end of one call, with what is bad about it."""

    def __init__(self, profile: Profile, seed: str = "0", speech: float = 0.0) -> None:
        """``speech``: RMS of the far end's words (noise.speech_rms); 0.0 where that is not known,
        and then they are taken to be as loud as telephones have it."""
        draws = random.Random(seed)
        delay = round(profile.delay * RATE)
        self.up_loss = Loss(profile.loss, profile.burst, f"{seed} up")
        self.down_loss = Loss(profile.loss, profile.burst, f"{seed} down")
        self._up_delay, self._down_delay = Delay(delay), Delay(delay)
        self._words_delay = Delay(delay)
        #: The far end's words of the last frame that ``up`` gave, with nothing but the delay.
        self.words = SILENCE
        gain = 10 ** (profile.gain / 20)
        #: μ-law code -> sample of the far end's words, or of their echo, as loud as they are here.
        self._louder = DECODE * gain
        self._codecs = [codec.start(name) for name in profile.codecs]
        self._echo = None if profile.echo is None else DECODE * 10 ** (profile.echo / 20)
        # A frame that is heard can come back in the next one at the earliest.
        self._echo_delay = Delay(max(0, round(profile.echo_delay * RATE) - FRAME_BYTES))
        self._echoed = SILENCE
        self._noise: noise.Samples | None = None
        self._noise_level, self._at = 0.0, 0
        if profile.noise is not None:
            level = (speech or 32768 * 10 ** (noise.NOMINAL_SPEECH / 20)) * gain
            self._noise_level = level / 10 ** (profile.snr / 20)
            self._noise = noise.loop(profile.noise, draws.randrange(_LOOPS))
            self._at = draws.randrange(len(self._noise) // FRAME_BYTES) * FRAME_BYTES
        self._changes = bool(
            profile.gain or self._codecs or self._echo is not None or profile.noise is not None
        )

    def up(self, frame: bytes) -> bytes:
        """20 ms of the far end in, and the 20 ms that the carrier hears now."""
        self.words = self._words_delay.through(frame)
        if self._changes:
            frame = self._spoil(frame)
        return self._up_delay.through(self.up_loss.through(frame))

    def down(self, frame: bytes) -> bytes:
        """20 ms of the carrier in, and the 20 ms that the far end hears now."""
        heard = self._down_delay.through(self.down_loss.through(frame))
        if self._echo is not None:
            self._echoed = self._echo_delay.through(heard)
        return heard

    def _spoil(self, frame: bytes) -> bytes:
        words = self._louder[np.frombuffer(frame, dtype=np.uint8)]
        if self._echo is not None:
            words += self._echo[np.frombuffer(self._echoed, dtype=np.uint8)]
        if self._noise is not None:
            words += self._noise[self._at : self._at + FRAME_BYTES] * self._noise_level
            self._at = (self._at + FRAME_BYTES) % len(self._noise)
        pcm = np.rint(words, out=words).clip(-32768, 32767, out=words).astype(np.int16)
        for each in self._codecs:
            pcm = each.through(pcm)
        return encode(pcm)
