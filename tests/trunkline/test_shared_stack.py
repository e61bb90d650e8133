"""How the shared stack of a test run ended is said at the end of the run."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trunkline.bus.settings import load
from trunkline.stack import shared_stack
from trunkline.stack.shared_stack import RunDirectory


@pytest.fixture
def run() -> Iterator[RunDirectory]:
    """A run's directory, which is removed where the run itself keeps it, because of a problem."""
    made = RunDirectory()
    yield made
    shutil.rmtree(made.path, ignore_errors=True)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("supervisor[1] INFO ended with status 0", None),
        ('{"message": "ended with status 0"}', None),
        ("ended with status 3", "numbers are still to be put back: run `trunkline restore`"),
        ("ended with status 0\nended with status 1", "the sim stack ended badly (status 1"),
        ("what the last process said", "the sim stack ended badly (killed"),
    ],
)
def test_an_end_that_was_not_good_is_a_problem(
    run: RunDirectory, said: str, problem: str | None
) -> None:
    (run.path / "sim.log").write_text(f"{said}\n")
    found = run.close()
    assert run.path.exists() == (problem is not None)
    if problem is None:
        assert found == []
    else:
        (text,) = found
        assert text.startswith(problem)
        assert str(run.path) in text


def test_a_stack_that_does_not_end_is_not_waited_for_for_ever(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_stack, "ENDED_WITHIN", 0.1)
    with (run.path / "sim.log").open("w") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        (text,) = run.close()
    assert text.startswith("the sim stack did not end in time")


def test_the_users_own_settings_with_a_state_directory_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts beside any stack of the user, and that one's next start finds its journal."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-x")
    settings = load(
        env_file=None,
        account_sid="AC7",
        auth_token="token",
        numbers="+14155550100",
        console_port=8766,
        state_dir=tmp_path / "state",
    )
    wanted = shared_stack.twilio(tmp_path / "run-1", settings, "ngrok")
    assert wanted.argv == ["--tunnel", "ngrok"]
    found = wanted.environment
    assert found["TWILIO_ACCOUNT_SID"] == "AC7"
    assert found["TRUNKLINE_NUMBERS"] == "+14155550100"
    assert found["TRUNKLINE_CONSOLE_PORT"] == "0"
    assert found["TRUNKLINE_STATE_DIR"] == f"{tmp_path}/state/private/run-1"
    assert "PYTEST_ADDOPTS" not in found


#: A worker of pytest-xdist, as far as it matters here: the stack that it started runs on.
LEAVING = """
import os, sys
from pathlib import Path
from trunkline.bus.launch import Launched
from trunkline.bus.process import PARENT_FD_VARIABLE
from trunkline.stack import shared_stack

reader, writer = os.pipe()
runs_on = f"import os; os.read(int(os.environ['{PARENT_FD_VARIABLE}']), 1)"
argv = [sys.executable, "-c", runs_on]
directory = Path(sys.argv[1])
shared_stack._started.append(
    Launched(argv, directory, "sim", os.environ, what="a stack", parent_fd=reader)
)
shared_stack.leave()
"""


def test_a_worker_that_leaves_a_stack_to_the_run_has_nothing_to_say(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEAVING, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
