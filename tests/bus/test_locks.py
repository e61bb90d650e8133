"""A lock keeps others out, also while its holder removes the file."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

from trunkline.bus.locks import FileLock, LockHeldError, holder_of


def test_the_holder_is_named_and_the_next_one_gets_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = FileLock(path, "the first")
    with pytest.raises(LockHeldError, match="held by the first"):
        FileLock(path, "the second")
    first.release()
    assert path.exists() and holder_of(path) is None
    second = FileLock(path, "2nd")
    assert holder_of(path) == "2nd"
    second.remove()
    second.remove()
    assert list(tmp_path.iterdir()) == []


def meanwhile(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """It happens once somebody has opened the file, and before the lock is asked for."""
    real = fcntl.flock

    def flock(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        happens()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)


def test_who_has_opened_a_file_that_is_removed_takes_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    first = FileLock(path, "the first")
    meanwhile(monkeypatch, first.remove)
    second = FileLock(path, "the second")
    assert holder_of(path) == "the second"
    with pytest.raises(LockHeldError, match="held by the second"):
        FileLock(path, "the third")
    second.release()


def test_who_comes_first_to_the_next_file_has_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    first = FileLock(path, "the first")
    got: list[FileLock] = []

    def overtake() -> None:
        first.remove()
        got.append(FileLock(path, "the third"))

    meanwhile(monkeypatch, overtake)
    with pytest.raises(LockHeldError, match="held by the third"):
        FileLock(path, "the second")
    got[0].remove()


def test_only_ones_own_file_is_removed(tmp_path: Path) -> None:
    """Somebody has cleared the directory away, and another process has made the file anew."""
    path = tmp_path / "lock"
    first = FileLock(path, "the first")
    path.unlink()
    second = FileLock(path, "the second")
    first.remove()
    assert holder_of(path) == "the second"
    second.remove()
