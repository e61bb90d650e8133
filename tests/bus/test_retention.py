"""Which recordings are deleted, and that nothing else ever is."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trunkline.bus.retention import OVER_AFTER, Kept, Retention, too_many
from trunkline.gateway.recording import Recorder

DAY, MB = 86_400.0, 1_000_000
NOW = 1_000 * DAY


def kept(name: str, days_ago: float, size: int = MB) -> Kept:
    return Kept(Path(name), NOW - days_ago * DAY, size)


FOUND = [kept("c", 1), kept("a", 3, 3 * MB), kept("b", 2, 2 * MB), kept("live", 0)]


@pytest.mark.parametrize(
    ("days", "megabytes", "gone"),
    [
        (None, None, ""),
        (2.5, None, "a"),
        (1.5, None, "ab"),
        (None, 7.0, ""),
        (None, 6.9, "a"),
        (None, 2.0, "ab"),
        (2.5, 3.9, "ab"),
        (2.5, 4.0, "a"),
    ],
)
def test_the_oldest_go_first(days: float | None, megabytes: float | None, gone: str) -> None:
    assert [str(path) for path in too_many(FOUND, NOW, days, megabytes)] == list(gone)


def test_a_file_that_may_still_grow_stays_whatever_the_limits_say() -> None:
    found = [kept("live", (OVER_AFTER - 1) / DAY), kept("over", (OVER_AFTER + 1) / DAY)]
    assert too_many(found, NOW, 1e-6, 1e-6) == [Path("over")]


@pytest.fixture
def old(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a file that was written long ago."""

    def make(name: str) -> Path:
        path = tmp_path / name
        path.write_bytes(b"x" * 1000)
        os.utime(path, (NOW - 9 * DAY, NOW - 9 * DAY))
        return path

    return make


def test_only_recordings_are_deleted_and_at_most_once_a_minute(
    tmp_path: Path, old: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock = [0.0]
    retention = Retention(days=7, wall=lambda: NOW, clock=lambda: clock[0])
    old("20200101T000000-CA1.wav")
    others = [old(name) for name in ("music.wav", "20200101-CA1.wav", "20200101T000000-CA1.txt")]
    retention.apply(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(others)
    assert "1 recordings were deleted" in caplog.text
    later = old("20200101T000000-CA2.wav")
    clock[0] = 59.0
    retention.apply(tmp_path)
    assert later.exists()
    clock[0] = 60.0
    retention.apply(tmp_path)
    assert not later.exists()


def test_the_recorder_deletes_at_its_start_and_as_streams_end(
    tmp_path: Path, old: Callable[[str], Path]
) -> None:
    first = old("20200101T000000-CA1.wav")
    clock = iter(range(0, 10_000, 60))
    retention = Retention(days=7, clock=lambda: next(clock))
    recorder = Recorder(tmp_path, retention)
    track = recorder.begin("CA3", 1, first=True, age=0.0)
    while first.exists():
        pass
    second = old("20200101T000000-CA2.wav")
    recorder.end(track)
    recorder.close()
    assert not second.exists()
    assert len(list(tmp_path.iterdir())) == 1


def test_without_a_limit_nothing_goes(tmp_path: Path, old: Callable[[str], Path]) -> None:
    path = old("20200101T000000-CA1.wav")
    Recorder(tmp_path).close()
    assert path.exists()


def test_a_directory_that_cannot_be_read_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Retention(days=1).apply(tmp_path / "gone")
    assert "recordings cannot be deleted, although a limit is set" in caplog.text
