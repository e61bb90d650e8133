"""Limits, repeats and the baseline, on figures that are known."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest

from trunkline.adapter.call import Call
from trunkline.bus.wav import Samples
from trunkline.ear import turns
from trunkline.ear.figures import Report, Segment, Side, Sides, spread
from trunkline.gates import baseline, kept, limits
from trunkline.gates.run import REPEAT_ID, Gates, name_of


def speech(*spans: tuple[float, float]) -> list[Segment]:
    return [Segment(start=start, end=end) for start, end in spans]


def report(
    ours: list[Segment], theirs: list[Segment], *, unreliable: tuple[str, ...] = ()
) -> Report:
    """The report of a call with these segments."""
    sides = [
        Side(segments=each, speech_seconds=1.0, level_dbfs=-20.0, clipped_frames=0)
        for each in (ours, theirs)
    ]
    answers = turns.answers(ours, theirs)
    yields, false_yields, interruptions = turns.yields(ours, theirs)
    return Report(
        seconds=100.0,
        reliable=not unreliable,
        unreliable_because=list(unreliable),
        sides=Sides(ours=sides[0], theirs=sides[1]),
        answers=answers,
        yields=yields,
        false_yields=false_yields,
        interruptions_by_them=interruptions,
        talk_over_seconds=turns.talk_over(ours, theirs),
        silences=[],
        digits=[],
        frames_lost=0,
        jitter_ms=None,
        latency=spread([each.latency for each in answers]),
        time_to_yield=spread([]),
    )


def answering(*latencies: float) -> Report:
    """We ask every 10 s."""
    ours = speech(*((10.0 * n, 10.0 * n + 2) for n in range(len(latencies))))
    theirs = speech(
        *((10.0 * n + 2 + wait, 10.0 * n + 6) for n, wait in enumerate(latencies)),
    )
    return report(ours, theirs)


def test_calls_within_their_limits_are_fine() -> None:
    reports = [answering(1.0, 1.2), answering(0.8)]
    assert limits.broken(reports, {"latency_p95": 1.5, "talk_over": 0.0}) == []


def test_under_twenty_answers_the_largest_is_judged_and_the_message_says_so() -> None:
    (said,) = limits.broken([answering(1.0, 1.9)], {"latency_p95": 1.5})
    assert said == ("latency_p95 is 1.90 s, over 1.5 s (the largest of 2: a percentile needs 20)")
    twenty = [answering(*[1.0] * 10), answering(*[1.0] * 9, 1.9)]
    assert limits.broken(twenty, {"latency_p95": 1.5}) == []
    (said,) = limits.broken(twenty, {"latency_max": 1.5})
    assert said == "latency_max is 1.90 s, over 1.5 s"


def test_no_answer_fails() -> None:
    assert limits.broken([report(speech((1, 2)), [])], {"latency_p95": 1.5}) == [
        "latency_p95: there was no answer"
    ]
    assert limits.broken([], {"talk_over": 1.0}) == [
        "no call came up, so there is nothing to judge"
    ]


def test_who_never_yields_fails() -> None:
    call = report(speech((2, 4), (12, 14)), speech((1, 2.5), (11, 15)))
    (said,) = limits.broken([call], {"time_to_yield_p95": 0.8})
    assert limits.broken([answering(1.0)], {"time_to_yield_p95": 0.8}) == [], "nobody broke in"
    assert said == "time_to_yield_p95: they did not yield 1 of 2 times"


def test_what_is_wrong_with_the_recording_comes_first() -> None:
    call = report(speech((1, 2)), speech((5, 6)), unreliable=("7 frames were lost",))
    said = limits.broken([call], {"latency_p95": 1.5})
    assert said[0] == "the recording is unreliable: 7 frames were lost"
    assert "latency_p95 is 3.00 s" in said[1]


def test_numbers_are_judged_by_the_worst_call() -> None:
    calls = [report(speech((1, 3)), speech((2, 4))), report(speech((1, 3)), speech((4, 5)))]
    assert limits.broken(calls, {"talk_over": 0.5}) == ["talk_over is 1, over 0.5"]
    assert limits.broken(calls, {"interruptions": 0}) == ["interruptions is 1, over 0"]


@pytest.mark.parametrize(
    "limit", [{"latency": 1.0}, {"latency_p99": 1}, {"talk_over": "1"}, {"latency_p95": math.nan}]
)
def test_a_limit_that_there_is_not_is_refused(limit: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="phone_limits"):
        limits.broken([answering(1.0)], limit)


def test_properties_are_the_figures_that_are_known() -> None:
    found = dict(limits.properties([answering(1.0, 1.2)]))
    assert found["phone_latency_n"] == 2 and found["phone_latency_max"] == 1.2
    assert "phone_latency_p95" not in found
    assert found["phone_talk_over"] == 0.0


@pytest.mark.parametrize(
    ("passed", "of", "low", "high"),
    # As Wilson (1927) has it; by scipy's binomtest(…).proportion_ci(method="wilson").
    [(20, 20, 0.8389, 1.0), (18, 20, 0.6990, 0.9721), (0, 5, 0.0, 0.4345), (5, 10, 0.2366, 0.7634)],
)
def test_the_interval_of_a_pass_rate_is_wilsons(
    passed: int, of: int, low: float, high: float
) -> None:
    assert limits.wilson(passed, of) == pytest.approx((low, high), abs=1e-4)


def test_the_baseline_tells_what_is_slower_and_nothing_else() -> None:
    random = np.random.default_rng(1)
    before = {"latency": list(random.normal(1.0, 0.1, 30)), "time_to_yield": [0.5] * 5}

    def told(shift: float, spread: float = 0.1) -> list[str]:
        return list(
            baseline.slower("t", before, {"latency": list(random.normal(1 + shift, spread, 30))})
        )

    assert told(0.0) == [] and told(-0.5) == []
    assert told(0.3, 2.0) == [], "it may be chance"
    (said,) = told(0.3)
    assert said.startswith("t: latency is slower by ") and "95 % interval" in said
    constant = list(baseline.slower("t", {"latency": [1.0] * 9}, {"latency": [1.04] * 9}))
    assert constant == [], "nobody hears 40 ms"
    assert list(baseline.slower("t", before, {"time_to_yield": []})) == []
    assert list(baseline.slower("t", {}, before)) == []


def test_a_handful_of_samples_is_not_compared_and_that_is_said() -> None:
    """The interval of one sample has no width: an agent that is as quick as before would fail in
    two runs of five."""
    few, many = {"latency": [1.0] * 4}, {"latency": [2.0] * 5}
    for before, now in ((few, many), (many, few), ({}, many), (many, {})):
        assert list(baseline.slower("t", before, now)) == []
        assert len(list(baseline.too_few("t", before, now))) == 1
    assert list(baseline.too_few("t", few, many)) == [
        "t: latency is not compared with the baseline: that has 4, and this run has 5, where each "
        "needs 5"
    ]
    assert len(list(baseline.slower("t", {"latency": [1.0] * 5}, many))) == 1
    assert list(baseline.too_few("t", {"latency": [1.0] * 5}, many)) == []
    assert list(baseline.too_few("t", {"time_to_yield": []}, {})) == [], "nobody broke in"


@dataclass
class Told:
    """What travels in pytest's report of one repetition of a test."""

    phone_test: str
    phone_samples: dict[str, list[float]]
    outcome: Literal["passed", "failed", "skipped"] = "passed"
    phone_repetitions: int = 5

    def report(self) -> pytest.TestReport:
        return pytest.TestReport(self.phone_test, ("", 0, ""), {}, self.outcome, None, "call")


