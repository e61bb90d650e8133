"""Speech out of a line that is never quiet: the gate, and when a turn is over. No I/O.

A phone line carries sound for as long as the call lives, so "no sound for a while" never tells the
end of a turn. The gate looks at each 10 ms of PCM16 at 24 kHz, in twelve bands from 200 to
3800 Hz. Each band has a noise floor of its own: its smallest recent level; or, where all bands have
been steady for 0.4 s (noise that comes up after the words), the level of that time. So hum, hiss
and comfort noise raise the floor of their bands and nothing else. A frame is *loud* when its
strongest bands stand clearly above their floors. Sound is *faint* when 90 ms of it stand out of
noise that is known to be steady, although no frame of it is loud.

Rules:

- Closed, the gate opens when :data:`OPEN_FRAMES` of the last :data:`OPEN_WITHIN` frames are loud
  (a click is shorter). Speech then begins ``pre_roll`` seconds before the first of them.
- The gate closes when there has been no such run of loud frames for ``hangover`` seconds; that much
  is handed out after the last loud sound. Faint sound right after words belongs to them.
- Sound that may be handed out is never dropped, however late it is taken.
- Inside an answer nothing is left out: when the gate opens again, the pause that was held back is
  handed out first. :meth:`SpeechGate.end_answer` says that the answer is over: from then on
  the sound that is held back serves only as the pre-roll of the next one.
- Sound is looked at in pieces as large as may be: it waits as long as speech can neither begin nor
  end in it, whatever it is. So everything that the gate says is the same as if it looked at each
  frame as it came.
- ``silence`` tells how much held-back sound there is, in seconds of sound, not of clock. Sound that
  is ``undecided`` (few loud frames, or sound that may be faint) may open the gate in a moment.
- Neither a faint sound nor doubt lasts longer than :data:`MOST_FAINT` frames without a loud one, so
  that noise that changes cannot keep a turn open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .gate_options import GateOptions
from .line_noise import MOST_FRAMES, STANDS_OUT, STEADY_FRAMES, KnownNoise, NoiseFloor
from .spectrum import BANDS, HOP, QUIETEST_DB, RATE, Spectrum

#: Sound that is held back is counted in chunks of this many milliseconds, as scenario's gate does.
CHUNK_MS = 100
#: The gate opens when OPEN_FRAMES of the last OPEN_WITHIN frames are loud.
OPEN_FRAMES = 5
OPEN_WITHIN = 8
#: Masks of the bits in ``_recent``: of the last OPEN_WITHIN frames, and of the last OPEN_FRAMES.
_ALL_RECENT = (1 << OPEN_WITHIN) - 1
_JUST_NOW = (1 << OPEN_FRAMES) - 1
#: A gap between two words of at most this many seconds does not count as a pause of the speaker.
BETWEEN_WORDS = 0.1
#: Faint sound that lasts for more than this many frames without a loud one is noise that has
#: changed.
MOST_FAINT = 30

_STRONGEST = 4
_MEAN = np.full(_STRONGEST, 1 / _STRONGEST)
#: To open the gate, the mean of a frame's strongest bands must stand this far (dB) above its floor.
_OPEN_DB = 6.5
#: To keep an open gate open, this much is enough.
_STAY_DB = 5.0
#: While the noise is not known, this much is enough in the mean of OPEN_WITHIN frames, because
#: words fade. The mean of plain noise reaches 3.3 dB.
_FADING_DB = 3.5
#: A faint sound has no gaps longer than _FAINT_GAP frames, begins less than _FAINT_NEAR frames
#: after the last word, and stands out by more than _FAINT_EXCESS in the sum of its frames (plain
#: noise now and then stands out by 5).
_FAINT_GAP = 5
_FAINT_NEAR = 25
_FAINT_EXCESS = 10.0
#: A frame that stands out by this may be the beginning of a faint sound (of plain noise 2 frames in
#: 100 stand out as much).
_IN_DOUBT = 1.0
#: A faint sound is noticed about this many frames longer than it lasts.
_FAINT_LAG = 1
#: Words that stand out by no more than this end in the noise, where they are not seen ...
_CLEAR_DB = 33.0
_MUFFLED_DB = 20.0
#: ... so that the hangover lasts up to this much longer. The contrast is forgotten at this pace.
_HIDDEN_SECONDS = 0.1
_CONTRAST_FALL_DB = 0.02
#: Frames are still called loud for this long after a sound's end, because of the median and of the
#: count of frames.
_LAG_SECONDS = 0.04
_LONG_AGO = -(10**9)
#: Seconds from one frame to the next.
_ONE_HOP = HOP / RATE
#: Bytes of two frames.
_TWO_FRAMES = 2 * 2 * HOP
#: After this many bytes of digital silence, more silence is not loud, whatever else is known: its
#: window and its median have nothing but silence in them.
_SURELY_SILENT = 6 * 2 * HOP
#: At most this many bytes wait, which is what is looked at together.
_MOST_UNSEEN = MOST_FRAMES * 2 * HOP
#: In the middle of words at most this many frames wait. Turns push ten at a time, so every third
#: piece is looked at, together with the two before it.
_MOST_PATIENCE = 28
#: If _MOST_PATIENCE is too many, this many may wait: in the middle of words the frames before them
#: nearly always differ too much to be steady.
_SURE_PATIENCE = 18


class FaintSound:
    """The run of frames that stand out of the known noise: the one that goes on, or the last."""

    def __init__(self) -> None:
        self.first = self.last = _LONG_AGO
        self._excess = 0.0

    def frame(self, now: int, excess: float) -> None:
        """Frame ``now`` stands out by ``excess``."""
        if now - self.last > _FAINT_GAP:
            self.first, self._excess = now, 0.0
        self.last = now
        self._excess += excess

    @property
    def certain(self) -> bool:
        return self._excess > _FAINT_EXCESS


@dataclass(frozen=True)
class GateCounters:
    """Counters of a gate, or of several together, under the names of langwatch-scenario's gate."""

    #: chunks of 100 ms that were held back, rounded down
    dropped_chunks: int = 0
    #: milliseconds of sound that were held back: silence, and sound that nobody has taken yet
    dropped_ms: int = 0
    #: times that speech began
    onsets: int = 0

    def __add__(self, other: GateCounters) -> GateCounters:
        dropped_ms = self.dropped_ms + other.dropped_ms
        return GateCounters(dropped_ms // CHUNK_MS, dropped_ms, self.onsets + other.onsets)


class SpeechGate:
    """The gate of one call."""

    def __init__(self, options: GateOptions | None = None) -> None:
        self.options = options or GateOptions()
        #: seconds of held-back sound that are kept for :meth:`take_silence`
        self.keep = 30.0
        #: the hangover after the last frame that is called loud (seconds)
        self._hangover = self.options.hangover - _LAG_SECONDS
        #: how many times the gate opened
        self.onsets = 0
        #: speech is going on
        self.open = False
        #: sample number with which the last speech began, its pre-roll not counted
        self.began = 0
        #: some of an answer was handed out, and the answer was not ended
        self.answering = False
        self._held = bytearray()
        #: sample number of the first held sample; all samples before it are gone
        self._held_from = 0
        self._received = 0
        self._handed_out = 0
        #: samples up to here may be handed out
        self._ready_to = 0
        #: sound that nobody has looked at
        self._unseen = bytearray()
        #: how many bytes of the unseen sound may be loud, and how many such bytes may wait
        self._doubtful = self._may_wait = 0
        #: how many bytes of digital silence came since the last other sound
        self._silent = 0
        self._frames = 0
        #: the last frame of words, and the last of them that was loud
        self._last_word = self._last_loud = _LONG_AGO
        self._contrast = 0.0
        #: which of the last OPEN_WITHIN frames are loud: a bit for each, the last frame's is bit 0
        self._recent = 0
        #: the scores of OPEN_WITHIN frames, and behind them of the frames that are looked at
        self._scores = [0.0] * OPEN_WITHIN
        self._spectrum = Spectrum()
        self._floor = NoiseFloor(BANDS)
        self._noise = KnownNoise(BANDS, 10 ** (QUIETEST_DB / 10))
        self._faint = FaintSound()
        self._doubts_since: int | None = None

    # ------------------------------------------------------------------ sound in

    def push(self, pcm: bytes) -> None:
        """More sound: PCM16 mono 24 kHz, whole samples."""
        self._held += pcm
        self._unseen += pcm
        self._received += len(pcm) // 2
        if pcm != bytes(len(pcm)):
            self._silent = 0
        if self.open or self._silent < _SURELY_SILENT:
            self._doubtful += len(pcm)
        self._silent += len(pcm)
        if self._doubtful > self._may_wait or len(self._unseen) >= _MOST_UNSEEN:
            self._look()
        elif self.open:
            self._ready_to = self._received
        self._trim()

    def _look(self) -> None:
        """Look at the frames that nobody has looked at, two by two."""
        while size := min(len(self._unseen) // _TWO_FRAMES, MOST_FRAMES // 2) * _TWO_FRAMES:
            powers, levels = self._spectrum.hear(bytes(self._unseen[:size]))
            del self._unseen[:size]
            self._noise.hear(powers)
            above, steady = self._floor.hear(levels)
            above.sort(axis=1)
            scores = np.maximum(above[:, BANDS - _STRONGEST :], 0.0) @ _MEAN
            fresh = scores.tolist()
            self._scores = self._scores[-OPEN_WITHIN:] + fresh
            for i, score in enumerate(fresh):
                self._frame(i, score, i % 2 == 1 and steady[i // 2])
            self._may_wait = self._patience() * 2 * HOP
        self._doubtful = len(self._unseen)

    def _patience(self) -> int:
        """How many frames may wait, because speech can neither begin nor end in them. If the gate
        is closed, they are too few to open it. In the middle of words they are fewer than the
        hangover, and too few to be called steady or faint."""
        if not self.open:
            return OPEN_FRAMES - 1 - self._recent.bit_count()
        hangover = int(self._hangover * RATE) // HOP
        until = min(self._last_word + hangover - 1, self._last_loud + MOST_FAINT)
        most = min(_MOST_PATIENCE, until - self._frames)
        for frames in (most, _SURE_PATIENCE):
            if 2 < frames <= most and self._floor.unsteady_for(frames):
                return frames
        return 0

    def _frame(self, i: int, score: float, steady: bool) -> None:
        """Frame ``i`` of those that are looked at."""
        self._frames = now = self._frames + 1
        contrast = self._contrast - _CONTRAST_FALL_DB
        self._contrast = score if score > contrast else contrast
        loud = score > (_STAY_DB if self.open else _OPEN_DB)
        self._recent = recent = (self._recent << 1 | loud) & _ALL_RECENT
        if recent.bit_count() >= OPEN_FRAMES:
            if not self.open:
                self._opens()
            self._last_word = self._last_loud = now
        elif self.open and not self._noise.known and self._fading(i):
            self._last_word = now
        if self.open or self.answering:
            if self._contrast < _CLEAR_DB:
                self._look_for_faint_words(i)
            else:
                self._doubts_since = None
        if steady:
            self._noise_is_steady(i)
        if self.open:
            if self._last_word == now and self._hangover >= _ONE_HOP:  # words go on
                self._ready_to = max(self._ready_to, (now + now % 2) * HOP)
            else:
                self._stays_open()

    def _fading(self, i: int) -> bool:
        late = self._scores[i + 1 : i + 1 + OPEN_WITHIN]
        return sum(min(score, _OPEN_DB) for score in late) > _FADING_DB * OPEN_WITHIN

    def _look_for_faint_words(self, i: int) -> None:
        """Faint sound right after words belongs to them. If it goes on for long without a loud
        frame, the noise has changed."""
        excess = self._noise.excess(i)
        if excess < _IN_DOUBT:
            self._doubts_since = None
            return
        faint, now = self._faint, self._frames
        if self._doubts_since is None:
            self._doubts_since = now
        if excess < STANDS_OUT:
            return
        faint.frame(now, excess)
        if not faint.certain:
            return
        if now - max(faint.first, self._last_loud) > MOST_FAINT:
            self._noise.forget()
            self._last_word = self._last_loud
        elif faint.first - self._last_word < _FAINT_NEAR and now - self._last_loud < MOST_FAINT:
            self._last_word = max(self._last_word, now - _FAINT_LAG)

    def _noise_is_steady(self, i: int) -> None:
        """Sound that has not changed in any band for a while is the line's own noise, however loud.
        So it was not speech, from its beginning on, except where it stood out of the noise known
        before."""
        begin = self._frames - STEADY_FRAMES
        if (self.open or self.answering) and not self._noise.differs(i):
            begin = max(begin, self._faint.last)
        self._noise.learn(i)
        self._last_word = min(self._last_word, begin)
        self._last_loud = min(self._last_loud, begin)
        self._recent = 0

    def _opens(self) -> None:
        self.open = True
        self.onsets += 1
        first = self._frames - self._recent.bit_length()
        if not self.answering and self._ready_to <= self._held_from:
            self.began = first * HOP
            self._drop_before(self.began - int(self.options.pre_roll * RATE))

    def _stays_open(self) -> None:
        seconds = self._hangover
        if self._contrast < _CLEAR_DB:
            hidden = (_CLEAR_DB - self._contrast) / (_CLEAR_DB - _MUFFLED_DB)
            seconds += _HIDDEN_SECONDS * min(1.0, hidden)
        limit = self._last_word * HOP + int(seconds * RATE)
        seen = (self._frames + self._frames % 2) * HOP
        ready = seen if seen < limit else limit
        if ready > self._ready_to:
            self._ready_to = ready
        # A hangover shorter than the lag reaches back into words that are still going on.
        if self._frames * HOP >= limit and self._frames > self._last_word:
            self.open = False

    # ------------------------------------------------------------------ sound out

    def take(self) -> bytes:
        """Speech that may be handed out, with pauses whole; b"" while there is none."""
        if not self._ready:
            return b""
        if not self.answering:
            self._look()
            self.answering = True
        pcm = bytes(self._held[: 2 * self._ready])
        self._hand_out(self._held_from + self._ready)
        return pcm

    @property
    def _ready(self) -> int:
        """Samples that may be handed out."""
        return max(0, self._ready_to - self._held_from)

    @property
    def silence(self) -> float:
        """Seconds of sound that are held back, ready speech not counted."""
        return (self._received - max(self._ready_to, self._held_from)) / RATE

    @property
    def undecided(self) -> bool:
        """The last frames are loud, too few yet to open the gate, or they may be faint: the next
        ones decide."""
        self._look()
        if self.open:
            return False
        since = self._doubts_since
        faint = since is not None and self._frames - since < MOST_FAINT
        return faint or self._recent & _JUST_NOW != 0

    @property
    def speaking(self) -> bool:
        """A word goes on at the end of all sound, or ended less than :data:`BETWEEN_WORDS` ago. An
        open gate alone does not tell: it stays open for a hangover after the last word."""
        self._look()
        return self.open and (self._frames - self._last_word) * HOP < BETWEEN_WORDS * RATE

    @property
    def quiet(self) -> bool:
        """Nothing that was looked at lately is speech, or may become some."""
        return not (self.open or self._recent)

    @property
    def patience(self) -> int:
        """Until this many bytes of sound have come there is no use in pushing them: speech will
        neither begin nor end in them."""
        return max(0, self._may_wait - self._doubtful)

    @property
    def heard_seconds(self) -> float:
        """Seconds of sound that were pushed so far."""
        return self._received / RATE

    def end_answer(self) -> None:
        """The answer is over (or never began): the held sound is silence between turns."""
        self._look()
        self.answering = False

    def take_silence(self, seconds: float) -> bytes:
        """The last ``seconds`` of held-back sound (all of it where there is less)."""
        wanted = math.ceil(min(seconds, self._received / RATE) * RATE)
        begin = max(self._held_from, self._received - wanted)
        self._drop_before(begin)
        return self.take_rest()

    def take_rest(self) -> bytes:
        """All sound that is held, ready or not; it follows the sound that was handed out."""
        rest = bytes(self._held)
        self._hand_out(self._received)
        self._ready_to = self._received
        return rest

    def flush(self) -> bytes:
        """The call is over: the rest of its speech, a beginning included; b"" for silence."""
        self._look()
        pcm = self.take()
        if self.open:
            pcm += self.take_silence(float("inf"))
        elif self._recent:
            keep = self.options.pre_roll if not self.answering else float("inf")
            pcm += self.take_silence(min(keep + OPEN_WITHIN * 0.01, self.silence))
        self._drop_before(self._received)
        return pcm

    @property
    def counters(self) -> GateCounters:
        """The counters of all sound that was pushed so far. Speech that waits to be taken does not
        count as held back."""
        dropped_ms = (self._received - self._handed_out - self._ready) * 1000 // RATE
        return GateCounters(dropped_ms // CHUNK_MS, dropped_ms, self.onsets)

    def _hand_out(self, stop: int) -> None:
        self._handed_out += stop - self._held_from
        self._drop_before(stop)

    def _drop_before(self, sample: int) -> None:
        count = sample - self._held_from
        if count > 0:
            del self._held[: 2 * count]
            self._held_from = sample

    def _trim(self) -> None:
        """Bound the held sound; inside an answer its pause is kept whole up to ``keep``."""
        most = int((self.keep + self.options.pre_roll + 0.1) * RATE)
        if self.silence * RATE > most:
            self._drop_before(self._received - most)
