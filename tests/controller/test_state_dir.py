"""Who has a state directory or a bus directory is named; who only looks makes nothing there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trunkline.bus.errors import SettingsError
from trunkline.controller.journal import state_dir
from trunkline.controller.journal.state_dir import StackRunsError


def test_who_only_looks_makes_nothing(tmp_path: Path) -> None:
    state_dir.check_free(tmp_path / "state", tmp_path / "bus")
    state_dir.check_free(None, None)
    assert list(tmp_path.iterdir()) == []


def test_who_has_one_is_named(tmp_path: Path) -> None:
    state, bus = tmp_path / "state", tmp_path / "bus"
    where = {"TRUNKLINE_STATE_DIR": f"{state}", "TRUNKLINE_BUS": f"ipc://{bus}"}
    locks = [state_dir.lock_state_dir(state, "the first"), state_dir.lock_bus_dir(bus, "the first")]
    for name, check, lock in (
        ("TRUNKLINE_STATE_DIR", (state, None), state_dir.lock_state_dir),
        ("TRUNKLINE_BUS", (None, bus), state_dir.lock_bus_dir),
    ):
        said = f"the first already runs on {name}={where[name]}; end it"
        with pytest.raises(StackRunsError, match=said):
            state_dir.check_free(*check)
        with pytest.raises(StackRunsError, match=said):
            lock(Path(where[name].removeprefix("ipc://")), "the second")
    for lock in locks:
        lock.release()
    state_dir.check_free(state, bus)


@pytest.mark.parametrize("below", ["", "/deep/below"])
def test_one_that_cannot_be_used_is_named_with_its_setting(tmp_path: Path, below: str) -> None:
    """``trunkline up`` only looks, a controller takes it: both say the same of a file."""
    (tmp_path / "file").write_text("")
    wrong = Path(f"{tmp_path}/file{below}")
    said = f"TRUNKLINE_STATE_DIR='{wrong}': {tmp_path}/file is not a directory"
    with pytest.raises(SettingsError, match=said):
        state_dir.check_free(wrong, None)
    with pytest.raises(SettingsError, match=said):
        state_dir.lock_state_dir(wrong, "the first")


def test_a_link_that_cannot_be_followed_is_named(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gone")
    for one in (link, link / "below"):
        said = f"TRUNKLINE_STATE_DIR='{one}': {link} cannot be looked at: No such file"
        with pytest.raises(SettingsError, match=said):
            state_dir.check_free(one, None)


def test_one_that_this_user_may_not_write_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everywhere, so the system's word is a stand-in's."""
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    said = f"TRUNKLINE_STATE_DIR='{tmp_path}/a/b': {tmp_path} cannot be written by this user"
    with pytest.raises(SettingsError, match=said):
        state_dir.lock_state_dir(tmp_path / "a/b", "the first")


def test_one_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In /proc root may write, as far as the system says beforehand, and makes nothing."""

    def refuse(path: Path, **_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    said = f"TRUNKLINE_STATE_DIR='{tmp_path}/a': {tmp_path}/a cannot be made: No such file"
    with pytest.raises(SettingsError, match=said):
        state_dir.lock_state_dir(tmp_path / "a", "the first")
