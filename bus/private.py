"""Directories that are this user's alone: the bus's, the journal's, those of locks.

A bus directory holds sockets over which secrets go, and a state directory prior URLs with their
passwords. Whoever can put another directory, or a link, into the place of one of these gets the
secrets, or has us write over a file of our own. So the whole way to the directory is looked at,
link by link, and a wrong one is refused with the command that mends it:

- The directory itself belongs to this user, and nobody else may enter it.
- What leads to it (directories, and links) belongs to this user or to the system. The system is
  root, or the owner of ``/``, which has another number in a user namespace.
- Nobody else may write to these directories, up to the next one that is sticky, as ``/tmp`` is:
  there only its owner can put something else into an entry's place.

There are two exceptions. A group of this process that has no name on this machine counts as this
user's own: Kubernetes puts the process into the fsGroup of its pod, and lets that group write to
each volume. And where root has another user's HOME (``sudo -E``, a CI job in a container), it runs
that user's files already, so that user may own what leads to a directory of root's.

For example, ``/tmp/mine/bus`` is refused where another user has made ``/tmp/mine``, and
``/data/bus`` where ``/data`` has the mode 0777.
"""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from .errors import SettingsError

_ROOT: Final = 0
#: As many links as Linux follows.
_MOST_LINKS: Final = 40
#: Bits of a mode: the rights of others in a directory.
ENTER: Final = 0o077
WRITE: Final = 0o022


class NotPrivateError(SettingsError):
    """A directory, a file in it, or something on the way to it is not this user's alone."""


def for_setting(setting: str, how: Callable[[Path], None], directory: Path) -> None:
    """Make or check a directory that a setting names. Any failure is a SettingsError that begins
    with ``setting``, its name and value. ``how``: make_private or check_private."""
    try:
        how(directory)
    except NotPrivateError as error:
        raise SettingsError(f"{setting}: {error}") from None
    except OSError as error:
        what = "made" if how is make_private else "looked at"
        why = f"{directory} cannot be {what}: {error.strerror}"
        raise SettingsError(f"{setting}: {why}") from error


def make_private(directory: Path, *, others_may_not: int = ENTER) -> None:
    """Make the directory, and any that is missing on the way to it, for this user alone, and check
    it as :func:`check_private`. OSError where it cannot be made."""
    missing = directory
    making = []
    while not missing.exists():
        making.append(missing)
        missing = missing.parent
    for path in reversed(making):
        path.mkdir(mode=0o700, exist_ok=True)
    if not directory.is_dir():
        directory.mkdir()  # raises the error that says so
    check_private(directory, others_may_not=others_may_not)


def check_private(directory: Path, *, others_may_not: int = ENTER) -> None:
    """NotPrivateError unless the directory is this user's alone, and stays so. One that does not
    exist (yet) passes. ``others_may_not``: the bits of a mode that it must not have."""
    found = list(_way(directory))
    if not found or not found[-1][2]:
        return
    trusted = {os.geteuid(), _ROOT, os.lstat("/").st_uid, *_owner_of_roots_home()}
    *way, (path, info, _) = found
    held = False  # a sticky directory holds what is in it, whoever may write above
    for above, of, _ in reversed(way):
        is_link = stat.S_ISLNK(of.st_mode)
        if is_link or not held:
            _check_above(above, of, directory, trusted)
        held = not is_link and (held or bool(of.st_mode & stat.S_ISVTX))
    if info.st_uid != os.geteuid():
        raise NotPrivateError(
            f"{path} belongs to another user (uid {info.st_uid}): name a directory of yours, or "
            f"`chown {os.geteuid()} {path}`"
        )
    if _has_our_nameless_group(info):
        others_may_not &= ~stat.S_IRWXG
    if info.st_mode & others_may_not:
        raise NotPrivateError(
            f"{path} must belong to you alone, and its mode is {_mode(info)}: `chmod 700 {path}`"
        )


