"""The home directory and the output directory of the demo.

In a container, or in CI, the user may have neither: there is no home directory, and the checkout
belongs to another user. The demo is the first thing that people run, so it makes new ones then.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: The directory for the files unless ``--out`` names another.
DEFAULT: Final = Path("out/demo")


@contextlib.contextmanager
def home() -> Iterator[None]:
    """During the block, give the process a temporary home directory, if its user has none that can
    be written. langwatch-scenario and matplotlib keep caches there, and the former does not start
    without one."""
    if _has_home():
        yield
        return
    before = os.environ.get("HOME")
    with tempfile.TemporaryDirectory(prefix="trunkline-home-") as made:
        os.environ["HOME"] = made
        try:
            yield
        finally:
            if before is None:
                del os.environ["HOME"]
            else:
                os.environ["HOME"] = before


def _has_home() -> bool:
    try:
        return os.access(Path.home(), os.W_OK | os.X_OK)
    except RuntimeError:  # no HOME, and no entry for this user
        return False


def output(asked: Path | None) -> Path:
    """Make the directory for the files, and return its absolute path. Without ``asked`` it is
    out/demo, or a new temporary one where out/demo cannot be written. OSError where ``asked``
    cannot be made."""
    if asked is not None:
        asked.mkdir(parents=True, exist_ok=True)
        return asked.absolute()
    with contextlib.suppress(OSError):  # a new one will do, and the demo prints where it is
        DEFAULT.mkdir(parents=True, exist_ok=True)
        # Files of an earlier run may be another user's, in a directory that is open to all.
        files = [each for each in DEFAULT.iterdir() if not os.access(each, os.W_OK)]
        if os.access(DEFAULT, os.W_OK | os.X_OK) and not files:
            return DEFAULT.absolute()
    return Path(tempfile.mkdtemp(prefix="trunkline-demo-out-"))
