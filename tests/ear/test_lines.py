"""Calls on the stand-in's lines: where noise or an echo hides their speech, the report says so, and
nowhere else."""

from __future__ import annotations

import functools
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from benchmarks.ear_calls import RATE, MadeCall, conversation, line, recordings
from trunkline.carrier_sim import sounds
from trunkline.carrier_sim.line.line import BadLine
from trunkline.carrier_sim.line.noise import speech_rms
from trunkline.carrier_sim.line.profiles import PROFILES, Profile
from trunkline.carrier_sim.mulaw import decode, encode, frames
from trunkline.ear.figures import Report
from trunkline.ear.levels import Samples
from trunkline.ear.listen import listen

NOISE = "noise that comes and goes hides where their speech begins and ends"
DOUBT = "their pauses are too short to tell noise from their words"
ECHO = "their side has an echo of our speech"
#: What the ear takes off, or what leaves their speech as it is.
JUDGED = ("mobile-good", "mobile-bad", "tandem", "packet-loss", "quiet")
HISS = {f"hiss, {snr} dB": Profile(shows="", noise="hiss", snr=snr) for snr in (15, 20, 30)}


class Said(NamedTuple):
    """A call before it goes over a line: whole frames, and how loud their words are."""

    ours: Samples
    theirs: Samples
    level: float


def said(call: MadeCall) -> Said:
    ours, theirs = (sound[: len(sound) // 160 * 160] for sound in call.sound())
    return Said(ours, theirs, speech_rms(theirs.astype(float)))


# Each of these calls goes over every line, and is made once.


@functools.cache
def talk(seed: int) -> Said:
    return said(conversation(seed))


@functools.cache
def soft_talk(seed: int) -> Said:
    """They are too soft for speech, but for their first words."""
    call = conversation(seed)
    call.tracks["theirs"] *= 0.2
    loud = recordings()[seed % 3] * 0.7
    call.tracks["theirs"][: len(loud)] += loud
    return said(call)


@functools.cache
def short_pauses() -> Said:
    call = MadeCall(1.0)
    call.say("ours", recordings()[0][:RATE], 0.2)
    _, end = call.say("theirs", recordings()[1], 1.5)
    call.say("theirs", recordings()[0], end + 1.0)
    return said(call)


@functools.cache
def short_talk() -> Said:
    call = MadeCall(1.0)
    call.say("ours", recordings()[0][:RATE], 0.2)
    call.say("theirs", recordings()[1], 1.7)
    return said(call)


@functools.cache
def no_pauses() -> Said:
    call = MadeCall(1.0)
    at = 0.0
    for recording in recordings():
        at = call.say("theirs", recording, at + 0.2)[1]
    call.say("ours", recordings()[0], 0.5)
    return said(call)


def through(profile: Profile, call: Said, seed: int) -> tuple[Samples, Samples]:
    """Both sides of a call whose far end is on this line."""
    bad = BadLine(profile, str(seed), call.level)
    came = []
    for theirs, ours in zip(frames(encode(call.theirs)), frames(encode(call.ours)), strict=True):
        came.append(bad.up(theirs))
        bad.down(ours)
    return call.ours, decode(b"".join(came))


def on_line(profile: Profile, call: Said, seed: int) -> Report:
    return listen(*through(profile, call, seed))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("street", NOISE), ("train", NOISE), ("office", NOISE), ("speaker-phone", ECHO)],
)
def test_a_line_that_hides_speech_is_named(name: str, reason: str) -> None:
    for seed in range(20_000, 20_004):
        assert reason in on_line(PROFILES[name], talk(seed), seed).unreliable_because


def test_noise_is_named_beside_a_single_answer() -> None:
    call = MadeCall(16.0)
    call.say("ours", recordings()[2], 1.0)
    call.say("theirs", recordings()[0], 7.5)
    for name in ("street", "train", "office"):
        assert NOISE in on_line(PROFILES[name], said(call), 1).unreliable_because


@pytest.mark.parametrize("name", [*JUDGED, *HISS])
def test_a_line_that_hides_nothing_is_reliable(name: str) -> None:
    for seed in range(20_000, 20_004):
        report = on_line((PROFILES | HISS)[name], talk(seed), seed)
        assert report.reliable, report.unreliable_because


