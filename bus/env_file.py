"""``.env``: read whole, or refused by name.

A file that is there and cannot be read is never passed over: whoever wrote a token into it would be
told that the token is missing.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

from .errors import SettingsError

_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


def read(path: Path) -> dict[str, str]:
    """The values of the file by name, in upper case; nothing where there is no file.

    Raises SettingsError, which names the file and says what to do, where it cannot be read.
    """
    try:
        content = path.read_bytes()
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
    values = dotenv_values(stream=io.StringIO(_text(path, content)))
    return {name.upper(): value for name, value in values.items() if value is not None}


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
