"""A run of the demo, with calls that were made up."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final, cast

import pytest
from rich.console import Console

from trunkline.bus import wav
from trunkline.bus.errors import TrunklineError
from trunkline.bus.launch import StackInfo
from trunkline.demo import run
from trunkline.demo.measure import CallRecord
from trunkline.demo.record import Watch
from trunkline.demo.run import Demo

WATCH = cast(Watch, object())
#: What the calls of a test may take (seconds).
WITHIN: Final = 0.1


def record(underruns: int) -> CallRecord:
    silence = wav.from_bytes(b"")
    metrics: dict[str, Any] = {"underruns": underruns}
    return CallRecord("CA", silence, silence, 0.0, 0.1, metrics, [], frames_lost=0)


@pytest.mark.parametrize(("holes", "taken"), [([0], 0), ([3, 0], 0), ([1, 2], 2)])
async def test_a_call_with_holes_is_held_once_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], holes: list[int], taken: int
) -> None:
    demo = Demo(tmp_path, Console(), verbose=False, as_json=False)
    made = iter([record(each) for each in holes])

    async def hold() -> tuple[CallRecord, Watch]:
        return next(made), WATCH

    kept, _ = await demo._held("calling", hold)
    assert kept.metrics["underruns"] == taken
    assert next(made, None) is None
    said = "1 hole," if holes[0] == 1 else "3 holes,"
    assert (f"calling: the far end heard {said}" in capsys.readouterr().out) == (len(holes) > 1)


class Slow:
    """A stack that takes longer to start than the calls may take."""

    async def until_ready(self) -> StackInfo:
        await asyncio.sleep(2 * WITHIN)
        return StackInfo(account_sid="AC1", auth_token="secret", pid=1)

    def stop(self) -> int:
        return 0


@pytest.mark.parametrize("seconds", [0.0, 60.0])
async def test_only_the_calls_are_held_within_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """On a busy machine the stack takes its time to start, and the pictures to be drawn."""
    demo = Demo(tmp_path, Console(), verbose=False, as_json=False)

    async def calls(*_given: object) -> None:
        await asyncio.sleep(seconds)

    def drawn() -> int:
        time.sleep(2 * WITHIN)
        return 0

    monkeypatch.setattr(run, "CALLS_WITHIN", WITHIN)
    monkeypatch.setattr(run, "_import_calls", lambda _name: None)
    monkeypatch.setattr(demo, "_missing", ["scenario"])
    monkeypatch.setattr(demo, "_launch", lambda _directory: Slow())
    monkeypatch.setattr(demo, "_calls", calls)
    monkeypatch.setattr(demo, "conclude", drawn)
    until_done = run._until_done(demo, asyncio.Event())
    if seconds < WITHIN:
        assert await until_done == 0
    else:
        with pytest.raises(TrunklineError, match="the calls were not over within"):
            await until_done


@pytest.mark.parametrize("there", [True, False])
def test_the_demo_names_the_extras_that_are_not_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, there: bool
) -> None:
    demo = Demo(tmp_path, Console(), verbose=False, as_json=False)
    demo._missing = ["matplotlib"] if there else ["scenario", "matplotlib"]
    demo._say_what_else()
    said = capsys.readouterr().out
    assert "pip install 'trunkline[demo]'" in said
    assert ("pip install 'trunkline[scenario]'" in said) != there
