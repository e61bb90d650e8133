"""The far end of a call: the bot of one call, made from its spec (bots.py).

No I/O and no clock: a bot lives in frames of 20 ms from the moment when the call is answered. Frame
n is at n * 20 ms, so ``heard`` and ``said`` (μ-law) have no holes and are aligned to each other.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable
from typing import Final

import numpy as np
from msgspec.structs import replace

from . import sounds, tones
from .bots import (
    Answering,
    AnsweringSpec,
    ByMenu,
    Echo,
    Noise,
    Play,
    Voicemail,
    bot_from,
)
from .line.line import BadLine
from .line.noise import speech_rms
from .line.profiles import profile
from .menu.steps import Menu, Visit
from .menu.walk import Do, HangUp, PassOn, Say, Walk
from .mulaw import FRAME_SECONDS, SILENCE, decode, frames, is_quiet

#: Bytes of sound that a bot keeps of one call at most: an hour.
MAX_KEPT: Final = 3600 * 8000
_NOISE_SECONDS: Final = 4.0


class Bot:
    """One call's far end: ``emit`` gives its next frame, ``receive`` takes one that it hears."""

    def __init__(self, spec: AnsweringSpec) -> None:
        self.spec = spec
        #: Its sound goes through this line, and so does the sound that it hears.
        self.line: BadLine | None = None
        #: What this end said in the last 20 ms, without what its line adds, or takes away.
        self.words = SILENCE
        self.heard = bytearray()
        self.said = bytearray()
        #: (number of the frame, key) of each key that this end has heard.
        self.digits_heard: list[tuple[int, str]] = []
        self.hung_up = False
        #: The menu at this end, and the steps of it that the call came to.
        self.menu: Menu | None = None
        self.way: list[Visit] = []
        self._n = 0
        self._keys, self._key_events = _key_frames(spec.dtmf)
        self._pressed: list[str] = []
        self._hang_up_at = (
            None if spec.hang_up_after is None else round(spec.hang_up_after / FRAME_SECONDS)
        )

    def emit(self) -> bytes:
        """The next 20 ms that this end says."""
        n = self._n
        frame = self._speak(n)
        if n in self._keys:
            frame = self._keys[n]
        if n in self._key_events:
            self._pressed += self._key_events[n]
        self._n = n + 1
        if self._hang_up_at is not None and n + 1 >= self._hang_up_at:
            self.hung_up = True
        self.words = frame
        if self.line is not None:
            frame = self.line.up(frame)
            self.words = self.line.words
        if self.spec.keep and len(self.said) < MAX_KEPT:
            self.said += frame
        return frame

    def receive(self, frame: bytes) -> None:
        """The 20 ms that this end hears while it says those of ``emit``."""
        if self.line is not None:
            frame = self.line.down(frame)
        if self.spec.keep and len(self.heard) < MAX_KEPT:
            self.heard += frame
        self._listen(frame)

    def take_pressed(self) -> list[str]:
        """The keys whose tone ended in the last frame."""
        if not self._pressed:
            return []
        pressed, self._pressed = self._pressed, []
        return pressed

    def hear_digit(self, digit: str, *, in_sound: bool) -> None:
        """A key was pressed by the carrier, or was found in the sound that this end hears."""
        if self.spec.hears != ("digits" if in_sound else "tones"):
            self.digits_heard.append((self._n, digit))
            self._key(digit)

    @property
    def digits(self) -> str:
        """The keys heard, as one string."""
        return "".join(d for _, d in self.digits_heard)

    def _speak(self, n: int) -> bytes:
        return SILENCE

    def _listen(self, frame: bytes) -> None:
        """For bots that react to the sound of the other end."""

    def _key(self, digit: str) -> None:
        """For bots that react to keys."""


class _EchoBot(Bot):
    def __init__(self, spec: Echo) -> None:
        super().__init__(spec)
        self._line = deque([SILENCE] * max(1, round(spec.delay / FRAME_SECONDS)))

    def _speak(self, n: int) -> bytes:
        return self._line.popleft() if self._line else SILENCE

    def _listen(self, frame: bytes) -> None:
        self._line.append(frame)


class _PlayBot(Bot):
    def __init__(self, spec: Play) -> None:
        super().__init__(spec)
        self._frames = frames(spec.sound())
        self._spec = spec
        self._after = round(spec.after / FRAME_SECONDS)
        self._wait = None if spec.when_silent is None else round(spec.when_silent / FRAME_SECONDS)
        self._yields = None if spec.yields is None else round(spec.yields / FRAME_SECONDS)
        #: The frame at which it yields, once the other side has begun to speak meanwhile.
        self._yields_at: int | None = None
        self._cut = None if spec.hang_up_at is None else round(spec.hang_up_at / FRAME_SECONDS)
        self._at: int | None = None
        self._plays = 0
        self._sound_heard = False
        self._quiet = 0

    def _speak(self, n: int) -> bytes:
        if self._at is None:
            if not self._may_start(n):
                return SILENCE
            self._at, self._plays = 0, self._plays + 1
            self._sound_heard, self._yields_at = False, None
        elif self._yields_at is not None and n >= self._yields_at:
            self._at = None
            return SILENCE
        at = self._at
        if self._cut is not None and at >= self._cut:
            self.hung_up = True
            return SILENCE
        if at >= len(self._frames):
            self._at = 0 if self._spec.loop and self._frames else None
            if self._at is None:
                self._yields_at = None  # it was not broken off
                self.hung_up = self.hung_up or self._spec.hang_up_when_done
                return SILENCE
            at = 0
        self._at = at + 1
        return self._frames[at]

    def _may_start(self, n: int) -> bool:
        if n < self._after or (self._plays and not self._spec.repeat):
            return False
        if self._spec.greets and not self._plays:
            return True
        if self._wait is None:
            return self._yields_at is None
        return self._sound_heard and self._quiet >= self._wait

    def _listen(self, frame: bytes) -> None:
        if self._wait is None and self._yields is None:
            return
        if is_quiet(frame):
            self._quiet += 1
            return
        self._quiet, self._sound_heard = 0, True
        if self._yields is not None and self._at is not None and self._yields_at is None:
            self._yields_at = self._n + self._yields