def _check_above(path: Path, info: os.stat_result, to: Path, trusted: set[int]) -> None:
    """A directory or a link on the way."""
    what = "the link " if stat.S_ISLNK(info.st_mode) else ""
    if info.st_uid not in trusted:
        raise NotPrivateError(
            f"{what}{path} belongs to another user (uid {info.st_uid}), who could put another "
            f"directory into the place of {to}: name a directory of yours"
        )
    if what or info.st_mode & stat.S_ISVTX or not info.st_mode & _written_by_others(info, trusted):
        return
    raise NotPrivateError(
        f"others may write to {path} (mode {_mode(info)}), and so could put another directory into "
        f"the place of {to}: `chmod go-w {path}`, or name another directory"
    )


def _written_by_others(info: os.stat_result, trusted: set[int]) -> int:
    """The bits of the mode that let others write. Many systems give each user a group of its own,
    with the user's number, and let it write."""
    own_group = info.st_gid == info.st_uid and info.st_gid in trusted
    if own_group or _has_our_nameless_group(info):
        return stat.S_IWOTH
    return stat.S_IWOTH | stat.S_IWGRP


def _has_our_nameless_group(info: os.stat_result) -> bool:
    """This process is in its group, which has no name on this machine, and so no member by name."""
    if info.st_gid not in (os.getegid(), *os.getgroups()):
        return False
    try:
        grp.getgrgid(info.st_gid)
    except KeyError:
        return True
    return False


def _owner_of_roots_home() -> set[int]:
    """Who owns the directory that root has as HOME; nobody for another user than root."""
    home = os.environ.get("HOME")
    if os.geteuid() != _ROOT or not home:
        return set()
    try:
        info = Path(home).stat()
    except OSError:
        return set()
    return {info.st_uid} if stat.S_ISDIR(info.st_mode) else set()


def _mode(info: os.stat_result) -> str:
    return f"{stat.S_IMODE(info.st_mode):04o}"


def _way(directory: Path) -> Iterator[tuple[Path, os.stat_result, bool]]:
    """Each entry that the kernel meets on its way to the directory, which is the last: (path,
    lstat, whether it is the end). It ends early at an entry that is missing."""
    here = Path("/")
    todo = list(directory.absolute().parts[1:])
    links = 0
    yield here, os.lstat(here), not todo
    while todo:
        step = here / todo.pop(0)
        if step.name == "..":
            here = here.parent
            continue
        try:
            info = os.lstat(step)
        except (FileNotFoundError, NotADirectoryError):
            return
        is_link = stat.S_ISLNK(info.st_mode)
        yield step, info, not todo and not is_link
        if not is_link:
            here = step
            continue
        links += 1
        if links > _MOST_LINKS:
            raise NotPrivateError(f"{directory} leads through too many links")
        target = step.readlink()
        todo = [*target.parts[target.is_absolute() :], *todo]
        here = Path("/") if target.is_absolute() else here


def open_private_file(path: Path, flags: int) -> int:
    """Open a file of ours in a private directory, and no link; the descriptor, which no child
    inherits. NotPrivateError where the directory or the file is another user's, where others may
    write to it, or where it is no file."""
    directory = os.open(os.path.realpath(path.parent), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        above = os.fstat(directory)
        if above.st_uid != os.geteuid():
            raise NotPrivateError(
                f"{path.parent} belongs to another user (uid {above.st_uid}): name a directory of "
                f"yours, or `chown {os.geteuid()} {path.parent}`"
            )
        if above.st_mode & _written_by_others(above, {os.geteuid(), _ROOT}):
            raise NotPrivateError(
                f"others may write to {path.parent} (mode {_mode(above)}): "
                f"`chmod 700 {path.parent}`"
            )
        try:
            # A pipe of this name would be waited for.
            flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(path.name, flags, 0o600, dir_fd=directory)
        except OSError as error:
            if path.is_symlink():
                raise NotPrivateError(
                    f"{path} is a link, not a file of ours: `rm {path}`"
                ) from error
            # It was opened by its name alone, and the error is to name the whole path.
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(directory)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(descriptor)
        raise NotPrivateError(
            f"{path} is no file of ours (uid {found.st_uid}, {stat.filemode(found.st_mode)}): "
            f"`rm {path}`"
        )
    return descriptor
