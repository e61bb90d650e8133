"""`trunkline init`: what it writes, and what it leaves."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from trunkline.cli.init import init
from trunkline.errors import SettingsError
from trunkline.starter.write import PYTEST, Written, write

TEST, SOUND = "tests/test_first_call.py", "tests/question.wav"


@pytest.fixture(autouse=True)
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, in which the command runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def left(done: Written) -> dict[str, str]:
    return {each.path: each.why for each in done.left}


def test_an_empty_directory_gets_everything(new: Path) -> None:
    done = write(Path())
    assert done.wrote == [".env", "pytest.ini", TEST, SOUND]
    assert done.left == []
    assert "TWILIO_AUTH_TOKEN=\n" in (new / ".env").read_text()
    assert stat.S_IMODE((new / ".env").stat().st_mode) == 0o600, "a token is to stand there"
    assert "asyncio_mode = auto\n" in (new / "pytest.ini").read_text()
    compile((new / TEST).read_text(), TEST, "exec")


def test_a_second_run_changes_nothing(new: Path) -> None:
    write(Path())
    (new / ".env").write_text("TWILIO_AUTH_TOKEN=mine\n")
    before = {path: path.read_bytes() for path in new.rglob("*") if path.is_file()}
    done = write(Path())
    assert done.wrote == []
    assert set(left(done)) == {".env", "pytest.ini", TEST, SOUND}
    assert {path: path.read_bytes() for path in new.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("text", ["", "[project]\nname = 'x'", "[project]\nname = 'x'\n"])
def test_a_pyproject_without_a_part_for_pytest_gets_one_at_its_end(new: Path, text: str) -> None:
    project = new / "pyproject.toml"
    project.write_text(text)
    assert "pyproject.toml" in write(Path()).wrote
    assert project.read_text().startswith(text)
    assert tomllib.loads(project.read_text())["tool"]["pytest"]["ini_options"] == PYTEST
    assert not (new / "pytest.ini").exists()


@pytest.mark.parametrize(
    ("name", "text", "advice"),
    [
        ("pyproject.toml", "[tool.pytest.ini_options]\naddopts = '-q'\n", 'asyncio_mode = "auto"'),
        ("pyproject.toml", "[tool.pytest]\naddopts = ['-q']\n", 'asyncio_mode = "auto"'),
        ("pytest.ini", "[pytest]\naddopts = -q\n", "asyncio_mode = auto"),
        ("pytest.ini", "", "asyncio_mode = auto"),
        ("tox.ini", "[pytest]\naddopts = -q\n", "asyncio_mode = auto"),
        ("setup.cfg", "[tool:pytest]\naddopts = -q\n", "asyncio_mode = auto"),
        ("setup.cfg", "[tool:pytest]\nasyncio_mode = auto\n", ""),
        ("pytest.toml", "[pytest]\nasyncio_mode = 'auto'\n", ""),
    ],
)
def test_settings_of_pytest_that_are_there_are_left(
    new: Path, name: str, text: str, advice: str
) -> None:
    (new / name).write_text(text)
    done = write(Path())
    why = left(done)[name]
    assert ("add: " + advice in why) if advice else why == "pytest's settings are there"
    assert (new / name).read_text() == text
    assert not {"pytest.ini", "pyproject.toml"} & set(done.wrote)


@pytest.mark.parametrize("name", ["tox.ini", "setup.cfg"])
def test_a_file_that_has_other_settings_counts_for_nothing(new: Path, name: str) -> None:
    (new / name).write_text("[other]\nx = 1\n")
    assert "pytest.ini" in write(Path()).wrote


@pytest.mark.parametrize("directory", ["", "voice"])
@pytest.mark.parametrize("ignored", [".env", "/.env", "**/.env", "*env"])
def test_a_repository_should_not_take_the_token_along(
    new: Path, directory: str, ignored: str
) -> None:
    subprocess.run(["git", "init", "--quiet", str(new)], check=True)  # noqa: S607  # this machine's
    assert "add the line .env" in left(write(Path(directory)))[".gitignore"]
    (new / directory / ".gitignore").write_text(f"/out\n{ignored}\n")
    assert ".gitignore" not in left(write(Path(directory)))


def test_another_directory_is_made_and_entered_first(new: Path) -> None:
    done = write(Path("a/b"))
    assert (new / "a/b" / TEST).is_file()
    assert done.next[0][0] == "cd a/b"


def test_the_way_into_a_directory_can_be_pasted(new: Path) -> None:
    assert write(Path("my tests")).next[0][0] == "cd 'my tests'"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pyproject.toml", "tool = 1\n"),
        ("pyproject.toml", "[tool]\npytest = 1\n"),
        ("pyproject.toml", "[tool.pytest]\nini_options = 1\n"),
        ("pytest.toml", "pytest = 1\n"),
    ],
)
def test_a_file_in_which_pytest_has_no_table_is_named(new: Path, name: str, text: str) -> None:
    (new / name).write_text(text)
    with pytest.raises(SettingsError, match=rf"{name} cannot be read: .* is not a table"):
        write(Path())


def test_pytest_that_is_missing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert write(Path()).next[0][0] == "pip install 'trunkline[pytest]'"


@pytest.mark.parametrize("text", ["[project", "\xff"])
def test_a_pyproject_that_cannot_be_read_is_named(new: Path, text: str) -> None:
    (new / "pyproject.toml").write_text(text, encoding="latin-1")
    with pytest.raises(SettingsError, match=r"pyproject\.toml cannot be read"):
        write(Path())
    assert (new / "pyproject.toml").read_text(encoding="latin-1") == text


def test_a_directory_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied", ".env")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(SettingsError, match=r"\.env: it cannot be written: Permission denied"):
        write(Path())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
def test_no_part_of_a_file_is_left_on_a_full_disk(
    new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real = [], os.open

    def full(path: Path, flags: int, mode: int = 0o777) -> int:
        made.append(path)
        os.close(real(path, flags, mode))
        return real("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(SettingsError, match=r"^\.env: it cannot be written: No space left"):
        write(Path())
    assert made == [Path(".env")] and not (new / ".env").exists()


def test_the_command_says_what_it_wrote_and_what_comes_next() -> None:
    said = CliRunner().invoke(init, []).output.splitlines()
    assert said[:4] == [f"wrote  {name}" for name in (".env", "pytest.ini", TEST, SOUND)]
    assert said[4] == "next:"
    assert any(line.startswith("  pytest --phone-sim ") for line in said[5:])
    told: dict[str, Any] = json.loads(CliRunner().invoke(init, ["--json"]).output)
    assert told["wrote"] == [] and len(told["left"]) == 4
