"""What a hostile run is judged by, and that its page keeps what stands around the table."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.chaos_judge import Verdict
from benchmarks.chaos_score import Injected, Score
from benchmarks.hostile import MARKS, PAGE, REFUSALS, page
from benchmarks.hostile_score import BASELINE, HostileScore, Window


def scored() -> HostileScore:
    """Ten seconds without attackers and twenty with some; everything is well."""
    score = HostileScore(Score(ups=[(1.0, 0.2), (15.0, 0.4)], most_at_once=20))
    score.windows = [
        Window(BASELINE, 0.0, 10.0),
        Window("half bodies", 10.0, 30.0, Counter({"408": 90, "no connection": 10}), counted=90),
    ]
    score.honest.faults = [Injected("codec worker", "SIGKILL", 1, 20.0, 20.0)]
    score.windows[1].attackers.append("half bodies")
    score.windows[1].kinds.add("too slow")
    score.webhooks = [(12.0, 0.1)]
    score.before, score.during = {"gateway": 60.0}, {"gateway": 70.0}
    score.honest.verdicts = [Verdict("CA1", "a-leg", 9.0, 1)]
    return score


def test_a_run_in_which_all_is_refused_and_nobody_is_harmed_has_no_problem() -> None:
    assert scored().problems() == []


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda s: setattr(s.honest.verdicts[0], "lost_in", 2), "2 honest frames were lost"),
        (lambda s: s.honest.verdicts[0].holes.extend([(12.0, 0.05)] * 8), "8 holes under attack"),
        (
            lambda s: s.honest.verdicts[0].holes.extend([(20.1, 0.22)] * 2),
            "a killed worker made a hole of 0.22 s",
        ),
        (lambda s: s.webhooks.append((13.0, 2.5)), "an honest webhook was answered after 2.5 s"),
        (lambda s: s.honest.ups.append((14.0, 3.5)), "a new call was up after 3.5 s"),
        (lambda s: s.unanswered.append("voice, CA1: 503"), "got no answer: voice, CA1: 503"),
        (lambda s: s.during.update(gateway=130.0), "a gateway grew by 70 MB"),
        (lambda s: s.windows[1].outcomes.update(kept=1), "not refused: {'kept': 1}"),
        (lambda s: s.windows[1].outcomes.update({"408": 1}), "91 refused by us, 90 counted"),
        (lambda s: s.windows[1].outcomes.clear(), "no attempt was made"),
        (lambda s: s.windows[1].kinds.clear(), "half bodies: nothing was refused as too slow"),
    ],
)
def test_each_harm_is_a_problem(harm: object, problem: str) -> None:
    score = scored()
    assert callable(harm)
    harm(score)
    (found,) = score.problems()
    assert problem in found


@pytest.mark.parametrize(
    ("calm", "under", "fails"),
    [(0, 0, False), (0, 7, False), (0, 8, True), (3, 6, False), (3, 19, True), (9, 0, False)],
)
def test_more_holes_than_chance_gives_fail_a_run(calm: int, under: int, fails: bool) -> None:
    score = scored()
    score.honest.verdicts[0].holes += [(5.0, 0.03)] * calm + [(12.0, 0.03)] * under
    assert len(score.problems()) == fails


def test_holes_of_a_killed_worker_are_not_judged_by_chance() -> None:
    """All of its calls have one at once, with attackers and without."""
    score = scored()
    score.honest.verdicts[0].holes += [(20.1, 0.12)] * 10
    assert score.problems() == []
    score.honest.faults[0].at = 5.0
    score.honest.verdicts[0].holes += [(5.1, 0.12)] * 30
    assert "10 holes under attack in 20 s; 0 without" in score.problems()[0]


def test_the_metrics_that_count_refusals_are_known() -> None:
    text = (
        'trunkline_gateway_refused_total{kind="too slow"} 3.0\n'
        'trunkline_dropped_messages_total{peer="w1",why="undecodable"} 2.0\n'
        'trunkline_events_total{event="foreign names"} 1.0\n'
        'trunkline_events_total{event="failed InvalidRequestError"} 1.0\n'
        'trunkline_events_total{event="calls inbound"} 40.0\n'
    )
    assert sum(float(value) for _, value in REFUSALS.findall(text)) == 7


def test_the_page_gets_the_table_between_its_marks() -> None:
    before = PAGE.read_text()
    after = page(scored(), 7, 60.0, before)
    assert "| half bodies | 100 | 100 | 90 | 0 | 0 | 0.10 | 0.40 |" in after
    assert after.partition(MARKS[0])[0] == before.partition(MARKS[0])[0]
    assert after.partition(MARKS[1])[2] == before.partition(MARKS[1])[2]
    assert page(scored(), 7, 60.0, after) == after
