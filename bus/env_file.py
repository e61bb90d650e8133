"""``.env``: read whole, or refused by name.

A file that is there and cannot be read is never passed over. Otherwise whoever wrote a token into
it would be told that the token is missing.
"""

from __future__ import annotations

import io
import os
import re
import select
import time
from pathlib import Path
from typing import Final

from .errors import SettingsError

#: Seconds for whoever serves the file by a pipe to write it.
PIPE_WITHIN: Final = 5.0
_PIPE_STEP: Final = 0.05
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_OURS: Final = re.compile(r"(TWILIO|TRUNKLINE)_", re.IGNORECASE)
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")


def read(path: Path) -> dict[str, str]:
    """The values of the file by name, in upper case; nothing where there is no file.

    Raises SettingsError, which names the file and says what to do, where it cannot be read.
    """
    try:
        content = _pipe(path) if path.is_fifo() else path.read_bytes()
    except FileNotFoundError:
        if path.is_symlink():
            raise _refused(
                path, f"is a link to {path.readlink()}, which does not exist: put the file there"
            ) from None
        return {}
    except IsADirectoryError:
        if (path / "pyvenv.cfg").exists():
            return {}  # a virtual environment of this name
        raise _refused(
            path,
            "is a directory (a container engine makes one where the file to be mounted is "
            "missing): put a file there, or remove it",
        ) from None
    except PermissionError:
        raise _refused(
            path,
            f"may not be read by this user (uid {os.geteuid()}): `chmod u+r` it, `chown` it, or "
            "start in another directory",
        ) from None
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror or error}") from None
    # Imported here, because most processes of a stack read no file and start sooner without.
    from dotenv import dotenv_values

    text = _text(path, content)
    _check_lines(path, text)
    values = dotenv_values(stream=io.StringIO(text))
    return {name.upper(): value for name, value in values.items() if value is not None}


def _pipe(path: Path) -> bytes:
    """What is written into a named pipe, by which managers of secrets serve files. If nobody writes
    the whole file within :data:`PIPE_WITHIN`, raises SettingsError instead of waiting for ever."""
    deadline = time.monotonic() + PIPE_WITHIN
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        content = bytearray()
        readable = select.poll()
        readable.register(descriptor, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if not readable.poll(left * 1000):
                continue
            try:
                part = os.read(descriptor, 65_536)
            except BlockingIOError:
                continue
            if part:
                content += part
            elif content:
                return bytes(content)
            else:  # some systems report the end of a pipe that nobody has opened for writing yet
                time.sleep(min(left, _PIPE_STEP))
        raise _refused(
            path,
            f"is a pipe, and what serves it wrote no whole file into it within {PIPE_WITHIN:g} s: "
            "start that program, or put a file there",
        )
    finally:
        os.close(descriptor)


def _check_lines(path: Path, text: str) -> None:
    """Refuse a line that names a setting of ours, and from which no setting can be read. Other
    lines of the file do not concern us."""
    from dotenv.parser import parse_stream

    for binding in parse_stream(io.StringIO(text)):
        strange = binding.error or (binding.key and not _NAME.fullmatch(binding.key))
        content = binding.original.string
        if strange and _OURS.search(content):
            before = content[: len(content) - len(content.lstrip())]  # it begins with blank lines
            line = binding.original.line + before.count("\n")
            raise _refused(
                path,
                f"cannot be read in line {line}: write NAME=value there, and "
                "close each quote that is opened",
            )


def _text(path: Path, content: bytes) -> str:
    if content.startswith(_UTF16):
        raise _refused(
            path, "is UTF-16 (as PowerShell's > and some editors write it): save it as UTF-8"
        )
    if b"\0" in content:
        raise _refused(path, "holds NUL bytes, so it is no text in UTF-8: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refused(
            path,
            f"is not UTF-8 (byte 0x{content[error.start]:02x} in line {line}): save it as UTF-8",
        ) from None


def _refused(path: Path, text: str) -> SettingsError:
    return SettingsError(f"{path.absolute()} {text}")
