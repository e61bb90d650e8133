"""The demo makes do without a home, and where its usual place cannot be written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from trunkline.demo import surroundings as around


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("home", [no_home, lambda: Path("/nonexistent")])
@pytest.mark.parametrize("before", [None, "/nonexistent"])
def test_a_home_for_as_long_as_it_lasts(
    monkeypatch: pytest.MonkeyPatch, home: Callable[[], Path], before: str | None
) -> None:
    monkeypatch.setattr(Path, "home", home)
    if before is None:
        monkeypatch.delenv("HOME", raising=False)
    else:
        monkeypatch.setenv("HOME", before)
    with around.home():
        made = Path(os.environ["HOME"])
        assert made.name.startswith("trunkline-home-") and os.access(made, os.W_OK)
    assert os.environ.get("HOME") == before
    assert not made.exists()


def test_a_home_that_there_is_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with around.home():
        assert os.environ["HOME"] == str(tmp_path)


def test_files_go_where_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert around.output(Path("there/it/is")) == tmp_path / "there/it/is"
    assert (tmp_path / "there/it/is").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        around.output(Path("file/x"))
    assert around.output(None) == tmp_path / "out/demo"


def test_files_go_elsewhere_where_their_place_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").write_text("in the way")
    made = [around.output(None)]
    (tmp_path / "out").unlink()
    (tmp_path / "out/demo").mkdir(parents=True)
    theirs = tmp_path / "out/demo/stack.log"
    theirs.write_text("another user's")
    # Root may write to anything, so this stands in for the system's answer.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).absolute() != theirs)
    made.append(around.output(None))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "demo")
    made.append(around.output(None))
    for each in made:
        assert each.is_dir() and each.name.startswith("trunkline-demo-out-")
        shutil.rmtree(each)
    assert len(set(made)) == 3


def test_scenario_without_a_home_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    import trunkline

    def imported(name: str) -> object:
        return no_home()

    monkeypatch.setattr("importlib.import_module", imported)
    monkeypatch.delitem(vars(trunkline), "TwilioAgentAdapter", raising=False)
    with pytest.raises(RuntimeError, match=r"^TwilioAgentAdapter needs .* set HOME to"):
        _ = trunkline.TwilioAgentAdapter
