"""``trunkline record`` runs a command as a shell would, and names the cassettes that it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from trunkline.cli.main import cli


def test_record_runs_a_command_whose_stacks_keep_cassettes(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys; directory = pathlib.Path(os.environ['TRUNKLINE_CASSETTES_DIR']);"
        "directory.mkdir(); (directory / 'CA1.cassette').write_text(''); "
        "sys.exit(int(os.environ['TRUNKLINE_CASSETTES_SOUND']) + 5)"
    )
    argv = ["record", "--dir", str(tmp_path / "calls"), "--no-sound", sys.executable, "-c", program]
    result = CliRunner().invoke(cli, argv)
    assert result.exit_code == 5
    assert f"trunkline record: {tmp_path / 'calls' / 'CA1.cassette'}" in result.output
    result = CliRunner().invoke(cli, ["record", "--dir", str(tmp_path), sys.executable, "-c", ""])
    assert result.exit_code == 0 and "no call was recorded" in result.output
    result = CliRunner().invoke(cli, ["record", "/no/such/program"])
    assert result.exit_code == 1 and "cannot be run" in str(result.exception)


def test_what_ignores_ctrl_c_is_recorded_so(tmp_path: Path) -> None:
    """A script's shell has it ignored in what runs in the background."""
    program = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    argv = [sys.executable, "-m", "trunkline", "record", "--dir", str(tmp_path)]
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *argv, sys.executable, "-c", program]
    done = subprocess.run(ignoring, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "True\n"


def test_record_bears_a_cassette_that_goes_away_meanwhile(tmp_path: Path) -> None:
    """The stack deletes old ones."""
    (tmp_path / "CA0.cassette").symlink_to(tmp_path / "gone")
    result = CliRunner().invoke(cli, ["record", "--dir", str(tmp_path), sys.executable, "-c", ""])
    assert result.exit_code == 0


def test_record_ends_its_command_when_it_is_asked_to_end(tmp_path: Path) -> None:
    code = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(60)"
    argv = [sys.executable, "-m", "trunkline", "record", "--dir", str(tmp_path)]
    recording = subprocess.Popen(
        [*argv, sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with recording:
        assert recording.stdout is not None
        pid = int(recording.stdout.readline())
        recording.terminate()
        assert recording.wait(10) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
