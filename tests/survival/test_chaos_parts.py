"""The chaos suite's own parts: sound that tells its place, plans that keep their bounds, the judge
and the score."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import chaos_code
from benchmarks.chaos_code import CODES, FRAME
from benchmarks.chaos_faults import RECOVERS, WEIGHTS, Fault, alone, plan, whole
from benchmarks.chaos_judge import NOT_KNOWN, Verdict, judge, never_sent
from benchmarks.chaos_page import in_words, page
from benchmarks.chaos_run import MachineTooBusyError, busy
from benchmarks.chaos_score import QUIET, Injected, Score
from trunkline.codec_worker import mulaw
from trunkline.codec_worker.resample import LOOKAHEAD, Downsampler, Upsampler


def on_the_wire(first: int, count: int) -> bytes:
    """Numbered frames as a worker encodes them."""
    down = Downsampler()
    history = down.history()
    return down.run([history], [chaos_code.pcm(first, count)])[0] + down.flush([history])[0]


def test_every_frame_is_read_whether_it_came_out_or_in() -> None:
    out = chaos_code.read_ulaw(on_the_wire(0, CODES + 10))
    assert out.numbers == list(range(CODES + 10))  # counted on where the numbers begin again
    up = Upsampler()
    history = up.history()
    ulaw = mulaw.encode(chaos_code.samples(100, 300)).tobytes()
    silence = bytes([mulaw.SILENCE]) * LOOKAHEAD
    pcm = up.run([history], [ulaw + silence])[0]
    heard = chaos_code.read(np.frombuffer(pcm, "<i2")[::3])
    assert heard.numbers == list(range(100, 400))


def test_frames_that_are_missing_or_come_twice_are_told_wherever_they_lie() -> None:
    wire = on_the_wire(0, 400)
    cut = (
        wire[: 100 * FRAME]
        + wire[103 * FRAME + 37 : 200 * FRAME]  # three frames, and the edge of one
        + b"\xff" * 1001
        + wire[198 * FRAME :]  # two again
    )
    heard = chaos_code.read_ulaw(cut)
    assert heard.missing == [(100, 4)]
    assert (heard.lost, heard.doubled) == (4, 2) and heard.numbers != sorted(heard.numbers)
    assert [samples for _, samples in heard.holes()] == pytest.approx([FRAME - 37, 1001], abs=4)


def test_noise_and_silence_are_no_frames() -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(-8000, 8000, 8000).astype(np.int16)
    assert chaos_code.read(noise).numbers == []
    assert chaos_code.read(np.zeros(8000, np.int16)).numbers == []


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_is_its_seeds_and_hits_no_kind_before_it_has_recovered(seed: int) -> None:
    faults = list(plan(seed, 300.0))
    assert faults == list(plan(seed, 300.0))
    assert len(faults) > 100
    assert {(f.kind, f.how) for f in faults} >= {
        ("codec worker", "SIGKILL"),
        ("gateway", "SIGKILL"),
        ("controller", "SIGKILL"),
        ("client", "SIGKILL"),
    }
    last: dict[str, Fault] = {}
    for fault in faults:
        before = last.get(fault.kind)
        if before is not None:
            assert fault.at - (before.at + before.seconds) >= RECOVERS[fault.kind]
        assert fault.at + fault.seconds < 300.0
        last[fault.kind] = fault
    assert sorted(whole(seed, 4)) == sorted(set(whole(seed, 4)))


def test_each_kind_of_fault_comes_once_alone() -> None:
    faults = list(alone(7))
    assert faults == list(alone(7)) != list(alone(8))
    assert [(f.kind, f.how) for f in faults] == list(WEIGHTS)
    assert all((f.seconds > 0) == (f.how == "SIGSTOP") for f in faults)


def scored(*gaps: float, hole: float) -> Score:
    """Worker kills with these seconds between them, and a hole 0.1 s after the first of them."""
    score, at = Score(), 100.0
    for gap in (*gaps, 0.0):
        score.faults.append(Injected("codec worker", "SIGKILL", 1, at, at))
        at += gap
    score.verdicts.append(Verdict("CA1", "a-leg", 10.0, 1, holes=[(100.1, hole)]))
    return score


def test_a_hole_counts_for_a_fault_alone_where_no_other_is_near() -> None:
    assert scored(hole=0.2).fault_rows() == [["codec worker", "SIGKILL", "1", "200", "200 (1)"]]
    assert scored(QUIET, hole=0.2).fault_rows()[0][2:] == ["2", "200", "200 (2)"]
    assert scored(4.9, hole=0.2).fault_rows()[0][2:] == ["2", "200", "–"]
    assert scored(4.9, QUIET, hole=0.2).fault_rows()[0][2:] == ["3", "200", "0 (1)"]


def test_the_page_says_in_words_what_one_fault_costs() -> None:
    score = scored(hole=0.16)
    score.faults.append(Injected("supervisor", "SIGKILL", 2, 200.0, 200.0))
    score.faults.append(Injected("controller", "SIGKILL", 3, 300.0, 300.0))
    assert in_words(score) == [
        "- A codec worker is killed: its calls go on at its standby; a hole of 160 ms at most.",
        "- The controller is killed: sound does not pass through it; no hole at all.",
    ]
    text = page(score, 7, 600.0)
    assert "| supervisor | SIGKILL | 1 | its calls end | its calls end |" in text
    assert "| calls | 1, 0 at once |" in text


def test_bounds_grow_with_the_machines_load_up_to_a_ceiling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def loaded(each_core: float) -> None:
        monkeypatch.setattr("os.cpu_count", lambda: 2)
        monkeypatch.setattr("os.getloadavg", lambda: (2 * each_core, 0.0, 0.0))

    loaded(0.3)
    assert busy() == 1.0
    loaded(2.5)
    assert busy() == 2.5
    loaded(4.1)
    with pytest.raises(MachineTooBusyError, match=r"machine too busy: 4\.1 processes"):
        busy()


def call(streams: list[tuple[float, float]]) -> dict[str, object]:
    return {
        "media_started": 100.0,
        "history": [[100.0, "in-progress"], [110.0, "completed"]],
        "streams": [
            {
                "opened_at": a,
                "ended_at": b,
                "ended_by": "stop" if b == 110.0 else "broken",
                "frames_in": round((b - a) * 50),
                "metrics": {"utterances": [{"ended": b + 0.01, "ended_by": "close"}]},
            }
            for a, b in streams
        ],
    }


def report(**found: object) -> dict[str, object]:
    return {
        "sid": "CA1",
        "kind": "a-leg",
        "first": 7,
        "began": 100.0,
        "ended": 110.0,
        "reason": "hang_up",
        "hung_up": True,
        "problem": "",
        "sent_frames": 400.0,
        "heard_first": 0,
        "heard_span": 500,
        "heard_missing": [],
        "heard_doubled": 0,
        "lost_in": 0.0,
        "lost_out": 0.0,
        "lost_why": {},
    } | found


def test_a_call_is_judged_by_the_carriers_records() -> None:
    played = on_the_wire(7, 400)
    well = judge(report(), call([(100.0, 110.0)]), played)
    assert well.problems == []
    assert (well.lost_in, well.lost_out, well.holes) == (0, 0, [])

    twice = judge(report(), call([(100.0, 110.0)]), played[: 160 * 99] + played[160 * 98 :])
    assert twice.problems == ["1 frames doubled out"]

    silent = played[: 160 * 100] + played[160 * 120 :]
    assert judge(report(), call([(100.0, 110.0)]), silent).problems == [
        "20 frames lost out, 0.0 reported"
    ]
    # With each stream that breaks the frame that was being played counts in part.
    twice_up = call([(100.0, 102.0), (102.4, 110.0)])
    heard = report(lost_in=20.0, heard_span=480)
    assert judge(heard | {"lost_out": 19.0}, twice_up, silent).problems == []
    assert judge(heard | {"lost_out": 18.9}, twice_up, silent).problems == [
        "20 frames lost out, 18.9 reported"
    ]
    # So do those that the carrier, which was late, had not played before it saw the break.
    behind = call([(100.0, 102.0), (102.4, 110.0)])
    behind["streams"][0]["metrics"]["utterances"][0]["ended"] = 101.95  # type: ignore[index]  # see above
    assert judge(heard | {"lost_out": 16.6}, behind, silent).problems == []
    assert judge(heard | {"lost_out": 16.4}, behind, silent).problems == [
        "20 frames lost out, 16.4 reported"
    ]
    assert judge(report(lost_out=19.9), call([(100.0, 110.0)]), silent).problems == [
        "20 frames lost out, 19.9 reported"
    ]

    # A gateway that stood still: all that lay at the carrier, and a message, may have been played.
    assert judge(heard | {"lost_out": 20.0 + 10 + 6}, twice_up, silent).problems == []
    assert judge(heard | {"lost_out": 20.0 + 10 + 6.1}, twice_up, silent).problems == [
        "36.1 frames reported lost out, 20 were"
    ]

    late = report(heard_first=40, heard_span=460)
    assert judge(late, call([(100.0, 110.0)]), played).problems == [
        "40 frames lost in, 0.0 reported"
    ]

    # The last stream broke 2 s before the call's end, and none came again.
    cut_short = report(heard_span=400)
    assert judge(cut_short, call([(100.0, 108.0)]), played).problems == [
        "100 frames lost in, 0.0 reported"
    ]
    assert judge(cut_short | {"lost_in": 100.0}, call([(100.0, 108.0)]), played).problems == []

    # Sound that may have been heard is not said again. Only the carrier knows whether it was.
    doubt = {"may have been played before its stream broke": 20 * 160}
    unsure = report(lost_out=20.0, lost_why=doubt)
    assert judge(unsure, call([(100.0, 110.0)]), played).problems == []
    assert judge(unsure, call([(100.0, 110.0)]), silent).problems == []
    assert judge(report(lost_out=20.0), call([(100.0, 110.0)]), played).problems == [
        "20.0 frames reported lost out, 0 were"
    ]

    gone = report(heard_missing=[(100, 50)], hung_up=False, reason="error")
    assert judge(gone, call([(100.0, 102.0), (103.0, 110.0)]), played).problems == [
        "ended by itself: error",
        "50 frames lost in, 0.0 reported",
    ]
    assert judge(gone, call([(100.0, 102.0), (103.0, 110.0)]), played, cut=True).problems == []


@pytest.mark.parametrize(
    ("failed", "killed", "began", "excused"),
    [
        (NOT_KNOWN, [12.0], [], True),
        (NOT_KNOWN, [12.0], [9.0, 71.0], True),
        ("busy", [12.0], [], False),
        (NOT_KNOWN, [9.0, 71.0], [], False),
        (NOT_KNOWN, [12.0], [13.0], False),
    ],
    ids=["never sent", "other calls", "an answer", "no controller died then", "the carrier has it"],
)
def test_a_dial_fails_without_blame_only_where_a_killed_controller_did_not_send_it(
    failed: str, killed: list[float], began: list[float], excused: bool
) -> None:
    request = {"asked": 10.0, "at": 70.0, "failed": f"DialTimeoutError('no stream; {failed}')"}
    assert never_sent(request, killed, began) is excused