def run_of(file: Path, *told: Told) -> list[str]:
    """What a run with these reports says of the baseline in ``file``."""
    gates = Gates(file, None, file.parent.absolute)
    for each in told:
        report = each.report()
        vars(report).update(vars(each))
        gates.note(report)
    assert gates.conclude() == []
    return gates.notes


def test_only_a_test_that_passed_each_time_is_added_to_the_baseline(tmp_path: Path) -> None:
    """A slow run that its limit refused would be the norm from then on, and one that somebody has
    interrupted would stay a norm of few samples. What has had calls and is left out is named."""
    file = tmp_path / "phone.json"
    notes = run_of(
        file,
        *[Told("passes", {"latency": [1.0]})] * 5,
        *[Told("fails", {"latency": [9.0]}, "failed")],
        *[Told("fails", {"latency": [9.0]})] * 4,
        *[Told("interrupted", {"latency": [1.0] * 9})] * 2,
        *[Told("once", {"latency": [1.0], "time_to_yield": [1.0] * 2}, phone_repetitions=1)],
        *[Told("no answers", {"latency": [], "time_to_yield": []})] * 5,
        Told("breaks in", {"latency": [1.0], "time_to_yield": [0.4] * 5}, phone_repetitions=1),
        *[Told("skipped", {}, "skipped")] * 5,
        *[Told("no calls", {})] * 5,
    )
    assert json.loads(file.read_text()) == {
        "passes": {"latency": [1.0] * 5},
        "breaks in": {"time_to_yield": [0.4] * 5},
    }
    assert notes == [
        "breaks in: latency is not added to the baseline: it has 1, where a comparison needs 5 "
        "(--phone-repeat)",
        "fails: not added to the baseline: it passed 4 of 5 times",
        "interrupted: not added to the baseline: it passed 2 of 5 times",
        "no answers: not added to the baseline: its calls had no answer and no yield",
        "once: not added to the baseline: its figures have 2 samples at most, and a comparison "
        "needs 5 (--phone-repeat)",
    ]


