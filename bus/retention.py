"""Which recordings and cassettes are deleted: the too old ones, and the oldest of too many.

Nothing is deleted unless a limit is set. This is the only place that deletes them. The threads that
write them come here, at most once a minute: for recordings at the start and whenever a stream has
ended, for cassettes at each write. Only files with the names that these have count, so a limit
never takes anything else in the directory. A file that was written to lately may still grow, and
stays, whatever the limits say.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

log = logging.getLogger("trunkline.bus")

#: How recordings are named: the call's beginning, and its CallSid.
NAME: Final = re.compile(r"[0-9]{8}T[0-9]{6}-\w+\.wav\Z", re.ASCII)
#: A call whose recording has not grown for so long is over (seconds). The sound of a stream comes
#: all the time, and a call without a stream is hung up within a minute.
OVER_AFTER: Final = 600.0
_EVERY: Final = 60.0
_DAY: Final = 86_400.0


@dataclass(frozen=True)
class Kept:
    """A recording or a cassette in the directory. ``written``: when it last grew (Unix time).
    ``size``: in bytes."""

    path: Path
    written: float
    size: int


def too_many(
    found: list[Kept], now: float, days: float | None, megabytes: float | None
) -> list[Path]:
    """The files that are to go, the oldest first, at ``now`` (Unix time). ``days`` or
    ``megabytes`` None: there is no such limit."""
    oldest_first = sorted(found, key=lambda kept: (kept.written, kept.path.name))
    over = [kept for kept in oldest_first if now - kept.written > OVER_AFTER]
    gone = [kept for kept in over if days is not None and now - kept.written > days * _DAY]
    if megabytes is not None:
        left = sum(kept.size for kept in found) - sum(kept.size for kept in gone)
        for kept in over[len(gone) :]:
            if left <= megabytes * 1e6:
                break
            gone.append(kept)
            left -= kept.size
    return [kept.path for kept in gone]


@dataclass
class Retention:
    """The limits of a directory of ``kind``, whose files have such a ``name``. ``wall``: Unix time;
    ``clock``: the monotonic clock."""

    days: float | None = None
    megabytes: float | None = None
    kind: str = "recordings"
    name: re.Pattern[str] = NAME
    wall: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
    _due: float = field(default=float("-inf"), repr=False)

    def apply(self, directory: Path) -> None:
        """Delete the files that are to go, unless that was done within the last minute."""
        now = self.clock()
        if now < self._due or (self.days is None and self.megabytes is None):
            return
        self._due = now + _EVERY
        try:
            gone = too_many(_found(directory, self.name), self.wall(), self.days, self.megabytes)
            for path in gone:
                path.unlink(missing_ok=True)  # another gateway may have been faster
        except OSError as error:
            log.error("%s cannot be deleted, although a limit is set: %s", self.kind, error)
            return
        if gone:
            log.info("%d %s were deleted, because a limit is set", len(gone), self.kind)


def _found(directory: Path, name: re.Pattern[str]) -> list[Kept]:
    found = []
    for path in directory.iterdir():
        if name.match(path.name):
            with contextlib.suppress(FileNotFoundError):  # another gateway has just deleted it
                stat = path.stat()
                found.append(Kept(path, stat.st_mtime, stat.st_size))
    return found
