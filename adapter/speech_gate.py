"""Speech out of a line that is never quiet: what to hand out, and when a turn is over. No I/O.

A phone line carries sound for as long as the call lives, so "no sound for a while" never tells the
end of a turn. The gate looks at each 10 ms of PCM16 at 24 kHz, in twelve bands from 200 to
3800 Hz. Each band has a noise floor of its own: its smallest recent level; or, where all bands have
been steady for 0.4 s (noise that comes up after the words), what it has been. So hum, hiss and
comfort noise raise the floor of their bands and nothing else. A frame is *loud* when its strongest
bands stand clearly above their floors.

Rules:

- Closed, the gate opens when :data:`OPEN_FRAMES` of the last :data:`OPEN_WITHIN` frames are loud
  (a click is shorter). Speech then begins :data:`PRE_ROLL` seconds before the first of them.
- Open, it stays so until that was not so for :data:`HANGOVER` seconds; that much is handed out
  after the last loud sound.
- Inside an answer nothing is left out: when the gate opens again, the pause that was held back is
  handed out first. :meth:`SpeechGate.end_answer` says that the answer is over: what is held back
  then is only looked at for the pre-roll of the next one.
- ``silence`` tells how much held-back sound there is, in seconds of sound, not of clock.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

RATE = 24_000
#: Seconds handed out before the first loud frame.
PRE_ROLL = 0.3
#: Seconds handed out after the last loud frame.
HANGOVER = 0.4
#: Loud frames, of the last so many, that open the gate.
OPEN_FRAMES = 5
OPEN_WITHIN = 8

_HOP = 240  # 10 ms
_WINDOW = 480  # 20 ms
_BANDS = 12
_LOW_HZ = 200.0
_HIGH_HZ = 3800.0
_STRONGEST = 4
#: How far above its floor the mean of the strongest bands must stand, in dB.
_OPEN_DB = 6.5
#: What an open gate still takes for speech.
_STAY_DB = 5.0
#: ... or, on the mean of OPEN_WITHIN frames (noise reaches 3.3 dB there): words that fade.
_FAINT_DB = 3.5
#: Nothing below this level (dB of full scale, in one band) is speech: the quantiser's own noise.
_QUIETEST_DB = -66.0
#: The floor of a band is the smallest smoothed level of the last so many blocks of so many frames.
_FLOOR_BLOCKS = 8
_FLOOR_BLOCK_FRAMES = 100
#: Steady noise: no band's level varies more than this (standard deviation, dB) over so many frames.
_STEADY_DB = 2.0
_STEADY_FRAMES = 40
_STEADY_EVERY = 2
#: A minimum over random noise lies below its mean by about this much.
_FLOOR_BIAS_DB = 2.5
_FIRST_BIAS_DB = 5.0
_FIRST_FRAMES = 25
_MEDIAN_FRAMES = 5
#: Words that stand out by no more than this end in the noise, where they are not seen ...
_CLEAR_DB = 33.0
_MUFFLED_DB = 20.0
#: ... so that the hangover lasts up to so much longer. What stood out is forgotten at this pace.
_HIDDEN_SECONDS = 0.1
_CONTRAST_FALL_DB = 0.02
#: How long after a sound's end the frames are still called loud: median, and count of frames.
_LAG_SECONDS = 0.04

_WINDOW_SHAPE = np.hanning(_WINDOW)
_SCALE = 2.0 / (_WINDOW_SHAPE.sum() * 32768.0)


def _band_matrix() -> npt.NDArray[np.float64]:
    """(bins, bands): sums the power of each band's bins."""
    frequencies = np.fft.rfftfreq(_WINDOW, 1 / RATE)
    edges = np.linspace(_LOW_HZ, _HIGH_HZ, _BANDS + 1)
    matrix = np.zeros((len(frequencies), _BANDS))
    for band in range(_BANDS):
        matrix[(frequencies >= edges[band]) & (frequencies < edges[band + 1]), band] = 1.0
    return matrix


_BAND_MATRIX = _band_matrix()


