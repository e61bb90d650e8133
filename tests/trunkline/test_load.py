"""``trunkline load`` without calls: its ramp, its figures and limits, its page, its options."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from trunkline.adapter.client.thread_bridge import SoundBox
from trunkline.adapter.turns.by_hand import Turn
from trunkline.bus import wav
from trunkline.bus.errors import (
    CallFailedError,
    CarrierError,
    LimitReachedError,
    StackUnavailableError,
    WrongModeError,
)
from trunkline.cli.main import cli
from trunkline.ear.figures import Answer, Report, spread
from trunkline.ear.listen import listen
from trunkline.load import command, figures, page
from trunkline.load.figures import Step
from trunkline.load.ramp import Plan, Ramp

TO, FROM = "+14155557778", "+14155551234"
PLAN = Plan(TO, FROM, most=5, question=b"\0\0")
NOTHING = np.zeros(80, np.int16)


def answering(*latencies: float) -> Report:
    """The report of a call with these answers."""
    answers = [Answer(after=0.0, start=each, latency=each) for each in latencies]
    heard = replace(listen(NOTHING, NOTHING), reliable=True, unreliable_because=[])
    return replace(heard, answers=answers, latency=spread(latencies))


def unreliable(why: str) -> Report:
    return replace(answering(), reliable=False, unreliable_because=[why])


@pytest.mark.parametrize(
    ("most", "ramp"),
    [
        (1, [1]),
        (2, [1, 2]),
        (4, [1, 2, 4]),
        (50, [1, 2, 5, 10, 20, 50]),
        (1000, [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]),
    ],
)
def test_the_ramp_ends_with_all_calls_at_a_time(most: int, ramp: list[int]) -> None:
    assert figures.steps(most) == ramp
    assert Plan(TO, FROM, most, b"").calls == sum(ramp)


def test_one_call_is_announced_as_one() -> None:
    said = [command._announced(Plan(TO, FROM, most=most, question=b"")) for most in (1, 2)]
    assert said[0].endswith(": 1 at a time, 1 call of 300 s at most")
    assert said[1].endswith(": 1, 2 at a time, 3 calls of 300 s at most")


# --------------------------------------------------------------------------- figures


def step(concurrency: int, *reports: Report, **failures: int) -> Step:
    made = Step(concurrency, dialled=concurrency)
    for n, each in enumerate(reports):
        made.note(f"CA{n}", 61.0, each)
    made.failures.update({kind.replace("_", " "): count for kind, count in failures.items()})
    return made


SLOWER = [
    step(1, answering(0.5)),
    step(30, *[answering(1.0 + n / 10) for n in range(20)], busy=8, silent=2),
]


def load(limits: dict[str, float] | None = None, price: float | None = None) -> figures.Load:
    return figures.load(TO, FROM, SLOWER, limits or {}, price, None)


def test_a_step_has_its_percentiles_failures_and_minutes() -> None:
    found = load(price=0.02)
    one, many = found.steps
    assert (one.latency.n, one.latency.p50, one.latency.max) == (1, None, 0.5)
    assert many.latency.p50 == pytest.approx(1.95)
    assert many.latency.max == pytest.approx(2.9)
    assert many.failures == {"busy": 8, "silent": 2} and many.answered == 20
    assert (found.calls, found.minutes, found.cost) == (31, 42, 0.84)
    assert one.reliable and many.reliable and found.broken == []


def test_a_recording_that_cannot_be_trusted_is_named() -> None:
    row = figures.row(step(7, *(unreliable(f"reason {n}") for n in range(7))))
    assert not row.reliable
    assert row.unreliable_because[0] == "CA0: reason 0"
    assert row.unreliable_because[-1] == "and 2 more" and len(row.unreliable_because) == 6
    assert not figures.row(step(1, busy=1)).reliable, "nothing is known"


def test_limits_are_judged_step_by_step() -> None:
    assert load({"latency_max": 3.0, "failures": 10}).broken == []
    assert load({"latency_p50": 1.0, "failures": 9}).broken == [
        "30 at a time: failures is 10, over 9",
        "30 at a time: latency_p50 is 1.95 s, over 1 s",
    ]
    assert load({"latency_p95": 0.4}).broken[0] == (
        "1 at a time: latency_p95 is 0.50 s, over 0.4 s (the largest of 1: a percentile needs 20)"
    )


def test_limits_are_read_and_named_where_they_are_wrong() -> None:
    assert figures.read_limits("latency_p95=1.5, failures=0") == {"latency_p95": 1.5, "failures": 0}
    assert figures.read_limits("") == {}
    with pytest.raises(ValueError, match="'latency_p95' is no limit: write"):
        figures.read_limits("latency_p95")
    with pytest.raises(ValueError, match="--limits: there is no limit 'latency_p99'"):
        figures.read_limits("latency_p99=1")
    for name in ("failures", "latency_p95"):
        with pytest.raises(ValueError, match=f"--limits: {name}=nan is not a number"):
            figures.read_limits(f"{name}=nan")


def test_the_page_has_the_picture_the_table_and_what_is_wrong() -> None:
    found = load({"latency_p95": 0.4})
    made = page.page(found, SLOWER, [])
    assert made.count("<circle") == 21
    assert made.count("<polyline") == 3
    assert "<td>8 busy, 2 silent</td>" in made and "<td>2.90 s</td>" in made
    assert "1 at a time: latency_p95" in made
    links = re.findall(r"(?:src|href)=\"(?!data:)[^\"]*\"|https?://[^\s\"<]+", made)
    assert links == [], "it opens without a network"


def test_caps_that_leave_too_little_are_named_before_anything_is_dialled() -> None:
    def cap(name: str, left: int) -> list[dict[str, Any]]:
        return [{"setting": f"TRUNKLINE_MAX_{name}", "most": 99, "used": 99 - left, "left": left}]

    for name, needed in (("CALLS", 5), ("CALLS_PER_HOUR", 8), ("MINUTES_PER_DAY", 25)):
        command.check_caps(cap(name, needed), PLAN)
        with pytest.raises(LimitReachedError, match=f"TRUNKLINE_MAX_{name}=99 leaves"):
            command.check_caps(cap(name, needed - 1), PLAN)


# --------------------------------------------------------------------------- the ramp


class FakeCall:
    """A call that says and hears nothing."""

    def __init__(self, sid: str, heard: Callable[[], None]) -> None:
        self.sid = sid
        self.age = 10.0
        self.over = False
        self.sound = SoundBox(1_000)
        self.latencies: list[float | None] = []
        self._heard = heard

    async def say(self, pcm: bytes) -> None:
        self.sound.put(b"\0\0")
        await asyncio.sleep(0)

    async def next_turn(self, timeout: float) -> Turn:
        assert len(self.sound) == 0, "it was said before the question was over"
        self._heard()
        return Turn(b"", self.latencies.pop(0) if self.latencies else 1.0)

    async def hang_up(self) -> None:
        self.over = True

    def abandon(self) -> None:
        self.over = True

    async def wait_ended(self, timeout: float) -> None:
        pass

    def both_sides(self) -> tuple[Any, Any]:
        return NOTHING, NOTHING

    def report(self) -> Report:
        return answering(0.5 + int(self.sid[2:]) / 100)


class FakeLine:
    """``answers`` is called for each dial, and says how it fails. ``most``: so many were up at a
    time."""

    def __init__(
        self,
        answers: Callable[[int], BaseException | None] = lambda n: None,
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        self.calls: list[FakeCall] = []
        self.dialled = 0
        self._answers = answers
        self._heard = heard

    async def place_call(self, to: str, **wishes: Any) -> FakeCall:
        assert to == TO and wishes["attach_stream"] == "a-leg"
        self.dialled += 1
        which = self.dialled
        await asyncio.sleep(0)
        error = self._answers(which)
        if error is not None:
            raise error
        self.calls.append(FakeCall(f"CA{which}", self._heard))
        return self.calls[-1]


def ramp(line: FakeLine, most: int = 5) -> Ramp:
    plan = Plan(TO, FROM, most, b"\0\0", questions=2)
    return Ramp(line, plan, lambda step: None, lambda step: None)  # type: ignore[arg-type]  # what it uses of a Line


async def test_all_calls_of_a_step_are_up_when_the_question_is_said() -> None:
    up: list[int] = []
    line = FakeLine(heard=lambda: up.append(sum(not call.over for call in line.calls)))
    made = ramp(line)
    await made.run()
    assert up[0] == 1 and max(up) == 5
    assert [(s.concurrency, s.dialled, len(s.reports), s.up) for s in made.steps] == [
        (1, 1, 1, 0),
        (2, 2, 2, 0),
        (5, 5, 5, 0),
    ]
    assert made.stopped is None
    assert [heard.title[:3] for heard in made.worst] == ["CA8", "CA7", "CA6", "CA5", "CA4"]


async def test_calls_fail_by_kind() -> None:
    errors: list[BaseException | None] = [
        None,
        CallFailedError("busy", status="busy"),
        None,
        TimeoutError("not within 1 s"),
        CarrierError("no", status=400, code=21215, message="no"),
        StackUnavailableError("no controller"),
        None,
        None,
    ]
    made = ramp(FakeLine(lambda n: errors[n - 1]))
    await made.run()
    kinds = [dict(step.failures) for step in made.steps]
    assert kinds == [
        {},
        {"busy": 1},
        {"timeout": 1, "refused by the carrier": 1, "StackUnavailableError": 1},
    ]
    assert made.steps[2].said["timeout"] == "not within 1 s"


@pytest.mark.parametrize(
    ("error", "kind"),
    [(TimeoutError("nothing"), "silent"), (WrongModeError("it has ended"), "hung up")],
)
async def test_a_call_that_came_up_may_fail_too(error: Exception, kind: str) -> None:
    def heard() -> None:
        raise error

    line = FakeLine(heard=heard)
    made = ramp(line, 1)
    await made.run()
    assert dict(made.steps[0].failures) == {kind: 1}
    assert len(made.steps[0].reports) == 1 and line.calls[0].over


async def test_the_rest_of_earlier_words_is_not_taken_for_the_answer() -> None:
    heard: list[None] = []
    made = ramp(FakeLine())
    call = FakeCall("CA1", lambda: heard.append(None))
    call.latencies = [None, 1.0, 1.0]
    await made._talk(Step(1), call)  # type: ignore[arg-type]  # what it uses of a Call
    assert len(heard) == 3, "two questions, and one turn more"


async def test_the_ramp_ends_at_a_cap_and_where_nobody_answers() -> None:
    cap = LimitReachedError("TRUNKLINE_MAX_CALLS=1 calls at a time are up")
    made = ramp(FakeLine(lambda n: cap if n == 3 else None))
    await made.run()
    assert [s.concurrency for s in made.steps] == [1, 2]
    assert made.stopped == str(cap)
    made = ramp(FakeLine(lambda n: CallFailedError("busy", status="busy")))
    await made.run()
    assert made.stopped == "no call came up with 1 at a time"


async def test_who_interrupts_it_leaves_no_call_up_and_keeps_what_was_measured() -> None:
    line = FakeLine()
    made = ramp(line)
    begun = asyncio.Event()

    def heard() -> None:
        if len(line.calls) == 3:
            begun.set()

    line._heard = heard
    running = asyncio.create_task(made.run())
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert all(call.over for call in line.calls)
    assert [len(step.reports) for step in made.steps] == [1, 2]


# --------------------------------------------------------------------------- options


def test_wrong_limits_are_a_wrong_usage(tmp_path: Path) -> None:
    question = tmp_path / "q.wav"
    wav.write(question, np.zeros(240, np.int16))
    argv = ["load", TO, "--from", FROM, "--calls", "1", "--say", str(question)]
    result = CliRunner().invoke(cli, [*argv, "--limits", "latency=1"])
    assert result.exit_code == 2
    assert "there is no limit 'latency'" in result.output and "failures" in result.output
    assert CliRunner().invoke(cli, [*argv, "--limits", "failures=nan"]).exit_code == 2


def test_reasons_are_told_once_for_each_kind() -> None:
    first, second = Step(1), Step(2)
    first.fail("busy", "the callee is busy")
    second.fail("busy", "busy again")
    second.fail("silent", "CA1: nobody spoke for 10 s")
    found = command._reasons([], [first, second])
    assert found == ["busy: the callee is busy", "silent: CA1: nobody spoke for 10 s"]


def test_a_page_that_cannot_be_written_is_named_before_anything_is_dialled(tmp_path: Path) -> None:
    question = tmp_path / "q.wav"
    wav.write(question, np.zeros(240, np.int16))
    page = tmp_path / ("y" * 300)
    argv = ["load", TO, "--from", FROM, "--calls", "1", "--say", str(question)]
    argv += ["--bus", f"ipc://{tmp_path}/bus", "--html", str(page)]
    result = CliRunner().invoke(cli, argv)
    said = f"--html {page} cannot be written ({page}: File name too long): name another file"
    assert str(result.exception) == said
