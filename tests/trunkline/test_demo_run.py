"""A run of the demo, with calls that were made up."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from trunkline.bus import wav
from trunkline.demo import run
from trunkline.demo.measure import CallRecord
from trunkline.demo.record import Watch
from trunkline.demo.run import Demo

WATCH = cast(Watch, object())


def record(underruns: int) -> CallRecord:
    silence = wav.from_bytes(b"")
    metrics: dict[str, Any] = {"underruns": underruns}
    return CallRecord("CA", silence, silence, 0.0, 0.1, metrics, [], frames_lost=0)


@pytest.mark.parametrize(("holes", "taken"), [([0], 0), ([3, 0], 0), ([3, 2], 2)])
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
    assert ("calling: the far end heard 3 holes" in capsys.readouterr().out) == (len(holes) > 1)


async def test_what_was_held_in_time_is_not_given_up_while_it_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine the pictures take seconds, and the files are there by then."""
    demo = Demo(tmp_path, Console(), verbose=False, as_json=False)

    async def held() -> None:
        pass

    def drawn() -> int:
        time.sleep(0.2)
        return 0

    monkeypatch.setattr(run, "ENDS_WITHIN", 0.1)
    monkeypatch.setattr(demo, "run", held)
    monkeypatch.setattr(demo, "conclude", drawn)
    assert await run._until_done(demo, asyncio.Event()) == 0
