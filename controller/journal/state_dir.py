"""Where stacks keep what must survive them, and the locks that show which of them live.

::

    <state dir>/lock                                held by the live stack of this directory
    <state dir>/stacks/<stack id>/lock              held while that stack's journal is in use
    <state dir>/stacks/<stack id>/new               no controller has begun an epoch there yet
    <state dir>/stacks/<stack id>/journal.sqlite3   or, where the journal is in PostgreSQL,
    <state dir>/stacks/<stack id>/database          the name of this directory in it
    <state dir>/private/<name>/…                    the same again, for each private stack

A stack id begins with six digits that its account gives it, so that journals of other accounts are
told apart without opening them. For example, ``3fa9c2d01b7e`` is a stack (``d01b7e``) of the
account whose SID has a SHA-256 that begins with ``3fa9c2``. A lock that can be taken means that its
stack is gone: the kernel lets go of a ``flock`` when its process dies, however it dies
(:mod:`trunkline.bus.locks`). A pid in a file would tell nothing, since pids are used again.

Who calls what: a controller :func:`lock_state_dir`, :func:`lock_bus_dir` and :func:`own` at its
start; :mod:`.orphans` and ``trunkline restore`` :func:`others`; ``trunkline up``
:func:`check_free`, before it starts anything.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from trunkline.bus.errors import SettingsError, TrunklineError
from trunkline.bus.locks import FileLock, LockHeldError, holder_of
from trunkline.bus.private import WRITE, check_private, for_setting, make_private
from trunkline.bus.settings import PRIVATE

_JOURNAL: Final = "journal.sqlite3"
_IN_DATABASE: Final = "database"
_NEW: Final = "new"
#: Who only looks at a stack's lock holds it no longer than this (seconds).
_LOOKED_WITHIN: Final = 2.0


class StackRunsError(TrunklineError, RuntimeError):
    """Another live stack has the directory. The message names it by its own words, for example
    "controller (pid 4711, ipc:///run/user/1000/trunkline)", and says what to do."""


@dataclass
class StackDir:
    """A stack's directory, locked by us until ``release``. While we have it nobody else opens its
    journal to write."""

    path: Path
    lock: FileLock
    #: no controller has begun an epoch there yet, or the database has not had it
    new: bool = False

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def journal(self) -> Path:
        return self.path / _JOURNAL

    @property
    def private_root(self) -> Path | None:
        """The whole state directory, where it is a private stack's alone; None: it is a shared one,
        which other stacks of this user lie in, and is never removed."""
        root = self.path.parent.parent
        return root if root.parent.name == PRIVATE else None

    @property
    def home(self) -> str | None:
        """The directory's name in the database that has its journal; None: none has had it yet."""
        path = self.path / _IN_DATABASE
        return path.read_text() if path.exists() else None

    def begun(self) -> None:
        """An epoch stands in its journal. From now on a journal that is not there, or has no epoch,
        was lost. A start that failed before that has lost nothing. The directory is synced, so that
        a power cut does not bring the mark back."""
        mark = self.path / _NEW
        if mark.exists():
            mark.unlink()
            sync_names(self.path)
        self.new = False

    def keep_home(self, home: str) -> None:
        """Note that the stack's journal is in a database from now on, and ``home``, by which that
        knows this directory: a start that shows it gets its stack back at once, without waiting
        for the lease of the process before it (:class:`.postgres.stacks.Claim`)."""
        (self.path / _IN_DATABASE).write_text(home)

    def forget(self) -> None:
        """Remove the directory and release the lock: the stack is another process's now."""
        shutil.rmtree(self.path)
        self.release()

    def release(self) -> None:
        """Let others have it; the directory stays."""
        self.lock.release()


@dataclass(frozen=True)
class LiveStack:
    """A stack whose lock is held; ``holder``: its own words in the lock's file. Its journal may be
    looked at (:func:`.store.peek`), for instance to say which numbers it uses, and no more."""

    path: Path
    holder: str

    @property
    def journal(self) -> Path:
        return self.path / _JOURNAL


