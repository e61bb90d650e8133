"""A .env that is there is read, or refused by name; also by a bare Line."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trunkline import Line
from trunkline.bus import env_file
from trunkline.bus.settings import load
from trunkline.errors import SettingsError

TEXT = "TWILIO_ACCOUNT_SID=AC1\nexport TRUNKLINE_HTTP_PORT=7 # seven\nBARE\n"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".env"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf8_is_read_with_and_without_a_byte_order_mark(path: Path, encoding: str) -> None:
    path.write_text(TEXT, encoding)
    assert env_file.read(path) == {"TWILIO_ACCOUNT_SID": "AC1", "TRUNKLINE_HTTP_PORT": "7"}
    settings = load()
    assert (settings.account_sid, settings.http_port) == ("AC1", 7)


def test_no_file_and_a_virtual_environment_of_that_name_are_nothing(path: Path) -> None:
    assert env_file.read(path) == {}
    path.mkdir()
    (path / "pyvenv.cfg").write_text("home = /usr/bin\n")
    assert env_file.read(path) == {}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            TEXT.encode("utf-16"),
            "is UTF-16 (as PowerShell's > and some editors write it): save it as UTF-8",
        ),
        (
            b"\xfe\xff" + TEXT.encode("utf-16-be"),
            "is UTF-16 (as PowerShell's > and some editors write it): save it as UTF-8",
        ),
        (
            TEXT.encode("utf-16-le"),
            "holds NUL bytes, so it is no text in UTF-8: save it as UTF-8",
        ),
        (
            b"A=1\0\n",
            "holds NUL bytes, so it is no text in UTF-8: save it as UTF-8",
        ),
        (
            "A=1\n# caf\xe9\n".encode("latin-1"),
            "is not UTF-8 (byte 0xe9 in line 2): save it as UTF-8",
        ),
    ],
)
def test_another_encoding_is_named(path: Path, content: bytes, says: str) -> None:
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value) == f"{path} {says}"


def test_a_directory_and_a_broken_link_are_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value) == (
        f"{path} is a directory (a container engine makes one where the file to be mounted is "
        "missing): put a file there, or remove it"
    )
    path.rmdir()
    path.symlink_to("/nowhere/env")
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value) == (
        f"{path} is a link to /nowhere/env, which does not exist: put the file there"
    )


def test_a_file_that_may_not_be_read_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)  # root may read anything
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value) == (
        f"{path} may not be read by this user (uid {os.geteuid()}): `chmod u+r` it, `chown` it, or "
        "start in another directory"
    )


def test_a_disk_that_fails_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Path) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", broken)
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value) == f"{path} cannot be read: Input/output error"


def test_a_bare_line_says_so_too(path: Path) -> None:
    path.write_bytes(TEXT.encode("utf-16"))
    with pytest.raises(SettingsError, match=rf"^{path} is UTF-16"):
        asyncio.run(Line("+14155551234").open())


def test_every_command_says_so_in_one_line(path: Path) -> None:
    path.write_bytes(TEXT.encode("utf-16"))
    argv = [sys.executable, "-P", "-m", "trunkline", "status"]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=30, cwd=path.parent)
    assert (ended.returncode, ended.stderr) == (
        1,
        f"trunkline: {path} is UTF-16 (as PowerShell's > and some editors write it): "
        "save it as UTF-8\n",
    )
