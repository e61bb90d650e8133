"""Directories for sockets: the system's where it is short enough, else a short one under /tmp."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import platformdirs
import pytest

from trunkline.bus import runtime_dir
from trunkline.bus.endpoints import BusAddress, fits_socket
from trunkline.bus.settings import load


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> list[Path | Exception]:
    """What platformdirs says, to be replaced."""
    said: list[Path | Exception] = [Path("/run/user/7/trunkline")]

    def user_runtime_path(name: str) -> Path:
        assert name == "trunkline"
        if isinstance(said[0], Exception):
            raise said[0]
        return said[0]

    monkeypatch.setattr(platformdirs, "user_runtime_path", user_runtime_path)
    return said


def test_the_systems_directory_is_taken(system: list[Path | Exception]) -> None:
    assert runtime_dir.runtime_path() == Path("/run/user/7/trunkline")
    assert load(env_file=None).bus == "ipc:///run/user/7/trunkline/bus"


def test_a_long_one_is_shortened_and_the_same_each_time(system: list[Path | Exception]) -> None:
    system[0] = Path("/very" + "/long" * 20)
    short = runtime_dir.runtime_path()
    assert short == runtime_dir.runtime_path()
    assert short.parent == Path("/tmp") and short.name.startswith(f"trunkline-{os.geteuid()}-")
    assert load(env_file=None).bus == f"ipc://{short}/bus"
    system[0] = Path("/very" + "/long" * 21)
    assert runtime_dir.runtime_path() != short


@pytest.mark.parametrize(
    "said", [Path("~/Library/x"), RuntimeError("no home"), PermissionError(13, "not yours")]
)
def test_without_a_home_there_is_one_all_the_same(
    system: list[Path | Exception], said: Path | Exception
) -> None:
    system[0] = said
    assert runtime_dir.runtime_path().parent == Path("/tmp")


def test_a_long_tmpdir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on macOS and on some CI runners; the whole way, with a socket at its end."""
    long = tmp_path / ("x" * 60) / ("y" * 60)
    long.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    for name in ("XDG_RUNTIME_DIR", "HOME"):
        monkeypatch.delenv(name, raising=False)
    made = runtime_dir.temporary_directory("trunkline-x-")
    try:
        assert made.parent == Path("/tmp") and made.stat().st_mode & 0o777 == 0o700
        address = BusAddress.parse(f"ipc://{made}/twilio")
        address.make_directory()
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(address.worker().removeprefix("ipc://"))
    finally:
        shutil.rmtree(made)
    default = load(env_file=None).address
    assert default.directory is not None and fits_socket(default.directory)


def test_a_short_tmpdir_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        assert runtime_dir.temporary_directory("trunkline-").parent == Path(short)


HOLDS = """
import subprocess, sys
from trunkline.bus.runtime_dir import held_directory
with held_directory("trunkline-x-") as (path, lock):
    print(path, flush=True)
    subprocess.run([sys.executable, "-c", "print(flush=True); input()"], pass_fds=[lock])
"""


def test_a_directory_whose_holders_were_killed_is_removed_by_the_next(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And by nobody as long as one of them lives, here the child. Directories of others stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(short_directory))
    other = short_directory / "trunkline-x-other"
    other.mkdir()
    (short_directory / "trunkline-x-link").symlink_to(other)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS],
        env={**os.environ, "TMPDIR": str(short_directory)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holding:
        assert holding.stdin is not None and holding.stdout is not None
        left = Path(holding.stdout.readline().strip())
        assert holding.stdout.readline() == "\n"
        holding.kill()
        holding.wait()
        with runtime_dir.held_directory("trunkline-x-") as (path, _):
            assert path.parent == left.parent and left.is_dir()
        holding.stdin.close()
        assert holding.stdout.read() == "", "the child has ended"
    with runtime_dir.held_directory("trunkline-x-") as (path, _):
        (path / "file").touch()
        assert not left.exists()
    assert {each.name for each in short_directory.iterdir()} == {other.name, "trunkline-x-link"}