def prefix(account: str) -> str:
    """How the ids of the account's stacks begin, for example ``3fa9c2``."""
    return hashlib.sha256(account.encode()).hexdigest()[:6]


def lock_state_dir(state_dir: Path, holder: str) -> FileLock:
    """Hold the state directory for life; it is made where it is missing. StackRunsError names who
    has it. ``holder``: how we name ourselves to whoever is refused because of us."""
    check_writable(state_dir)
    _make(state_dir)
    return _lock(_state_lock(state_dir), holder)


def lock_bus_dir(directory: Path, holder: str) -> FileLock:
    """Hold the bus directory for life. Whoever has it clears away the sockets that are left in it,
    and a second controller would clear away ours. StackRunsError names who has it."""
    return _lock(_bus_lock(directory), holder)


def check_free(state_dir: Path | None, bus_dir: Path | None) -> None:
    """StackRunsError where a live stack has one of them, SettingsError where the first cannot be
    used; None stands for one that is not used. Nothing is made there, because whoever asks only
    wants to know whether it may start."""
    if state_dir is not None:
        check_writable(state_dir)
    for path in (state_dir and _state_lock(state_dir), bus_dir and _bus_lock(bus_dir)):
        if path is not None and (holder := holder_of(path)) is not None:
            raise _taken(path, holder)


def check_writable(state_dir: Path) -> None:
    """SettingsError where this user can neither write to the directory nor make it. Nothing is made
    there."""
    way = (state_dir, *state_dir.absolute().parents)
    there = next(path for path in way if os.path.lexists(path))
    try:
        mode = there.stat().st_mode
    except OSError as error:  # a link, and where it leads may be closed to this user
        why = f"{there} cannot be looked at: {error.strerror}"
        raise SettingsError(f"TRUNKLINE_STATE_DIR={str(state_dir)!r}: {why}") from error
    if not stat.S_ISDIR(mode):
        why = f"{there} is not a directory"
    elif not os.access(there, os.W_OK | os.X_OK):
        _look(check_private, state_dir)  # another user's: it says what to do
        why = f"{there} cannot be written by this user (uid {os.geteuid()})"
    else:
        return
    raise SettingsError(f"TRUNKLINE_STATE_DIR={str(state_dir)!r}: {why}; name a directory of yours")


def _state_lock(state_dir: Path) -> Path:
    return state_dir / "lock"


def _bus_lock(directory: Path) -> Path:
    return directory / "controller.lock"


def _lock(path: Path, holder: str) -> FileLock:
    try:
        return FileLock(path, holder)
    except LockHeldError as error:
        raise _taken(path, error.holder) from error


def _taken(path: Path, holder: str) -> StackRunsError:
    """The error, with the setting that leads to this lock: that is what the user can change."""
    if path == _bus_lock(path.parent):
        where, instead = f"TRUNKLINE_BUS=ipc://{path.parent}", "address"
    else:
        where, instead = f"TRUNKLINE_STATE_DIR={path.parent}", "state directory"
    return StackRunsError(
        f"{holder or 'another controller'} already runs on {where}; end it, or use another "
        f"{instead}"
    )


def sync_names(directory: Path) -> None:
    """Bring the names in ``directory`` to the disk, so that a power cut takes no change of them
    back."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def own(state_dir: Path, account: str, holder: str, *, in_database: bool = False) -> StackDir:
    """The account's stack in this directory, which we hold: the one that was used last, or a new
    one. ``in_database``: one whose journal is not here.

    A stack whose journal is gone keeps its id, because the account's numbers may name it. We hold
    this directory, so no other controller runs a stack of it. But a controller of another directory
    that starts, or ``trunkline restore``, may hold a stack's lock to look at it. We wait until it
    has looked. Whoever holds the lock for longer is putting that stack's numbers back, and we take
    another stack.
    """
    began = time.monotonic()
    file = _IN_DATABASE if in_database else _JOURNAL
    found, held = _take(state_dir, account, holder, file)
    while held and time.monotonic() - began < _LOOKED_WITHIN:
        for stack in found:
            stack.release()
        time.sleep(0.01)
        found, held = _take(state_dir, account, holder, file)
    if found:
        return _newest(found, lambda stack: stack.path / file)
    found, _ = _take(state_dir, account, holder, None)
    if found:
        return _newest(found, lambda stack: stack.path)
    stack_id = prefix(account) + secrets.token_hex(3)
    path = state_dir / "stacks" / stack_id
    _make(path)
    (path / _NEW).touch()
    return take(path, holder)


def _newest(found: list[StackDir], file: Callable[[StackDir], Path]) -> StackDir:
    """The one whose file was written last; the others are released. There is more than one where a
    start found the last stack's lock held by ``trunkline restore``, and began another."""
    found.sort(key=lambda stack: file(stack).stat().st_mtime)
    for other in found[:-1]:
        other.release()
    return found[-1]