class _NoiseBot(Bot):
    def __init__(self, spec: Noise) -> None:
        super().__init__(spec)
        self._frames = frames(tones.noise(spec.level, _NOISE_SECONDS, spec.seed))

    def _speak(self, n: int) -> bytes:
        return self._frames[n % len(self._frames)]


class _MenuBot(Bot):
    def __init__(self, spec: ByMenu | Voicemail, menu: Menu) -> None:
        super().__init__(spec)
        self.menu = menu
        self._walk = Walk(menu)
        self.way = self._walk.way
        self._saying: deque[bytes] = deque()
        #: Whether the walk waits for the end of the present sound.
        self._is_saying = False
        #: The bot that has the call, once it was passed on.
        self._other: Bot | None = None
        self._do(self._walk.begin(0.0))

    def _speak(self, n: int) -> bytes:
        self._do(self._walk.tick(n * FRAME_SECONDS))
        if self._saying:
            return self._next_frame(n)
        other = self._other
        if other is None:
            return SILENCE
        frame = other.emit()
        self._pressed += other.take_pressed()
        self.hung_up = self.hung_up or other.hung_up
        return frame

    def _next_frame(self, n: int) -> bytes:
        frame = self._saying.popleft()
        if not self._saying and self._is_saying:
            self._is_saying = False
            self._do(self._walk.said((n + 1) * FRAME_SECONDS))
        return frame

    def _listen(self, frame: bytes) -> None:
        if self._other is not None:
            if self._other._n:  # it has begun to speak, and hears from then on
                self._other.receive(frame)
        else:
            self._do(self._walk.sound(is_quiet(frame), self._n * FRAME_SECONDS))

    def _key(self, digit: str) -> None:
        if self._other is not None:
            self._other._key(digit)
        else:
            self._do(self._walk.key(digit, self._n * FRAME_SECONDS))

    def _do(self, deeds: Iterable[Do]) -> None:
        for deed in deeds:
            match deed:
                case Say(sound=sound):
                    self._saying = deque(frames(sound))
                    self._is_saying = bool(sound)
                case PassOn(bot=bot):
                    self._pass_on(bot)
                case HangUp():
                    self.hung_up = True

    def _pass_on(self, bot: object) -> None:
        spec = bot_from(bot, files=False)
        assert isinstance(spec, Answering)
        if spec.ring:
            self._saying = deque(frames(sounds.read(f"ringing:{spec.ring}")))
        self._other = start_bot(replace(spec, keep=False))


def start_bot(spec: AnsweringSpec, line: str = "", seed: str = "0") -> Bot:
    """The bot of one call. It is on the spec's line or, where that names none, on ``line`` ("": on
    none). ``seed`` decides what the line does to its sound."""
    bot = _start(spec)
    name = spec.line or line
    if name:
        bot.line = BadLine(profile(name), seed, _speech(spec))
    return bot


@functools.lru_cache(maxsize=64)
def _level(sound: bytes) -> float:
    return speech_rms(decode(sound).astype(np.float64))


def _speech(spec: AnsweringSpec) -> float:
    """The level of its words; 0.0 where nobody knows them beforehand."""
    match spec:
        case Play():
            return _level(spec.sound())
        case Voicemail():
            return _level(spec.sound())
        case ByMenu(menu=Menu(steps=steps)):
            return _level(b"".join(step.sound for step in steps.values()))
    return 0.0


def _start(spec: AnsweringSpec) -> Bot:
    match spec:
        case Echo():
            return _EchoBot(spec)
        case Play():
            return _PlayBot(spec)
        case Noise():
            return _NoiseBot(spec)
        case ByMenu(menu=menu):
            assert menu is not None
            return _MenuBot(spec, menu)
        case Voicemail():
            return _MenuBot(spec, spec.menu())
        case _:
            return Bot(spec)


def _key_frames(
    dtmf: tuple[tuple[float, str], ...],
) -> tuple[dict[int, bytes], dict[int, list[str]]]:
    keys: dict[int, bytes] = {}
    events: dict[int, list[str]] = {}
    for at, digits in dtmf:
        first = round(at / FRAME_SECONDS)
        keys.update(enumerate(frames(tones.dtmf(digits)), start=first))
        for frame, pressed in tones.keys(digits).items():
            events.setdefault(first + frame, []).extend(pressed)
    return keys, events
