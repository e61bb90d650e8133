"""A .env that is there is read, or refused by name; also by a bare Line."""

from __future__ import annotations

import asyncio
import os
import threading
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


def refused() -> str:
    """What is said of the file."""
    with pytest.raises(SettingsError) as caught:
        load()
    return str(caught.value)


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
    assert refused() == f"{path} {says}"


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ('A=1\n\nTWILIO_AUTH_TOKEN="abc\nB=2\n', 3),  # a quote that is not closed
        ("TWILIO_AUTH_TOKEN: abc\n", 1),  # YAML
        ("A=1\nset TWILIO_AUTH_TOKEN=abc\n", 2),  # cmd.exe
        ('$env:TWILIO_AUTH_TOKEN = "abc"\n', 1),  # PowerShell
        ("TWILIO_AUTH_TOKEN='a'bc'\n", 1),
        ("A=1\ntrunkline_public_url https://x.example\n", 2),
    ],
)
def test_a_line_of_ours_that_cannot_be_read_is_named(path: Path, line: str, number: int) -> None:
    """Else whoever wrote the token into it would be told that the token is missing."""
    path.write_text(line)
    assert refused() == (
        f"{path} cannot be read in line {number}: write NAME=value there, and close each quote "
        "that is opened"
    )


def test_what_else_stands_in_the_file_is_not_judged(path: Path) -> None:
    path.write_text("some words\n# TWILIO_AUTH_TOKEN: abc\nOTHER='it's'\n" + TEXT)
    assert load().account_sid == "AC1"


def test_a_pipe_is_read_as_a_file_is(path: Path) -> None:
    """Managers of secrets serve the file by a pipe, so that it never lies on a disk."""
    os.mkfifo(path)
    padding = "# so long that no pipe holds all of it at once\n" * 4_000

    def serve() -> None:
        path.write_text(padding + TEXT)

    server = threading.Thread(target=serve)
    server.start()
    try:
        assert load().account_sid == "AC1"
    finally:
        server.join()


def test_a_pipe_that_nobody_serves_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(path)
    monkeypatch.setattr(env_file, "PIPE_WITHIN", 0.1)
    assert refused() == (
        f"{path} is a pipe, and what serves it wrote no whole file into it within 0.1 s: start "
        "that program, or put a file there"
    )


def test_a_directory_and_a_broken_link_are_named(path: Path) -> None:
    path.mkdir()
    assert refused() == (
        f"{path} is a directory (a container engine makes one where the file to be mounted is "
        "missing): put a file there, or remove it"
    )
    path.rmdir()
    path.symlink_to("/nowhere/env")
    assert refused() == (
        f"{path} is a link to /nowhere/env, which does not exist: put the file there"
    )


def test_a_file_that_may_not_be_read_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)  # root may read anything
    assert refused() == (
        f"{path} may not be read by this user (uid {os.geteuid()}): `chmod u+r` it, `chown` it, or "
        "start in another directory"
    )


def test_a_disk_that_fails_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Path) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", broken)
    assert refused() == f"{path} cannot be read: Input/output error"


def test_a_bare_line_says_so_too(path: Path) -> None:
    path.write_bytes(TEXT.encode("utf-16"))
    with pytest.raises(SettingsError, match=rf"^{path} is UTF-16"):
        asyncio.run(Line("+14155551234").open())