def others(state_dir: Path, account: str, holder: str) -> tuple[list[StackDir], list[LiveStack]]:
    """All further stacks of the account around ``state_dir``: those that are gone, locked by us
    now, and those that live. Ours is among neither (its lock is held by this very process)."""
    _look(partial(check_private, others_may_not=WRITE), state_dir)
    gone: list[StackDir] = []
    live: list[LiveStack] = []
    for root in _roots(state_dir):
        found, held = _take(root, account, holder, _JOURNAL)
        gone += found
        live += held
    return gone, live


def lives_here(state_dir: Path, stack: str, but: str) -> bool:
    """The lock of the stack with this id, around ``state_dir``, is held by another than ``but``.
    We hold locks ourselves, of orphans that we have taken, and these do not live."""
    found = [holder_of(root / "stacks" / stack / "lock") for root in _roots(state_dir)]
    return any(holder not in (None, but) for holder in found)


def take(path: Path, holder: str) -> StackDir:
    """Lock the stack in ``path``. LockHeldError where it lives."""
    return StackDir(path, FileLock(path / "lock", holder), new=(path / _NEW).exists())


def _roots(state_dir: Path) -> list[Path]:
    """Where stacks of this user may be: the shared directory, and the private ones in it. From a
    private stack's directory the shared one is found again by its place."""
    base = state_dir.parent.parent if state_dir.parent.name == PRIVATE else state_dir
    return [base, *_inside(base / PRIVATE)]


def _inside(directory: Path) -> list[Path]:
    """The directory's entries; none where another stack has just cleared it away."""
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _take(
    root: Path, account: str, holder: str, file: str | None
) -> tuple[list[StackDir], list[LiveStack]]:
    """The account's stacks there that have this file (None: no journal anywhere): those whose locks
    we could take, and those that others hold. Whoever calls it has to release the first.

    No stack has both files: one that moves to a database begins anew under another id, and its file
    is found as an orphan's.
    """
    free: list[StackDir] = []
    live: list[LiveStack] = []
    for path in _inside(root / "stacks"):
        if not path.name.startswith(prefix(account)):
            continue
        there = [name for name in (_JOURNAL, _IN_DATABASE) if (path / name).exists()]
        if there != ([] if file is None else [file]):
            continue
        try:
            free.append(take(path, holder))
        except LockHeldError as error:
            live.append(LiveStack(path, error.holder))
    return free, live


def _make(path: Path) -> None:
    """For this user alone: a journal holds prior URLs, and these may hold passwords. One of ours
    that others may enter is closed to them."""
    if path.is_dir() and path.stat().st_uid == os.geteuid() and path.stat().st_mode & 0o077:
        path.chmod(0o700)
    _look(make_private, path)


def _look(how: Callable[[Path], None], path: Path) -> None:
    """SettingsError where the directory is not this user's alone, or cannot be made."""
    for_setting(f"TRUNKLINE_STATE_DIR={str(path)!r}", how, path)


def journals(state_dir: Path) -> list[Path]:
    """The journals of all stacks of this directory, and of the private ones in it, whether they
    live or not. They are only read, for ``trunkline calls`` and the like, so no lock is taken."""
    roots = (state_dir, *_inside(state_dir / PRIVATE))
    return sorted(path for root in roots for path in root.glob(f"stacks/*/{_JOURNAL}"))
