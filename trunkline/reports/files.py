"""Files that commands write: pages, pictures, and whether there can be one."""

from __future__ import annotations

import os
from pathlib import Path

from trunkline.bus.errors import SettingsError, naming


def check(path: Path) -> None:
    """Raise OSError now if no file can be written at ``path``, for a command that has its content
    only later, when calls have been paid for. The file's directory is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = os.path.lexists(path)
    path.open("ab").close()
    if not before:
        path.unlink()


def check_option(option: str, path: Path) -> None:
    """:func:`check`, with a SettingsError that names the option which has the path."""
    try:
        check(path)
    except OSError as error:
        raise SettingsError(
            f"{option} {path} cannot be written ({error.filename}: {error.strerror}): name another "
            "file"
        ) from error


def write(path: Path, text: str) -> None:
    """Write a page or a picture in UTF-8, in every locale, because it says itself that it is.

    A title may quote the name of a file, and that may hold bytes which are no UTF-8: these are
    written as escapes. An OSError names the file, also where the disk is full.
    """
    with naming(path):
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