class SpeechGate:
    """The gate of one call. ``keep``: seconds of held-back sound that are kept for
    :meth:`take_silence`."""

    def __init__(self, keep: float = 30.0) -> None:
        self.keep = keep
        #: speech is going on
        self.open = False
        #: some of an answer was handed out, and it was not ended
        self.answering = False
        self._held = bytearray()
        #: sample number of the first held sample; all samples before it are gone
        self._held_from = 0
        self._received = 0
        #: samples up to here may be handed out
        self._ready_to = 0
        self._tail = np.zeros(_WINDOW - _HOP, dtype=np.float64)
        self._odd = np.zeros(0, dtype=np.float64)
        self._frames = 0
        self._last_loud = -(10**9)
        self._contrast = 0.0
        self._recent: list[bool] = [False] * OPEN_WITHIN
        self._scores: list[float] = [0.0] * OPEN_WITHIN
        self._past = np.zeros((_STEADY_FRAMES, _BANDS))
        self._levels_seen: list[npt.NDArray[np.float64]] = []
        self._block_min = np.full(_BANDS, np.inf)
        self._block_count = 0
        self._minima: list[npt.NDArray[np.float64]] = []

    # ------------------------------------------------------------------ sound in

    def push(self, pcm: bytes) -> None:
        """Look at more sound: PCM16 mono 24 kHz, whole samples."""
        self._held += pcm
        samples = np.frombuffer(pcm, dtype="<i2").astype(np.float64)
        self._received += len(samples)
        fresh = np.concatenate([self._odd, samples])
        count = len(fresh) // _HOP
        self._odd = fresh[count * _HOP :]
        if count:
            for level in self._levels(fresh[: count * _HOP], count):
                self._frame(level)
        self._trim()

    def _levels(self, fresh: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
        """(frames, bands) in dB of full scale, one row for each hop of ``fresh``."""
        signal = np.concatenate([self._tail, fresh])
        self._tail = signal[len(signal) - (_WINDOW - _HOP) :]
        windows = np.lib.stride_tricks.sliding_window_view(signal, _WINDOW)[::_HOP][:count]
        spectrum = np.abs(np.fft.rfft(windows * _WINDOW_SHAPE, axis=1) * _SCALE) ** 2
        levels: npt.NDArray[np.float64] = 10 * np.log10(spectrum @ _BAND_MATRIX + 1e-12)
        return levels

    def _frame(self, level: npt.NDArray[np.float64]) -> None:
        # A median over time: a click, loud in a frame or two, does not pass it.
        self._levels_seen = [*self._levels_seen, level][-_MEDIAN_FRAMES:]
        smooth: npt.NDArray[np.float64] = np.maximum(
            np.median(self._levels_seen, axis=0), _QUIETEST_DB
        )
        self._past[self._frames % _STEADY_FRAMES] = smooth
        above = smooth - self._floor(smooth)
        strongest = np.partition(above, _BANDS - _STRONGEST)[_BANDS - _STRONGEST :]
        score = float(np.maximum(strongest, 0.0).mean())
        loud = score > (_STAY_DB if self.open else _OPEN_DB)
        self._scores = [*self._scores[1:], min(score, _OPEN_DB)]
        if self._frames >= _MEDIAN_FRAMES:  # the first window is half empty
            self._track_floor(smooth)
        self._frames += 1
        self._contrast = max(score, self._contrast - _CONTRAST_FALL_DB)
        self._recent = [*self._recent[1:], loud]
        if sum(self._recent) >= OPEN_FRAMES:
            if not self.open:
                self._opens()
            self._last_loud = self._frames
        elif self.open and sum(self._scores) > _FAINT_DB * OPEN_WITHIN:
            self._last_loud = self._frames
        if self._frames % _STEADY_EVERY == 0:
            self._look_for_steady_noise()
        if self.open:
            self._stays_open()

    def _look_for_steady_noise(self) -> None:
        """Sound that has not changed in any band for a while is the line's, however loud: the floor
        is there at once, and what was taken for speech since it began was none."""
        if self._frames < _STEADY_FRAMES or self._past.std(axis=0).max() > _STEADY_DB:
            return
        self._minima = [self._past.min(axis=0)]
        self._block_min = np.full(_BANDS, np.inf)
        self._block_count = 0
        self._last_loud = min(self._last_loud, self._frames - _STEADY_FRAMES)
        self._recent = [False] * OPEN_WITHIN

    def _floor(self, level: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Each band's noise floor. Before anything was heard it is what is heard first."""
        known = [*self._minima, self._block_min] if self._block_count else self._minima
        if not known:
            return level + _FLOOR_BIAS_DB
        # The minimum of few frames lies near their mean: at first the bias is larger.
        bias = _FLOOR_BIAS_DB + _FIRST_BIAS_DB * np.exp(-self._frames / _FIRST_FRAMES)
        lowest: npt.NDArray[np.float64] = np.min(known, axis=0) + bias
        return lowest

    def _track_floor(self, level: npt.NDArray[np.float64]) -> None:
        self._block_min = np.minimum(self._block_min, level)
        self._block_count += 1
        if self._block_count == _FLOOR_BLOCK_FRAMES:
            self._minima = [*self._minima, self._block_min][-_FLOOR_BLOCKS:]
            self._block_min = np.full(_BANDS, np.inf)
            self._block_count = 0

    def _opens(self) -> None:
        self.open = True
        first = self._frames - OPEN_WITHIN + self._recent.index(True)
        if not self.answering:
            begin = max(self._held_from, first * _HOP - int(PRE_ROLL * RATE))
            self._drop_before(begin)

    def _stays_open(self) -> None:
        hidden = (_CLEAR_DB - self._contrast) / (_CLEAR_DB - _MUFFLED_DB)
        seconds = HANGOVER - _LAG_SECONDS + _HIDDEN_SECONDS * min(1.0, max(0.0, hidden))
        limit = self._last_loud * _HOP + int(seconds * RATE)
        self._ready_to = max(self._ready_to, min(self._received, limit))
        if self._frames * _HOP >= limit:
            self.open = False

    # ------------------------------------------------------------------ sound out

    def take(self) -> bytes:
        """Speech that may be handed out, with pauses whole; b"" while there is none."""
        count = 2 * max(0, min(self._ready_to, self._received) - self._held_from)
        if not count:
            return b""
        pcm = bytes(self._held[:count])
        self._drop_before(self._held_from + count // 2)
        self.answering = True
        return pcm

    @property
    def silence(self) -> float:
        """Seconds of sound that are held back, ready speech not counted."""
        return (self._received - max(self._ready_to, self._held_from)) / RATE

    @property
    def undecided(self) -> bool:
        """The last frames are loud, too few yet to open the gate: the next 100 ms decide."""
        return not self.open and any(self._recent[-OPEN_FRAMES:])

    @property
    def heard_seconds(self) -> float:
        """Seconds of sound looked at so far."""
        return self._received / RATE

    def end_answer(self) -> None:
        """The answer is over (or never began): what is held back is silence between turns."""
        self.answering = False

    def take_silence(self, seconds: float) -> bytes:
        """The last ``seconds`` of held-back sound (all of it where there is less)."""
        wanted = math.ceil(min(seconds, self._received / RATE) * RATE)
        begin = max(self._held_from, self._received - wanted)
        self._drop_before(begin)
        pcm = bytes(self._held)
        self._drop_before(self._received)
        self._ready_to = self._received
        return pcm

    def flush(self) -> bytes:
        """The call is over: what is speech, or may have been about to be; b"" for silence."""
        pcm = self.take()
        if self.open:
            pcm += self.take_silence(float("inf"))
        elif any(self._recent):
            keep = PRE_ROLL if not self.answering else float("inf")
            pcm += self.take_silence(min(keep + OPEN_WITHIN * 0.01, self.silence))
        self._drop_before(self._received)
        return pcm

    def _drop_before(self, sample: int) -> None:
        count = sample - self._held_from
        if count > 0:
            del self._held[: 2 * count]
            self._held_from = sample

    def _trim(self) -> None:
        """Bound what is held back; inside an answer its pause is kept whole up to ``keep``."""
        most = int((self.keep + PRE_ROLL + 0.1) * RATE)
        if self.silence * RATE > most:
            self._drop_before(self._received - most)
