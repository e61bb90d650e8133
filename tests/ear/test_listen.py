"""The report: its JSON, its percentiles, its price, and how exact it is."""

from __future__ import annotations

import json

import numpy as np
import pytest
from msgspec.structs import replace

from benchmarks.ear import measure
from benchmarks.ear_calls import RATE, MadeCall, conversation, recordings
from trunkline.carrier_sim.line.line import BadLine
from trunkline.carrier_sim.line.noise import speech_rms
from trunkline.carrier_sim.line.profiles import PROFILES, Profile
from trunkline.carrier_sim.mulaw import decode, encode, frames
from trunkline.ear.figures import Report, spread
from trunkline.ear.listen import listen

#: Every key of the report, in its order. A list has the keys of its items.
SHAPE = {
    "seconds": float,
    "reliable": bool,
    "unreliable_because": list,
    "sides": {"ours": {}, "theirs": {}},
    "answers": {"after", "start", "latency"},
    "yields": {"at", "seconds"},
    "false_yields": {"at"},
    "interruptions_by_them": {"at", "seconds"},
    "talk_over_seconds": float,
    "silences": {"start", "end"},
    "digits": {"at", "side", "digit"},
    "frames_lost": int,
    "jitter_ms": type(None),
    "latency": {"n", "p50", "p90", "p95", "max"},
    "time_to_yield": {"n", "p50", "p90", "p95", "max"},
}


def test_the_json_has_these_keys_and_no_others() -> None:
    ours, theirs = conversation(4).sound()
    report = listen(ours, theirs)
    found = json.loads(report.to_json())
    assert list(found) == list(SHAPE)
    for key, kind in SHAPE.items():
        if isinstance(kind, set):
            items = found[key] if isinstance(found[key], list) else [found[key]]
            assert all(set(item) == kind for item in items), key
        elif isinstance(kind, type):
            assert isinstance(found[key], kind), key
    side = {"segments", "speech_seconds", "level_dbfs", "clipped_frames"}
    assert set(found["sides"]) == {"ours", "theirs"}
    assert set(found["sides"]["ours"]) == side
    assert found["answers"] and found["yields"] and found["silences"]
    assert report["latency"]["max"] == report.latency.max == found["latency"]["max"]
    with pytest.raises(KeyError):
        report["nothing"]


def test_percentiles_need_twenty_samples() -> None:
    assert spread([]).max is None
    few = spread([0.5] * 19)
    assert (few.n, few.p50, few.p90, few.p95, few.max) == (19, None, None, None, 0.5)
    many = spread([n / 100 for n in range(101)])
    assert (many.n, many.p50, many.p90, many.p95, many.max) == (101, 0.5, 0.9, 0.95, 1.0)


@pytest.mark.parametrize(
    ("noise", "p95", "most"),
    [("clean", 20, 60), ("line", 50, 150), ("white", 50, 150), ("pink", 50, 150)],
)
def test_the_ear_is_as_exact_as_the_page_says(noise: str, p95: int, most: int) -> None:
    score = measure(noise, 15.0, calls=12, first=1000)
    for errors in (score.edges, score.latency, score.time_to_yield):
        assert errors.p95 <= p95
        assert errors.most <= most
        assert errors.missed == 0 and errors.made_up <= 1


#: The stand-in's lines, and its noises at other levels.
LINES = PROFILES | {
    f"{kind}, {snr} dB": Profile(shows="", noise=kind, snr=snr)  # type: ignore[arg-type]  # a kind
    for kind in ("hiss", "street", "office", "train")
    for snr in (15, 25)
}
#: Nothing of their sound hides when somebody speaks, so gates can judge on these.
CLEAR = {
    "mobile-good",
    "mobile-bad",
    "tandem",
    "packet-loss",
    "quiet",
    "hiss, 15 dB",
    "hiss, 25 dB",
    "street, 25 dB",
    "office, 25 dB",
}


def on_line(profile: Profile, seed: int) -> Report:
    """A call's report whose far end is on this line."""
    call = conversation(seed)
    ours, theirs = (sound[: len(sound) // 160 * 160] for sound in call.sound())
    line = BadLine(profile, str(seed), speech_rms(theirs.astype(float)))
    came = []
    for said, played in zip(frames(encode(theirs)), frames(encode(ours)), strict=True):
        came.append(line.up(said))
        line.down(played)
    return listen(ours, decode(b"".join(came)))


@pytest.mark.parametrize("name", LINES)
def test_on_every_line_of_the_stand_in_the_ear_is_right_or_says_that_it_is_not(name: str) -> None:
    profile = LINES[name]
    plain = replace(profile, noise=None, echo=None, gain=0.0, codecs=())
    for seed in range(20_000, 20_004):
        found, truth = on_line(profile, seed), on_line(plain, seed)
        if name in CLEAR:
            assert found.reliable, (seed, found.unreliable_because)
        if found.reliable:
            latencies = [answer.latency for answer in truth.answers]
            assert [answer.latency for answer in found.answers] == pytest.approx(
                latencies, abs=0.15
            ), seed
            assert len(found.yields) == len(truth.yields), seed
            assert len(found.interruptions_by_them) == len(truth.interruptions_by_them), seed


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("street", "noise that comes and goes hides where their speech begins and ends"),
        ("train", "noise that comes and goes hides where their speech begins and ends"),
        ("office", "noise that comes and goes hides where their speech begins and ends"),
        ("speaker-phone", "their side has an echo of our speech"),
    ],
)
def test_a_line_that_hides_speech_is_named(name: str, reason: str) -> None:
    for seed in range(20_000, 20_003):
        assert reason in on_line(LINES[name], seed).unreliable_because


def test_a_far_end_that_repeats_all_it_hears_is_no_echo() -> None:
    call = MadeCall(1.0)
    call.say("ours", recordings()[2], 1.0)
    ours, _ = call.sound()
    theirs = np.concatenate([np.zeros(RATE // 5, np.int16), ours])
    assert listen(ours, theirs).reliable