def test_lost_frames_on_a_noisy_line_make_no_words_of_its_noise() -> None:
    lossy = PROFILES["mobile-bad"]
    whole = msgspec.structs.replace(lossy, loss=0.0)
    for seed in (20_001, 20_004, 20_005):
        found, expected = (on_line(each, talk(seed), seed).answers for each in (lossy, whole))
        starts = [answer.start for answer in expected]
        assert [answer.start for answer in found] == pytest.approx(starts, abs=0.02)


@pytest.mark.parametrize("name", [*JUDGED, *HISS])
def test_words_that_are_too_soft_for_speech_are_no_noise(name: str) -> None:
    for seed in range(20_000, 20_004):
        report = on_line((PROFILES | HISS)[name], soft_talk(seed), seed)
        assert NOISE not in report.unreliable_because


def test_lost_frames_beside_soft_words_are_no_noise() -> None:
    call = MadeCall(1.0)
    _, end = call.say("theirs", recordings()[1] * 0.2, 0.5)
    _, end = call.say("ours", recordings()[0][: 2 * RATE], end + 0.3)
    call.say("theirs", recordings()[1], end + 0.8)
    for seed in (4, 11):
        assert NOISE not in on_line(PROFILES["mobile-bad"], said(call), seed).unreliable_because


@pytest.mark.parametrize("name", [*JUDGED, *HISS])
def test_a_call_with_short_pauses_has_no_noise(name: str) -> None:
    for seed in range(3):
        because = on_line((PROFILES | HISS)[name], short_pauses(), seed).unreliable_because
        assert NOISE not in because and DOUBT not in because


@pytest.mark.parametrize("name", [*JUDGED, *HISS])
def test_a_short_call_is_reliable(name: str) -> None:
    report = on_line((PROFILES | HISS)[name], short_talk(), 1)
    assert report.reliable, report.unreliable_because


def test_what_may_be_noise_leaves_a_short_call_in_doubt() -> None:
    for seed in range(3):
        assert on_line(PROFILES["street"], short_talk(), seed).unreliable_because == [DOUBT]


def test_noise_that_leaves_no_pause_leaves_the_call_in_doubt() -> None:
    for seed in range(7):
        assert not on_line(PROFILES["street"], short_pauses(), seed).reliable
        assert not on_line(PROFILES["street"], no_pauses(), seed + 6).reliable


@pytest.mark.parametrize("name", [*JUDGED, *HISS])
def test_music_that_never_pauses_is_no_noise(name: str) -> None:
    call = MadeCall(1.0)
    call.say("ours", recordings()[0][:RATE], 0.2)
    call.say("theirs", decode(sounds.read("music:8")).astype(float), 2.0)
    because = on_line((PROFILES | HISS)[name], said(call), 1).unreliable_because
    assert NOISE not in because and DOUBT not in because


@pytest.mark.parametrize("name", [*JUDGED, *HISS])
def test_a_far_end_that_never_pauses_has_no_noise(name: str) -> None:
    assert on_line((PROFILES | HISS)[name], no_pauses(), 1).reliable


def test_our_own_words_are_never_taken_for_noise() -> None:
    """A call's own sound ends with our words, so a short question may be all of it."""
    question = line(recordings()[3][RATE : 2 * RATE])
    call = MadeCall(8.0)
    call.say("theirs", recordings()[1], 2.0)
    assert listen(question, call.sound()[1]).reliable
    ours, noisy = through(PROFILES["street"], talk(20_000), 1)
    assert NOISE not in listen(noisy, ours).unreliable_because


@pytest.mark.parametrize("gain_db", [0, -12, -24])
def test_a_far_end_that_only_repeats_us_is_no_echo(gain_db: int) -> None:
    call = MadeCall(1.0)
    call.say("ours", recordings()[2], 1.0)
    ours, _ = call.sound()
    softer = np.rint(ours * 10 ** (gain_db / 20)).astype(np.int16)
    assert listen(ours, np.concatenate([np.zeros(RATE // 5, np.int16), softer])).reliable
