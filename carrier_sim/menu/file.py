"""A menu's TOML file: one table a step. A mistake in it is told in one line.

    start = "main"            # where a call begins; default: the first step of the file

    [main]
    say = ["speech:austen-0880", "wav:choose.wav"]
    digits = { 1 = "balance", 2 = "hold", "....#" = "balance" }
    timeout = 5

    [balance]
    say = "speech:austen-0930"
    then = "main"

    [hold]
    say = ["music:6", "ringing:4"]
    bot = "echo"

The fields of a step are those of steps.Step; ``say`` takes the texts of sounds.py, and ``bot`` the
text or the table of a bot (bots.py). Relative paths count from the file's directory.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from ..sounds import read as read_sound
from .steps import NOTHING, Menu, Step

#: Fields of a step in the file -> the highest number, for those that are numbers.
_FIELDS: Final[dict[str, float | None]] = {
    "say": None,
    "digits": None,
    "timeout": 600.0,
    "between": 60.0,
    "repeats": 100,
    "on_timeout": None,
    "on_wrong": None,
    "barge_in": None,
    "listen": 3600.0,
    "silence": 600.0,
    "bot": None,
    "then": None,
    "end": None,
}
_KEYS: Final = re.compile(r"[0-9A-D*#.]{1,32}", re.ASCII)

#: Makes of a step's ``bot`` an object that names no file. ValueError, OSError.
ReadBot = Callable[[object, Path], dict[str, object]]


class MenuError(ValueError):
    """A mistake in a menu's file: where it is, and how to mend it."""


def load(path: Path, read_bot: ReadBot) -> Menu:
    """The menu of a file, with all its sound. MenuError, which names the file and the key."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise MenuError(f"{path}: {error.strerror or error}; name a menu's TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MenuError(f"{path}: this is no TOML: {error}") from error
    return _Reader(path, read_bot).menu(document)


class _Reader:
    def __init__(self, path: Path, read_bot: ReadBot) -> None:
        self._path = path
        self._read_bot = read_bot
        self._steps: list[str] = []

    def menu(self, document: dict[str, Any]) -> Menu:
        start = None if isinstance(document.get("start"), dict) else document.pop("start", None)
        for name, table in document.items():
            if not isinstance(table, dict):
                raise self._error(name, f"a step is a table: write [{name}], and its fields below")
        self._steps = list(document)
        if not self._steps:
            raise self._error("", "there is no step; write for instance [main] and say = …")
        if start is None:
            start = self._steps[0]
        self._check_step("start", start)
        steps = {name: self._step(name, table) for name, table in document.items()}
        return Menu(name=self._path.name, start=start, steps=steps)

    def _step(self, name: str, table: dict[str, Any]) -> Step:
        for field, value in table.items():
            if field not in _FIELDS:
                raise self._error(
                    f"{name}.{field}", f"there is no such field; there are {_known()}"
                )
            most = _FIELDS[field]
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if most is not None and not (number and 0 <= value <= most):
                raise self._error(f"{name}.{field}", f"{value!r} is no number from 0 to {most:g}")
        for field in ("on_timeout", "on_wrong", "then"):
            if field in table:
                self._check_step(f"{name}.{field}", table[field])
        fields = dict(table)
        fields["said"], fields["sound"] = self._say(f"{name}.say", fields.pop("say", []))
        fields["digits"] = self._digits(f"{name}.digits", table.get("digits", {}))
        if "bot" in table:
            fields["bot"] = self._bot(f"{name}.bot", table["bot"])
        try:
            step = msgspec.convert(fields, Step)
        except msgspec.ValidationError as error:
            field = str(error).rpartition("$.")[2].rstrip("`") if "$." in str(error) else ""
            text = str(error).partition(" - at")[0]
            raise self._error(f"{name}.{field}" if field else name, text) from error
        if step.is_empty and (step.then or step.end != "dead"):
            raise self._error(name, NOTHING)
        return step

    def _say(self, key: str, value: object) -> tuple[tuple[str, ...], bytes]:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise self._error(
                key, 'write one sound or a list of them: ["music:4", "wav:hello.wav"]'
            )
        return tuple(texts), b"".join(self._try(key, read_sound, text) for text in texts)

    def _digits(self, key: str, value: object) -> dict[str, str]:
        if not isinstance(value, dict):
            raise self._error(key, 'write { 1 = "sales", "....#" = "account" }')
        for keys, step in value.items():
            if not _KEYS.fullmatch(keys):
                allowed = "0-9, *, #, A-D, and . for any of 0-9"
                raise self._error(f"{key}.{keys}", f"these are no keys; there are {allowed}")
            self._check_step(f"{key}.{keys}", step)
        return value

    def _bot(self, key: str, value: object) -> dict[str, object]:
        found: dict[str, object] = self._try(key, self._read_bot, value)
        return found

    def _try(self, key: str, read: Callable[[Any, Path], Any], value: object) -> Any:
        try:
            return read(value, self._path.parent)
        except (ValueError, OSError) as error:
            raise self._error(key, str(error)) from error

    def _check_step(self, key: str, value: object) -> None:
        if not isinstance(value, str) or value not in self._steps:
            there = ", ".join(self._steps)
            raise self._error(key, f"{value!r} is no step of this file; there are {there}")

    def _error(self, key: str, text: str) -> MenuError:
        at = f"{self._path}: {key}: " if key else f"{self._path}: "
        return MenuError(at + text)


def _known() -> str:
    return ", ".join(_FIELDS)
