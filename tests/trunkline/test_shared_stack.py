"""How the shared stack of a test run ended is said at the end of the run."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from trunkline.bus.settings import load
from trunkline.stack import shared_stack
from trunkline.stack.shared_stack import RunDirectory


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
def test_an_end_that_was_not_good_is_a_problem(said: str, problem: str | None) -> None:
    run = RunDirectory()
    (run.path / "sim.log").write_text(f"{said}\n")
    found = run.close()
    assert run.path.exists() == (problem is not None)
    if problem is None:
        assert found == []
    else:
        (text,) = found
        assert text.startswith(problem)
        assert str(run.path) in text
        (run.path / "sim.log").unlink()


def test_a_stack_that_does_not_end_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_stack, "ENDED_WITHIN", 0.1)
    run = RunDirectory()
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
