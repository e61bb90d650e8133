"""Writes the files of a new project: settings, pytest's part, and a first test that runs offline.

No file that is there is changed, but one: a ``pyproject.toml`` without a part for pytest gets it at
its end. Everything that was left is named, with the lines that it would need.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import tomllib
from collections.abc import Callable
from configparser import ConfigParser, Error
from pathlib import Path
from typing import Any, Final

import msgspec

from trunkline.bus.errors import SettingsError
from trunkline.carrier_sim.wav import SPEECH_DIR

#: pytest's settings that the first test needs, and one that keeps pytest-asyncio quiet.
PYTEST: Final = {"asyncio_mode": "auto", "asyncio_default_fixture_loop_scope": "function"}
#: The files in which pytest looks for its settings, in its order. The section is needed in some.
_CONFIGS: Final = (
    ("pytest.toml", None),
    (".pytest.toml", None),
    ("pytest.ini", None),
    (".pytest.ini", None),
    ("pyproject.toml", ("tool", "pytest")),
    ("tox.ini", "pytest"),
    ("setup.cfg", "tool:pytest"),
)
TEST: Final = Path("tests/test_first_call.py")
SOUND: Final = Path("tests/question.wav")
_QUESTION: Final = SPEECH_DIR / "austen-0930.wav"
_HERE: Final = Path(__file__).parent


class Left(msgspec.Struct, frozen=True):
    """A file that was left as it was, and the reason or the advice."""

    path: str
    why: str


class Written(msgspec.Struct, frozen=True):
    """What was done, and the commands that come next, each with what it is for."""

    directory: str
    wrote: list[str]
    left: list[Left]
    next: list[tuple[str, str]]


def write(directory: Path) -> Written:
    """Write the files into ``directory``, which is made where it is missing.

    Raises SettingsError where one of them cannot be written, or where a ``pyproject.toml`` cannot
    be read. What was written before stays, and a second run writes the rest.
    """
    wrote: list[str] = []
    left: list[Left] = []

    def put(path: Path, make: Callable[[Path], object]) -> None:
        whole = directory / path
        if whole.exists() or whole.is_symlink():
            left.append(Left(str(path), "it was there already"))
        else:
            make(whole)
            wrote.append(str(path))

    def copy(source: Path) -> Callable[[Path], object]:
        return lambda path: _write(path, source.read_bytes())

    try:
        (directory / TEST).parent.mkdir(parents=True, exist_ok=True)
        put(Path(".env"), _settings)
        _pytest(directory, wrote, left)
        put(TEST, copy(_HERE / "first_call.txt"))
        put(SOUND, copy(_QUESTION))
    except OSError as error:
        raise SettingsError(
            f"{error.filename}: it cannot be written: {error.strerror}; name another directory: "
            "`trunkline init DIR`"
        ) from error
    if (why := _shared(directory)) is not None:
        left.append(why)
    return Written(str(directory.absolute()), wrote, left, _next(directory))


def _settings(path: Path) -> None:
    """It is to hold a token, so it is its owner's alone."""
    _write(path, (_HERE / "env.txt").read_bytes(), mode=0o600)


def _write(path: Path, content: bytes, mode: int = 0o666) -> None:
    """A whole file, or none: a part of one would be left by the next run as a file of the user's.
    OSError names the file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        path.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


def _shared(directory: Path) -> Left | None:
    """A repository that would take the token along."""
    ignored = directory / ".gitignore"
    text = ignored.read_text(errors="replace") if ignored.is_file() else ""
    if (directory / ".git").exists() and ".env" not in text.split():
        return Left(".gitignore", "add the line .env, because a token is to stand there")
    return None


# --------------------------------------------------------------------------- pytest's part


def _pytest(directory: Path, wrote: list[str], left: list[Left]) -> None:
    """pytest's settings: into pyproject.toml if that is there and pytest has none yet, else into a
    pytest.ini. Settings that are there are left, and those that are missing are named."""
    found = _found(directory)
    if found is not None:
        name, there = found
        missing = {key: value for key, value in PYTEST.items() if key not in there}
        if "asyncio_mode" in missing:
            quoted = '"' if name.endswith(".toml") else ""
            lines = ", ".join(f"{key} = {quoted}{value}{quoted}" for key, value in missing.items())
            left.append(Left(name, f"pytest's settings are there; add: {lines}"))
        else:
            left.append(Left(name, "pytest's settings are there"))
        return
    project = directory / "pyproject.toml"
    if project.exists():
        text = project.read_text(encoding="utf-8")
        between = (
            "" if not text or text.endswith("\n\n") else "\n" if text.endswith("\n") else "\n\n"
        )
        lines = "".join(f'{key} = "{value}"\n' for key, value in PYTEST.items())
        with project.open("a", encoding="utf-8") as file:
            file.write(f"{between}[tool.pytest.ini_options]\n{lines}")
        wrote.append("pyproject.toml")
        return
    lines = "".join(f"{key} = {value}\n" for key, value in PYTEST.items())
    _write(directory / "pytest.ini", f"[pytest]\n{lines}".encode())
    wrote.append("pytest.ini")


def _found(directory: Path) -> tuple[str, dict[str, Any]] | None:
    """The file from which pytest would take its settings here, and these; None: there is none."""
    for name, section in _CONFIGS:
        path = directory / name
        if not path.is_file():
            continue
        if path.suffix == ".toml":
            table = _toml(path)
            if section is None:
                return name, _table(path, table, "pytest", table)
            tool = _table(path, table, "tool", {})
            if "pytest" in tool:
                part = _table(path, tool, "pytest", {})
                return name, _table(path, part, "ini_options", part)
            continue
        parser = ConfigParser(interpolation=None)
        try:
            parser.read(path, encoding="utf-8")
        except (Error, UnicodeDecodeError) as error:
            raise SettingsError(f"{path} cannot be read: {error}") from error
        wanted = section if isinstance(section, str) else "pytest"
        if parser.has_section(wanted):
            return name, dict(parser[wanted])
        if section is None:
            return name, {}
    return None


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error


def _table(path: Path, of: dict[str, Any], key: str, missing: dict[str, Any]) -> dict[str, Any]:
    found = of.get(key, missing)
    if not isinstance(found, dict):
        raise SettingsError(f"{path} cannot be read: {key} is not a table")
    return found


# --------------------------------------------------------------------------- what comes next


def _next(directory: Path) -> list[tuple[str, str]]:
    steps = []
    if directory.absolute() != Path.cwd():
        way = shlex.quote(str(directory))
        steps.append((f"cd {way}", "settings and tests are looked for here"))
    if any(importlib.util.find_spec(name) is None for name in ("pytest", "pytest_asyncio")):
        steps.append(("pip install 'trunkline[pytest]'", "pytest, and async tests in it"))
    return [
        *steps,
        ("pytest --phone-sim", "the first test, offline: no account, no network"),
        ("trunkline doctor", "once an account is in .env: what is still missing for real calls"),
    ]
