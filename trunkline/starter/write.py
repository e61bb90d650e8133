"""Writes the files of a new project: settings, pytest's settings, and a first test that runs
offline.

A file that is there is not changed, with one exception: a ``pyproject.toml`` without settings of
pytest gets them at its end. Each file that was left as it was is named, and for pytest's settings
the lines that they lack.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from configparser import ConfigParser, Error
from pathlib import Path
from typing import Any, Final

import msgspec

from trunkline.bus.errors import SettingsError
from trunkline.carrier_sim.wav import SPEECH_DIR

#: The setting of pytest that the first test needs, and one without which pytest-asyncio warns.
PYTEST: Final = {"asyncio_mode": "auto", "asyncio_default_fixture_loop_scope": "function"}
#: The files in which pytest looks for its settings, in its order, each with the section that a file
#: needs in order to count. None: it counts without a section.
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
    """A file that was left as it was. ``why``: the reason, or what to add."""

    path: str
    why: str


class Written(msgspec.Struct, frozen=True):
    """What was done. ``next``: the commands that come next, each with its purpose."""

    directory: str
    wrote: list[str]
    left: list[Left]
    next: list[tuple[str, str]]


def write(directory: Path) -> Written:
    """Write the files into ``directory``, which is made where it is missing.

    Raises SettingsError where a file cannot be written, or one that may have settings of pytest
    cannot be read. Files that were written before that stay, and a second run writes the rest.
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
    """Write ``.env``. It will hold a token, so only its owner can read it."""
    _write(path, (_HERE / "env.txt").read_bytes(), mode=0o600)


def _write(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write a whole file or none. The next run would take a part of one for the user's own file,
    and leave it. An OSError names the file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        path.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


def _shared(directory: Path) -> Left | None:
    """Advice where a repository would take ``.env`` with its token along. None: it does not, or no
    git is here that could."""
    git = shutil.which("git")
    if git is None:
        return None
    asked = [git, "-C", str(directory), "check-ignore", "--quiet", ".env"]
    # 0: it is ignored; 128: this is no repository.
    if subprocess.run(asked, stderr=subprocess.DEVNULL, check=False).returncode != 1:  # noqa: S603  # no word of it is a stranger's
        return None
    return Left(".gitignore", "add the line .env, because that file will hold a token")


# --------------------------------------------------------------------------- pytest's part


def _pytest(directory: Path, wrote: list[str], left: list[Left]) -> None:
    """Write pytest's settings: into pyproject.toml if there is one, else into a new pytest.ini.
    Where pytest has settings already, these are left, and the missing ones named."""
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
    """The name of the file from which pytest would take its settings here, and the settings. None:
    there is no such file."""
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