def test_a_run_says_what_the_baseline_cannot_be_compared_with(tmp_path: Path) -> None:
    file = tmp_path / "phone.json"
    file.write_text('{"t": {"latency": [1.0]}}')
    (note,) = run_of(file, Told("t", {"latency": [9.0]}, phone_repetitions=1))
    assert note.startswith("t: latency is not compared with the baseline")


def test_a_repetition_has_the_name_of_its_test() -> None:
    repeat = REPEAT_ID.format(n=3, count=12)
    for ids, left in (
        (repeat, ""),
        (f"x-{repeat}", "[x]"),
        (f"{repeat}-x", "[x]"),
        (f"-1-{repeat}", "[-1]"),
        (f"{repeat}--1", "[-1]"),
        (f"x-{repeat}-y", "[x-y]"),
        (f"retry3of12-{repeat}", "[retry3of12]"),
    ):
        assert name_of(f"a.py::test_b[{ids}]", ids, repeat) == f"a.py::test_b{left}"
    assert name_of(f"a.py::test_b[{repeat}]@group", repeat, repeat) == "a.py::test_b@group"


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"test_a": 5}', '{"test_a": {"latency": "x"}}', "\xff"]
)
def test_a_baseline_that_is_none_fails_the_run_in_one_line(tmp_path: Path, text: str) -> None:
    """And is left as it is: it may be somebody's only one."""
    file = tmp_path / "phone.json"
    file.write_bytes(text.encode("latin-1"))
    (problem,) = Gates(file, None, file.parent.absolute).conclude()
    assert problem.startswith(f"--phone-baseline {file}: ") and "\n" not in problem
    assert file.read_bytes() == text.encode("latin-1")


class Listened:
    """A call that a test listened to."""

    sid = "CA" + "7" * 32
    keeps_sound = True

    def both_sides(self) -> tuple[Samples, Samples]:
        return np.zeros(80, np.int16), np.zeros(80, np.int16)

    def report(self) -> Report:
        return answering(0.8, 1.9)


