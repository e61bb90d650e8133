"""Directories that are this user's alone: whoever could get at one is named, with what mends it.

Another user is made by chown where the tests run as root, and by another own number elsewhere.
"""

from __future__ import annotations

import grp
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trunkline.bus.locks import FileLock, holder_of
from trunkline.bus.private import WRITE, NotPrivateError, check_private, make_private

OTHER = 4711


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], int]:
    """Make a path another user's; returns that user's number."""

    def give(path: Path) -> int:
        me = os.geteuid()
        if me == 0:
            os.chown(path, OTHER, -1, follow_symlinks=False)
            return OTHER
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
        return me

    return give


def refused(directory: Path) -> str:
    with pytest.raises(NotPrivateError) as caught:
        check_private(directory)
    return str(caught.value)


def test_a_directory_and_what_is_missing_above_it_are_made_for_us_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_private(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    for made in (tmp_path / "a", tmp_path / "a" / "b"):
        assert made.stat().st_mode & 0o777 == 0o700
    make_private(tmp_path / "a" / "b")


def test_what_is_not_there_is_nobodys_and_is_not_made(tmp_path: Path) -> None:
    check_private(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_one_that_others_may_enter_comes_with_the_command_that_closes_it(
    mode: int, tmp_path: Path
) -> None:
    path = tmp_path / "mine"
    path.mkdir()
    path.chmod(mode)
    assert refused(path) == (
        f"{path} must belong to you alone, and its mode is {mode:04o}: `chmod 700 {path}`"
    )
    path.chmod(0o700)
    check_private(path)


def test_one_that_others_only_read_may_hold_locks(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.mkdir()
    path.chmod(0o755)
    make_private(path, others_may_not=WRITE)


def test_another_users_is_refused(tmp_path: Path, give_away: Callable[[Path], int]) -> None:
    path = tmp_path / "theirs"
    path.mkdir(mode=0o700)
    theirs = give_away(path)
    says = f" belongs to another user (uid {theirs})"
    assert says in refused(path)
    if os.geteuid() == 0:
        assert refused(path) == f"{path}{says}: name a directory of yours, or `chown 0 {path}`"


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_a_parent_that_others_write_to_is_refused_unless_it_is_sticky(
    mode: int, tmp_path: Path
) -> None:
    """However far above it is, but for a sticky one between: they could put another directory into
    our place."""
    above = tmp_path / "above"
    path = above / "between" / "bus"
    make_private(path)
    if os.geteuid() == 0:
        os.chown(above, -1, OTHER)  # a group with members
    above.chmod(mode)
    assert refused(path) == (
        f"others may write to {above} (mode {mode:04o}), and so could put another directory into "
        f"the place of {path}: `chmod go-w {above}`, or name another directory"
    )
    above.chmod(mode | 0o1000)
    check_private(path)
    above.chmod(mode)
    path.parent.chmod(0o1777)
    check_private(path)


def test_a_group_of_the_users_own_may_write_above(tmp_path: Path) -> None:
    above = tmp_path / "above"
    make_private(above / "bus")
    os.chown(above, -1, os.getegid())
    above.chmod(0o775)
    if os.getegid() == os.geteuid():
        check_private(above / "bus")
    else:
        assert "others may write" in refused(above / "bus")


@pytest.fixture
def nameless_group(monkeypatch: pytest.MonkeyPatch) -> int:
    """A group of this process that has no name here, as the fsGroup of a pod."""

    def no_name(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(grp, "getgrgid", no_name)
    if os.geteuid() != 0:
        return os.getegid()
    monkeypatch.setattr(os, "getgroups", lambda: [OTHER])
    return OTHER


def test_the_nameless_group_of_a_pods_volume_may_write_above(
    tmp_path: Path, nameless_group: int
) -> None:
    """Kubernetes gives the volume, and at each later start all that is in it, to that group."""
    volume = tmp_path / "volume"
    make_private(volume / "bus")
    for path, mode in ((volume, 0o2775), (volume / "bus", 0o2770)):
        os.chown(path, -1, nameless_group)
        path.chmod(mode)
    check_private(volume / "bus")
    FileLock(volume / "bus" / "lock", "us").release()
    volume.chmod(0o2777)
    assert f"others may write to {volume} (mode 2777)" in refused(volume / "bus")


def test_a_nameless_group_of_others_may_not_write_above(
    tmp_path: Path, nameless_group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = tmp_path / "volume"
    make_private(volume / "bus")
    os.chown(volume, -1, nameless_group)
    volume.chmod(0o2775)
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(os, "getegid", lambda: OTHER + 1)
    assert f"others may write to {volume} (mode 2775)" in refused(volume / "bus")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have another user's home")
def test_root_may_use_the_home_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a CI job's container, whose HOME is the runner's, or with ``sudo -E``."""
    home = tmp_path / "home"
    make_private(home / "state" / "trunkline")
    for path in (home, home / "state"):
        os.chown(path, OTHER, OTHER)
        path.chmod(0o775)
    assert f"{home / 'state'} belongs to another user" in refused(home / "state" / "trunkline")
    monkeypatch.setenv("HOME", str(home))
    check_private(home / "state" / "trunkline")
    os.chown(home / "state", OTHER + 1, -1)
    assert f"{home / 'state'} belongs to another user" in refused(home / "state" / "trunkline")
    monkeypatch.setenv("HOME", str(home / "nothing"))
    assert "belongs to another user" in refused(home / "state" / "trunkline")


def test_a_sticky_parent_does_not_make_another_users_entry_ours(
    tmp_path: Path, give_away: Callable[[Path], int]
) -> None:
    tmp_path.chmod(0o1777)
    make_private(tmp_path / "squatted" / "bus")
    give_away(tmp_path / "squatted")
    assert "belongs to another user" in refused(tmp_path / "squatted" / "bus")


def test_links_of_ours_are_followed_and_looked_at_on_the_way(tmp_path: Path) -> None:
    make_private(tmp_path / "real" / "bus")
    (tmp_path / "one").symlink_to("real")
    (tmp_path / "two").symlink_to(tmp_path / "one" / ".." / "one")
    check_private(tmp_path / "two" / "bus")
    (tmp_path / "real").chmod(0o777)
    assert f"others may write to {tmp_path}/real " in refused(tmp_path / "two" / "bus")


def test_another_users_link_is_refused(tmp_path: Path, give_away: Callable[[Path], int]) -> None:
    """Its owner may turn it elsewhere at any time, though today it leads to what is ours."""
    tmp_path.chmod(0o1777)
    make_private(tmp_path / "mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    give_away(tmp_path / "link")
    assert "belongs to another user" in refused(tmp_path / "link")


def test_links_that_lead_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "through too many links" in refused(tmp_path / "a" / "bus")


# --------------------------------------------------------------------------- locks


def test_a_link_in_a_locks_place_is_neither_followed_nor_written_over(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("a file of ours")
    (tmp_path / "lock").symlink_to(precious)
    for look in (lambda path: FileLock(path, "us"), holder_of):
        with pytest.raises(NotPrivateError) as caught:
            look(tmp_path / "lock")
        path = tmp_path / "lock"
        assert str(caught.value) == f"{path} is a link, not a file of ours: `rm {path}`"
    assert precious.read_text() == "a file of ours"


def test_a_pipe_in_a_locks_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    for look in (lambda path: FileLock(path, "us"), holder_of):
        with pytest.raises(NotPrivateError, match=r"lock is no file of ours \(uid \d+, prw"):
            look(tmp_path / "lock")


def test_no_lock_is_taken_in_another_users_directory(
    tmp_path: Path, give_away: Callable[[Path], int]
) -> None:
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(0o777)
    with pytest.raises(NotPrivateError, match=r"others may write to .*: `chmod 700 "):
        FileLock(path / "lock", "us")
    give_away(path)
    with pytest.raises(NotPrivateError, match="belongs to another user"):
        FileLock(path / "lock", "us")
    assert list(path.iterdir()) == []


def test_a_lock_that_another_user_made_is_not_ours(
    tmp_path: Path, give_away: Callable[[Path], int]
) -> None:
    (tmp_path / "lock").write_text("")
    if os.geteuid() == 0:
        give_away(tmp_path / "lock")
        with pytest.raises(NotPrivateError, match=f"no file of ours \\(uid {OTHER}, "):
            FileLock(tmp_path / "lock", "us")
