"""The far end of a call: bots that answer (or do not), speak, echo, press keys, hang up and listen.

A spec describes a bot; ``start_bot`` makes the bot of one call from it. No I/O and no clock: a bot
lives in frames of 20 ms from the moment when the call is answered. Frame n is at n * 20 ms, so
``heard`` and ``said`` (μ-law) have no holes and are aligned to each other.

A spec has a short text form, ``kind[:argument][,option=value…]``. The kinds are ``echo``,
``echo:0.2``, ``wav:PATH``, ``speech:austen-0880``, ``silence``, ``record``, ``noise:-50``,
``dtmf:12#@2.5``, ``busy``, ``no-answer`` and ``failed``; with options, for instance
``wav:hello.wav,when_silent=0.7,repeat=true,ring=2``. A text that begins with ``{`` is read as JSON.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal

import msgspec

from . import tones, wav
from .mulaw import FRAME_SECONDS, SILENCE, frames, is_quiet

#: Bytes of sound that a bot keeps of one call at most: an hour.
MAX_KEPT: Final = 3600 * 8000


class Answering(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """The options of every bot that answers."""

    #: Seconds of ringing before it answers.
    ring: float = 0.0
    #: Hang up this many seconds after answering.
    hang_up_after: float | None = None
    #: (seconds after answering, digits to press), e.g. ((2.0, "1#"),).
    dtmf: tuple[tuple[float, str], ...] = ()
    #: Keep the sound that was heard and said.
    keep: bool = True
    #: Which keys it notices: those that the carrier presses with <Play digits> ("digits"), those
    #: that are tones in the sound of a stream ("tones"), or both.
    hears: Literal["both", "digits", "tones"] = "both"


class Echo(Answering, frozen=True, tag="echo"):
    """Repeats everything that it hears, ``delay`` seconds later (one frame at least)."""

    delay: float = 0.0


class Play(Answering, frozen=True, tag="wav"):
    """Plays a recording: a WAV ``path``, a shipped ``speech`` or raw μ-law ``audio``.

    It starts ``after`` seconds after answering. With ``when_silent`` it starts as soon as the
    other side has spoken and then been silent for that long, and with ``repeat`` it starts again
    each time that happens. One that ``greets`` does not wait the first time. ``hang_up_at`` seconds
    into the recording it hangs up mid-sentence.
    """

    path: str = ""
    speech: str = ""
    audio: bytes = b""
    loop: bool = False
    after: float = 0.0
    when_silent: float | None = None
    repeat: bool = False
    greets: bool = False
    hang_up_at: float | None = None
    hang_up_when_done: bool = False

    def sound(self) -> bytes:
        """The recording as μ-law. Raises ValueError or OSError when there is none."""
        if self.audio:
            return self.audio
        if self.speech:
            return wav.speech(self.speech)
        if not self.path:
            raise ValueError("a playing bot needs path, speech or audio")
        return wav.read_cached(self.path)


class Silence(Answering, frozen=True, tag="silence"):
    """Answers and says nothing."""


class Record(Answering, frozen=True, tag="record"):
    """Answers and only listens."""


class Noise(Answering, frozen=True, tag="noise"):
    """Comfort noise at an RMS level in dBFS."""

    level: float = -55.0
    seed: int = 1


class Busy(msgspec.Struct, frozen=True, tag_field="kind", tag="busy"):
    """The line is busy, after ``ring`` seconds."""

    ring: float = 0.0


class NoAnswer(msgspec.Struct, frozen=True, tag_field="kind", tag="no-answer"):
    """Rings until the caller gives up."""


class Failed(msgspec.Struct, frozen=True, tag_field="kind", tag="failed"):
    """The call cannot be routed."""

    ring: float = 0.0


BotSpec = Echo | Play | Silence | Record | Noise | Busy | NoAnswer | Failed
AnsweringSpec = Echo | Play | Silence | Record | Noise

_NOISE_SECONDS: Final = 4.0


class Bot:
    """One call's far end: ``emit`` gives its next frame, ``receive`` takes one that it hears."""

    def __init__(self, spec: AnsweringSpec) -> None:
        self.spec = spec
        self.heard = bytearray()
        self.said = bytearray()
        #: Keys that this end has heard, with the frame: [(frame, digit)].
        self.digits_heard: list[tuple[int, str]] = []
        self.hung_up = False
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
        if self.spec.keep and len(self.said) < MAX_KEPT:
            self.said += frame
        return frame

    def receive(self, frame: bytes) -> None:
        """The 20 ms that this end hears at the same time."""
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

    @property
    def digits(self) -> str:
        """The keys heard, as one string."""
        return "".join(d for _, d in self.digits_heard)

    def _speak(self, n: int) -> bytes:
        return SILENCE

    def _listen(self, frame: bytes) -> None:
        """For bots that react to the sound of the other end."""


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
            self._sound_heard = False
        at = self._at
        if self._cut is not None and at >= self._cut:
            self.hung_up = True
            return SILENCE
        if at >= len(self._frames):
            self._at = 0 if self._spec.loop and self._frames else None
            if self._at is None:
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
        return self._wait is None or (self._sound_heard and self._quiet >= self._wait)

    def _listen(self, frame: bytes) -> None:
        if self._wait is None:
            return
        if is_quiet(frame):
            self._quiet += 1
        else:
            self._quiet, self._sound_heard = 0, True


