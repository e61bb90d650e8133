"""Pages and pictures as files."""

from __future__ import annotations

from pathlib import Path

from trunkline.bus.errors import naming


def write(path: Path, text: str) -> None:
    """Write a page or a picture in UTF-8, in every locale, because it says itself that it is.

    A title may quote the name of a file, and that may hold bytes which are no UTF-8: these are
    written as escapes. An OSError names the file, also where the disk is full.
    """
    with naming(path):
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
