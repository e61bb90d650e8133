"""The specs of bots, which are the far ends of calls. ``far_ends.start_bot`` makes the bot of one
call from a spec.

A spec has a short text form, ``kind[:argument][,option=value…]``:

| text | the far end |
|---|---|
| ``echo``, ``echo:0.2`` | repeats what it hears, after so many seconds |
| ``wav:PATH``, ``speech:austen-0880`` | plays a recording |
| ``hand-over:SOUNDS`` | plays a row of sounds (sounds.py), for instance to pass a call on |
| ``menu:bank.toml`` | has a menu (menu/) |
| ``voicemail``, ``voicemail:SOUNDS`` | greets, beeps and records |
| ``silence``, ``record`` | says nothing |
| ``noise:-50`` | is comfort noise of so many dBFS |
| ``dtmf:12#@2.5`` | presses keys, so many seconds after answering |
| ``busy``, ``no-answer``, ``failed`` | does not answer |

Options follow with commas, for instance ``wav:hello.wav,when_silent=0.7,repeat=true,ring=2``. A
line's name (line/profiles.py) may stand at the end: ``echo@street``. A text that begins with ``{``
is read as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from . import sounds, tones, wav
from .detection import AnsweredBy
from .line.profiles import profile
from .menu import file
from .menu.steps import Menu, Step


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
    #: What the detection of answering machines finds. None: it goes by the sound.
    answered_by: AnsweredBy | None = None
    #: The name of its line (line/profiles.py). "": the line of all far ends that name none.
    line: str = ""
    #: Which keys it notices: those that the carrier presses with <Play digits> ("digits"), those
    #: that are tones in the sound of a stream ("tones"), or both.
    hears: Literal["both", "digits", "tones"] = "both"


class Echo(Answering, frozen=True, tag="echo"):
    """Repeats everything that it hears, ``delay`` seconds later (one frame at least)."""

    delay: float = 0.0


class Play(Answering, frozen=True, tag="wav"):
    """Plays a recording: a WAV ``path``, a shipped ``speech``, ``sounds`` (sounds.py) or raw μ-law
    ``audio``.

    It starts ``after`` seconds after answering. With ``when_silent`` it then waits until the other
    side has spoken and been silent for that long, and with ``repeat`` it plays again each time that
    happens. One that ``greets`` plays the first time without waiting for the other side.
    ``hang_up_at`` seconds into the recording it hangs up. One that ``yields`` breaks its recording
    off so many seconds after the other side begins to speak meanwhile, however short those words
    are. Then it waits as it does after the end of a recording. Without ``when_silent`` it says
    nothing more.
    """

    path: str = ""
    speech: str = ""
    sounds: str = ""
    audio: bytes = b""
    loop: bool = False
    after: float = 0.0
    when_silent: float | None = None
    repeat: bool = False
    greets: bool = False
    hang_up_at: float | None = None
    yields: float | None = None
    hang_up_when_done: bool = False

    def sound(self) -> bytes:
        """The recording as μ-law. Raises ValueError or OSError when there is none."""
        if self.audio:
            return self.audio
        if self.speech:
            return wav.speech(self.speech)
        if self.sounds:
            return sounds.read(self.sounds)
        if not self.path:
            raise ValueError("a playing bot needs path, speech, sounds or audio")
        return wav.read_cached(self.path)


class Silence(Answering, frozen=True, tag="silence"):
    """Answers and says nothing."""


class Record(Answering, frozen=True, tag="record"):
    """Answers and only listens."""


class Noise(Answering, frozen=True, tag="noise"):
    """Comfort noise at an RMS level in dBFS."""

    level: float = -55.0
    seed: int = 1


class ByMenu(Answering, frozen=True, tag="menu"):
    """Has a menu, from the TOML file at ``path`` (menu/file.py), or as it is given."""

    path: str = ""
    menu: Menu | None = None


class Voicemail(Answering, frozen=True, tag="voicemail"):
    """An answering machine: a ``greeting`` (sounds.py, or μ-law as ``audio``), a beep, and then it
    listens, ``longest`` seconds at most, until the caller has spoken and been silent for
    ``silence``. Then it hangs up. A mailbox that is ``full`` hangs up after the greeting.
    """

    greeting: str = "speech:austen-0870"
    audio: bytes = b""
    beep: float = 0.5
    full: bool = False
    longest: float = 120.0
    silence: float = 5.0

    def sound(self) -> bytes:
        """The greeting as μ-law. Raises as Play.sound."""
        return self.audio or sounds.read(self.greeting)

    def menu(self) -> Menu:
        """Its greeting and its recording as two steps."""
        beep = b"" if self.full else sounds.read(f"beep:{self.beep}")
        greeting = Step(sound=self.sound() + beep, then="" if self.full else "message")
        message = Step(listen=self.longest, silence=self.silence)
        steps = {"greeting": greeting, "message": message}
        return Menu(name="voicemail", start="greeting", steps=steps)


class Busy(msgspec.Struct, frozen=True, tag_field="kind", tag="busy"):
    """The line is busy, after ``ring`` seconds."""

    ring: float = 0.0


class NoAnswer(msgspec.Struct, frozen=True, tag_field="kind", tag="no-answer"):
    """Rings until the caller gives up."""


class Failed(msgspec.Struct, frozen=True, tag_field="kind", tag="failed"):
    """The call cannot be routed."""

    ring: float = 0.0


AnsweringSpec = Echo | Play | Silence | Record | Noise | ByMenu | Voicemail
BotSpec = AnsweringSpec | Busy | NoAnswer | Failed
#: How the text of a bot may begin -> its spec.
_KINDS: Final[dict[str, type[BotSpec]]] = {
    "echo": Echo,
    "wav": Play,
    "speech": Play,
    "hand-over": Play,
    "menu": ByMenu,
    "voicemail": Voicemail,
    "silence": Silence,
    "record": Record,
    "noise": Noise,
    "dtmf": Silence,
    "busy": Busy,
    "no-answer": NoAnswer,
    "failed": Failed,
}


def parse_bot(text: str, *, files: bool = True, directory: Path | None = None) -> BotSpec:
    """The text or JSON form of a spec.

    Raises ValueError with the reason when it is wrong, or names a file where ``files`` is False. A
    relative path counts from ``directory`` (default: this process's).
    """
    if text.startswith("{"):
        return bot_from(msgspec.json.decode(text), files=files, directory=directory)
    before, at, line = text.rpartition("@")
    if at and re.fullmatch(r"[a-z]+(-[a-z]+)*", line):
        text = f"{before},line={line}"
    head, *options = text.split(",")
    kind, _, argument = head.partition(":")
    if kind not in _KINDS:
        raise ValueError(f"no bot {kind!r}: there are {', '.join(_KINDS)}")
    fields: dict[str, object] = {"kind": kind}
    match kind:
        case "echo" if argument:
            fields["delay"] = argument
        case "wav" | "menu":
            fields["path"] = argument
        case "speech":
            fields |= {"kind": "wav", "speech": argument}
        case "hand-over":
            fields |= {"kind": "wav", "sounds": argument}
        case "voicemail" if argument:
            fields["greeting"] = argument
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
    _check_options(kind, _KINDS[kind], fields)
    return bot_from(fields, files=files, directory=directory)


def bot_from(fields: object, *, files: bool = True, directory: Path | None = None) -> BotSpec:
    """The dict form of a spec. Raises ValueError as :func:`parse_bot`."""
    try:
        spec: BotSpec = msgspec.convert(fields, BotSpec, strict=False)
    except msgspec.ValidationError as e:
        raise ValueError(f"no bot {fields!r}: {e}") from e
    assert isinstance(fields, dict)
    _check_options(fields["kind"], type(spec), fields)
    if _names_a_file(spec) and not files:
        raise ValueError("no file is opened here: send its sound as audio (μ-law, base64)")
    try:
        spec = _with_files(spec, directory or Path())
    except file.MenuError:
        raise
    except (ValueError, OSError) as e:
        raise ValueError(f"bot {fields!r}: {e}") from e
    if isinstance(spec, Answering):
        if spec.line:
            profile(spec.line)
        tones.dtmf("".join(digits for _, digits in spec.dtmf))
    return spec


def _check_options(kind: str, spec: type[BotSpec], fields: Mapping[str, object]) -> None:
    known = spec.__struct_fields__
    for name in fields:
        if name != "kind" and name not in known:
            there = f"there are {', '.join(known)}" if known else "it has none"
            if name == "line":
                there = "it does not answer, and so needs none"
            raise ValueError(f"bot {kind!r} has no option {name!r}: {there}")


def _names_a_file(spec: BotSpec) -> bool:
    match spec:
        case Play(sounds=texts) | Voicemail(greeting=texts):
            named = "wav:" in texts and not spec.audio
            return named or (isinstance(spec, Play) and bool(spec.path))
        case ByMenu():
            return bool(spec.path)
    return False


def _with_files(spec: BotSpec, directory: Path) -> BotSpec:
    """The spec with its menu or its row of sounds read into it. The path of a single recording
    stays: it is joined to ``directory``, and the file is read once so that a mistake shows now.
    Raises ValueError, OSError."""
    match spec:
        case Play(path=path) if path:
            spec = replace(spec, path=str(directory / path))
            spec.sound()
        case Play(sounds=texts) if texts:
            spec = replace(spec, audio=sounds.read(texts, directory), sounds="")
        case Play():
            spec.sound()
        case Voicemail(audio=b""):
            spec = replace(spec, audio=sounds.read(spec.greeting, directory))
            sounds.read(f"beep:{spec.beep}")
        case ByMenu(path=path) if path:
            spec = replace(spec, path="", menu=file.load(directory / path, _bot_of_a_step))
        case ByMenu(menu=None):
            raise ValueError("which menu? Write for instance menu:bank.toml")
        case ByMenu(menu=Menu(steps=steps)):
            for step in steps.values():
                if step.bot is not None:
                    bot_from(step.bot, files=False)
    return spec


def carried(spec: BotSpec) -> dict[str, object]:
    """The spec as an object that another process can read without opening a file."""
    if isinstance(spec, Play):
        spec = replace(spec, audio=spec.sound(), path="", speech="", sounds="")
    fields: dict[str, object] = msgspec.to_builtins(spec)
    return fields


def _bot_of_a_step(value: object, directory: Path) -> dict[str, object]:
    """The bot that a menu passes a call on to: its text or its table."""
    kind = value.get("kind") if isinstance(value, dict) else str(value).partition(":")[0]
    if kind == "menu":
        text = "a menu does not pass a call on to another menu: add its steps to this one"
        raise ValueError(text)
    if isinstance(value, str):
        spec = parse_bot(value, directory=directory)
    else:
        spec = bot_from(value, directory=directory)
    if not isinstance(spec, Answering):
        raise ValueError(f'{value!r} does not answer; say it: say = ["ringing:20"] or ["busy:3"]')
    return carried(spec)
