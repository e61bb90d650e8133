"""Caps of a run of pytest: what is refused, what is counted, and what the run says at its end."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.adapter import line
from trunkline.bus.errors import CallFailedError, LimitReachedError
from trunkline.gates import caps
from trunkline.gates.caps import Caps, Entry, Ledger, refusal, summary


def test_calls_are_refused_by_the_name_of_their_cap() -> None:
    entries = [Entry(30, over=True), Entry(0, over=True)]
    assert refusal(entries, 300, 3, None) is None
    assert refusal(entries, 300, 2, None) == "--phone-max-calls=2 calls were made in this run"
    assert refusal([], 300, 0, None) == "--phone-max-calls=0 calls were made in this run"


def test_minutes_are_begun_ones_and_a_call_that_is_up_may_take_its_longest() -> None:
    entries = [Entry(61, over=True), Entry(0, over=True), Entry(120)]
    assert refusal(entries, 60, None, 5) is None
    assert refusal(entries, 61, None, 5) == (
        "--phone-max-minutes=5: 2 min were used in this run, calls under way may take 2 min, and "
        "this one 2 min (max_call_duration_seconds shortens it)"
    )


def test_the_summary_tells_calls_minutes_and_price() -> None:
    assert summary([Entry(20, over=True)], None) == "1 call, 1 minute"
    entries = [Entry(61, over=True), Entry(0, over=True), Entry(20, over=True)]
    assert summary(entries, 0.018) == "3 calls, 3 minutes, 0.05 at 0.018 a minute"


def test_two_processes_cannot_both_take_the_last_call(tmp_path: Path) -> None:
    def admit(_: int) -> bool:
        try:
            Ledger(tmp_path / "calls.json").admit(60, 5, None)
        except LimitReachedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(admit, range(40))) == 5
    assert len(Ledger(tmp_path / "calls.json").read()) == 5


class Run:
    """One process of a run with these caps."""

    def __init__(self, directory: Path, **options: int) -> None:
        given = {"--phone-max-calls": None, "--phone-max-minutes": None}
        given |= {f"--phone-max-{name}": value for name, value in options.items()}
        manager = SimpleNamespace(has_plugin=lambda name: False)
        self.config: Any = SimpleNamespace(getoption=given.__getitem__, pluginmanager=manager)
        self.caps = Caps(self.config, lambda: directory)
        self.caps.pytest_sessionstart(SimpleNamespace(config=self.config))  # type: ignore[arg-type]  # what it uses

    def call(self, longest: float = 300.0, *, dialled: bool = True) -> Any:
        """A call comes up."""
        call = SimpleNamespace(ending=False, age=10.0)
        with line.meter(longest, dialled) as came_up:
            came_up(call)  # type: ignore[arg-type]  # what it uses
        return call

    def fails(self, error: BaseException, *, dialled: bool = True) -> None:
        with pytest.raises(type(error)), line.meter(60.0, dialled):
            raise error

    def finish(self) -> str | None:
        self.caps.pytest_sessionfinish(SimpleNamespace(config=self.config))  # type: ignore[arg-type]  # what it uses
        return self.caps.summary


@pytest.fixture(autouse=True)
def _no_meter_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(line, "meter", line.meter)
    yield


def test_a_call_that_is_over_makes_room_for_minutes_and_for_no_call(tmp_path: Path) -> None:
    run = Run(tmp_path, calls=3, minutes=6)
    call = run.call()
    with pytest.raises(LimitReachedError, match="calls under way may take 5 min"):
        run.call()
    call.ending, call.age = True, 61.0
    run.call(240.0)
    with pytest.raises(LimitReachedError, match="2 min were used"):
        run.call(60.0)


def test_what_rang_in_vain_is_a_call_and_what_was_never_made_is_none(tmp_path: Path) -> None:
    run = Run(tmp_path, calls=9)
    run.fails(CallFailedError("busy", status="busy"))
    run.fails(TimeoutError())
    run.fails(asyncio.CancelledError())
    run.fails(LimitReachedError("a cap of the stack's"))
    run.fails(TimeoutError(), dialled=False)  # nobody called
    assert run.finish() == "3 calls, 0 minutes"


def test_who_waits_for_a_call_is_refused_at_once_too(tmp_path: Path) -> None:
    run = Run(tmp_path, calls=1)
    run.call(60.0, dialled=False)
    with pytest.raises(LimitReachedError, match="--phone-max-calls=1"):
        run.call(60.0, dialled=False)


def test_the_summary_has_the_price_of_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUNKLINE_PRICE_PER_MINUTE", "0.02")
    run = Run(tmp_path, calls=5)
    run.call()
    assert run.finish() == "1 call, 1 minute, 0.02 at 0.02 a minute"


def test_a_run_without_calls_says_nothing(tmp_path: Path) -> None:
    assert Run(tmp_path).finish() is None
    assert Run(tmp_path, calls=5).finish() is None


@pytest.mark.parametrize("text", ["-1", "x", "1.5"])
def test_a_cap_that_is_no_whole_number_is_named_for_what_it_is(text: str) -> None:
    """argparse shows an ArgumentTypeError's words, and of other errors this function's name."""
    with pytest.raises(argparse.ArgumentTypeError, match=f"{text!r} is not a whole number"):
        caps.whole_number(text)