def item_of(test: str, **phone_limits: float) -> Any:
    """A test of pytest's."""
    marker = pytest.mark.phone_limits(**phone_limits).mark
    return SimpleNamespace(
        nodeid=test,
        stash=pytest.Stash(),
        user_properties=[],
        get_closest_marker=lambda name: marker if phone_limits else None,
    )


def test_a_call_that_is_listened_to_is_judged(tmp_path: Path) -> None:
    gates = Gates(None, tmp_path / "out", lambda: tmp_path)
    item = item_of("t", latency_max=1.0)
    calls: Any = [Listened()]
    assert gates.judge(item, calls, None) == "latency_max is 1.90 s, over 1 s"
    assert ("phone_latency_n", 2) in item.user_properties
    assert gates.conclude() == []
    assert f"<h2>t: {Listened.sid}</h2>" in (tmp_path / "out" / "index.html").read_text()


def test_a_call_of_a_tests_own_that_it_also_listens_to_is_judged_once(tmp_path: Path) -> None:
    class Own(Call):
        sid = Listened.sid  # type: ignore[assignment]  # a property there
        keeps_sound = True  # type: ignore[assignment]  # as above

        def __init__(self) -> None:
            pass

        both_sides = Listened.both_sides  # type: ignore[assignment]  # of another class

        def report(self) -> Report:
            return answering(0.5)

    item = item_of("t", latency_max=1.0)
    calls: Any = [Own(), Listened()]
    assert Gates(None, None, lambda: tmp_path).judge(item, calls, None) is None
    assert ("phone_latency_n", 1) in item.user_properties


def test_a_failed_test_without_a_call_is_on_the_page_with_its_seed(tmp_path: Path) -> None:
    gates = Gates(None, tmp_path / "out", lambda: tmp_path)
    gates.seed = lambda: 7
    gates.judge(item_of("t[<1>]"), [], "CallFailedError: busy")
    gates.judge(item_of("passes"), [], None)
    assert gates.conclude() == []
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<section>") == 1
    for said in ("t[&lt;1&gt;]", "CallFailedError: busy", "--phone-sim --phone-seed 7"):
        assert said in page


def test_who_has_no_cassette_is_told_the_seed_once(tmp_path: Path) -> None:
    (tmp_path / "CA1.cassette").touch()
    failed = [kept.Failed("a", "CA1", 7), kept.Failed("a", "CA2", 7)]
    failed += [kept.Failed("b", None, 7), kept.Failed("c", "CA3", 7), kept.Failed("c", "CA4", 7)]
    failed += [kept.Failed("at Twilio", "CA5", None)]
    out = tmp_path / "out"
    seed = "   (--phone-sim --phone-seed 7)"
    assert kept.keep(failed, tmp_path, out) == [
        f"a: trunkline replay {out}/CA1.cassette{seed}",
        f"b: it has no cassette{seed}",
        f"c: it has no cassette{seed}",
        kept.WHOM,
    ]
    rows = json.loads((out / "failed.json").read_text())
    assert [row["call"] for row in rows] == ["CA1", None, None]
    assert rows[1] == {"test": "b", "call": None, "seed": 7, "command": None}
    assert kept.WHOM not in kept.keep(failed[2:3], tmp_path, out), "there is nothing to play"


def test_a_page_has_nothing_of_another_run(tmp_path: Path) -> None:
    """Of one that was killed, or that goes on at the same time."""
    pages = tmp_path / "out"
    for run in ("killed", "other"):
        (tmp_path / run).mkdir()
        gates = Gates(None, pages, (tmp_path / run).absolute)
        gates.judge(item_of(run), [], "as planted")
    assert gates.conclude() == []
    page = (pages / "index.html").read_text()
    assert "other" in page and "killed" not in page


def test_a_page_that_cannot_be_written_fails_the_run_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (problem,) = Gates(None, tmp_path / "file" / "out", lambda: tmp_path).conclude()
    assert problem == f"--phone-report {tmp_path}/file/out: Not a directory"