class _NoiseBot(Bot):
    def __init__(self, spec: Noise) -> None:
        super().__init__(spec)
        self._frames = frames(tones.noise(spec.level, _NOISE_SECONDS, spec.seed))

    def _speak(self, n: int) -> bytes:
        return self._frames[n % len(self._frames)]


def start_bot(spec: AnsweringSpec) -> Bot:
    """The bot of one call."""
    match spec:
        case Echo():
            return _EchoBot(spec)
        case Play():
            return _PlayBot(spec)
        case Noise():
            return _NoiseBot(spec)
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


def parse_bot(text: str, *, files: bool = True) -> BotSpec:
    """The text or JSON form of a spec. Raises ValueError with the reason when it is wrong, or names
    a file where ``files`` is False."""
    if text.startswith("{"):
        return bot_from(msgspec.json.decode(text), files=files)
    head, *options = text.split(",")
    kind, _, argument = head.partition(":")
    fields: dict[str, object] = {"kind": kind}
    match kind:
        case "echo" if argument:
            fields["delay"] = argument
        case "wav":
            fields["path"] = argument
        case "speech":
            fields |= {"kind": "wav", "speech": argument}
        case "noise" if argument:
            fields["level"] = argument
        case "dtmf":
            digits, _, at = argument.partition("@")
            fields |= {"kind": "silence", "dtmf": [[at or "1", digits]]}
        case _ if argument:
            raise ValueError(f"bot {kind!r} takes no argument, got {argument!r}")
    for option in options:
        name, sign, value = option.partition("=")
        fields[name] = value if sign else True
    return bot_from(fields, files=files)


def bot_from(fields: object, *, files: bool = True) -> BotSpec:
    """The dict form of a spec. Raises ValueError as :func:`parse_bot`."""
    try:
        spec: BotSpec = msgspec.convert(fields, BotSpec, strict=False)
    except msgspec.ValidationError as e:
        raise ValueError(f"no bot {fields!r}: {e}") from e
    known = set(spec.__struct_fields__) | {"kind"}
    unknown = set(fields) - known if isinstance(fields, dict) else set()
    if unknown:
        raise ValueError(f"bot {fields!r} has unknown options {', '.join(sorted(unknown))}")
    if isinstance(spec, Play):
        if spec.path and not files:
            raise ValueError("no file is opened here: send its sound as audio (μ-law, base64)")
        try:
            spec.sound()
        except OSError as e:
            raise ValueError(f"bot {fields!r}: {e}") from e
    if isinstance(spec, Answering):
        _key_frames(spec.dtmf)
    return spec
