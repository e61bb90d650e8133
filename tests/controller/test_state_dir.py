"""Who has a state directory or a bus directory is named; who only looks makes nothing there."""

from __future__ import annotations

from pathlib import Path

import pytest

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
