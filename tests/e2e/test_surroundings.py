"""The quickest look and the offline example, where a bare CI runner would run them."""

from __future__ import annotations

import re
import stat
import wave
from pathlib import Path

import pytest

from .surroundings import hostile

ROOT = Path(__file__).parents[2]
#: What the demo measures of each of its two calls.
MEASURED = (
    *("set-up", "pacing drift", "jitter", "frames lost", "underruns"),
    *("test to far end", "far end to test", "likeness"),
)


@pytest.mark.timeout(200)
def test_the_demo_runs_without_home_environment_and_proxy() -> None:
    with hostile() as around:
        ended = around.run("trunkline", "demo", within=170)  # a call with holes is held again
        assert ended.returncode == 0, ended.stdout
        assert ended.stdout.count("as before") == 2
        wavs = re.findall(r"^(?:answering|calling): (\S+\.wav) ", ended.stdout, re.MULTILINE)
        assert wavs == ["out/demo/answering.wav", "out/demo/calling.wav"]
        for each in wavs:
            path = around.where / each
            with wave.open(str(path)) as sound:
                assert sound.getnchannels() == 2, "the agent left, the test right"
                assert sound.getnframes() > 6 * sound.getframerate()
            assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
        for name in MEASURED:
            row = re.search(rf"^{name}  +(\S.*?\d.*)$", ended.stdout, re.MULTILINE)
            assert row is not None and len(re.split("  +", row[1])) == 2, name


def test_the_offline_example_runs_without_home_environment_and_proxy() -> None:
    """With a TMPDIR besides whose path leaves no room for a socket's name."""
    (example, *_) = re.findall(
        r"^```python\n(.*?)^```$",
        (ROOT / "docs/pytest.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    with hostile() as around:
        long = around.where / ("long" * 20)
        long.mkdir()
        long.chmod(stat.S_ISVTX | 0o777)
        around.environment["TMPDIR"] = str(long)
        (around.where / "test_example.py").write_text(example)
        (around.where / "pytest.ini").write_text(
            "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
        )
        ended = around.run("pytest", "-q", "--phone-sim", within=90)
        assert ended.returncode == 0, ended.stdout
        assert re.search(r"^2 passed in ", ended.stdout, re.MULTILINE), ended.stdout
