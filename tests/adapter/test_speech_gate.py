"""Turns end, and nothing of the words is cut: the gate on the shipped recordings."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import time
from pathlib import Path

import numpy as np
import pytest
from fake_call import FakeCall
from line_sound import (
    NAMES,
    RATE,
    Samples,
    clicks,
    noise,
    pcm,
    power,
    silence,
    with_noise,
    words,
)

from trunkline.adapter.turns import turns
from trunkline.adapter.turns.gate_options import GateOptions
from trunkline.adapter.turns.line_noise import KnownNoise
from trunkline.adapter.turns.spectrum import Spectrum
from trunkline.adapter.turns.speech_gate import GateCounters, SpeechGate
from trunkline.adapter.turns.turns import Heard
from trunkline.bus.testing import FakeClock, until

LEAD = 2.0
TAIL = 0.6  # scenario's response_tail_silence
#: A turn is over so long after its last word: 1.2 s, less what the way takes.
OVER = 1.14
NOISES = [
    ("clean", 0.0),
    *[("white", snr) for snr in (30.0, 20.0, 15.0, 10.0)],
    *[("line", snr) for snr in (20.0, 10.0)],
    *[("pink", snr) for snr in (20.0, 10.0)],
    *[("hum", snr) for snr in (20.0, 10.0, 0.0)],
]


async def turn(heard: Heard, first: float = 60.0, most: float = 30.0) -> bytes:
    """A turn as scenario's adapter makes it."""
    chunk = await heard.next_chunk(first, most_silence=most, first=True)
    chunks = [chunk]
    while chunk and sum(map(len, chunks)) < most * 2 * RATE:
        try:
            chunk = await heard.next_chunk(TAIL, most_silence=most, first=False)
        except TimeoutError:
            break
        chunks.append(chunk)
    return b"".join(chunks)


def gate_turns(sound: Samples, options: GateOptions | None = None) -> list[tuple[int, int, int]]:
    """The first and last sample of each turn, and when it was over, where 0.6 s without speech end
    a turn. Sound comes in 100 ms pieces, as :class:`Heard` has it; but in 20 ms pieces where a turn
    may be over with the next of them."""
    gate, fed = SpeechGate(options), pcm(sound)
    turns: list[tuple[int, int, int]] = []
    spoken: tuple[int, int] | None = None
    fed_to = 0
    while fed_to < len(fed):
        begin, fed_to = fed_to, fed_to + (960 if spoken and not gate.open else 4_800)
        gate.push(fed[begin:fed_to])
        out = gate.take()
        if out:
            end = gate._held_from  # the gate's own count
            spoken = (spoken[0] if spoken else end - len(out) // 2, end)
        elif spoken and gate.silence >= TAIL and not gate.undecided:
            gate.end_answer()
            turns.append((*spoken, fed_to // 2))
            spoken = None
    assert spoken is None, "the last turn did not end"
    return turns


def gate_span(sound: Samples) -> tuple[int, int]:
    """The first and last sample that the gate hands out."""
    turns = gate_turns(sound)
    return turns[0][0], turns[-1][1]


def two_answers(name: str) -> Samples:
    one, two = words(name), words(NAMES[NAMES.index(name) - 1])
    return np.concatenate([silence(LEAD), one, silence(1.5), two, silence(3.0)])


@functools.cache
def decided(name: str, kind: str, snr: float, clicked: bool, /) -> list[tuple[int, int, int]]:
    """The turns of two answers on a line of this kind."""
    line = with_noise(two_answers(name), kind, snr, seed=31, power=power(words(name)))
    return gate_turns(line + clicks(len(line), seed=31) if clicked else line)


@pytest.mark.parametrize(("kind", "snr"), NOISES)
@pytest.mark.parametrize("name", NAMES)
def test_words_are_whole_and_the_end_is_prompt(name: str, kind: str, snr: float) -> None:
    (first, last, _), _ = decided(name, kind, snr, False)
    end = int(LEAD * RATE) + len(words(name))
    clean = two_answers(name)[:end]
    cut = (clean[:first] ** 2).sum() + (clean[last:] ** 2).sum()
    assert cut < 0.001 * (clean**2).sum()
    assert first > (LEAD - 0.35) * RATE, "it opened before the words"
    # scenario ends the turn TAIL later: 1.2 s after the last word, less what the way takes
    assert last + TAIL * RATE < end + 1.12 * RATE


def test_each_turn_is_the_one_that_was_recorded() -> None:
    """``gate_decisions.json`` holds the turns that the gate found when it looked at each 10 ms by
    itself: looking at many frames at once must not move one of them by a sample. Where a turn
    is meant to differ, record them again."""
    recorded = json.loads((Path(__file__).parent / "gate_decisions.json").read_text())
    found = {
        f"{kind} {snr:g} dB, {name}{', clicks' if clicked else ''}": [
            list(turn) for turn in decided(name, kind, snr, clicked)
        ]
        for (kind, snr), name, clicked in itertools.product(NOISES, NAMES, (False, True))
        if not (kind == "hum" and clicked)  # clicks in hum keep a turn open
    }
    assert found.keys() == recorded.keys()
    assert {name: turns for name, turns in found.items() if turns != recorded[name]} == {}


@pytest.mark.parametrize(("kind", "snr"), [("clean", 0.0), ("line", 20.0), ("white", 10.0)])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_handed_out_does_not_depend_on_how_the_sound_is_cut(
    name: str, kind: str, snr: float
) -> None:
    line = np.concatenate([silence(LEAD), words(name), silence(0.9), words(NAMES[0]), silence(2.0)])
    fed = pcm(with_noise(line, kind, snr, seed=9, power=power(words(name))))
    found = set()
    for piece in (480, 960, 1_366, 4_800):
        gate, got = SpeechGate(), bytearray()
        for begin in range(0, len(fed), piece):
            gate.push(fed[begin : begin + piece])
            got += gate.take()
        found.add((bytes(got), gate.onsets, gate.undecided, gate.counters))
    assert len(found) == 1


@pytest.mark.parametrize("kind", ["white", "line", "pink"])
@pytest.mark.parametrize("level", [50.0, 600.0])
def test_noise_that_comes_up_with_the_last_word_ends_the_turn_as_well(
    kind: str, level: float
) -> None:
    said = words(NAMES[2])
    line = np.concatenate([silence(LEAD), said, noise(kind, 4 * RATE, seed=4) * level])
    _, last = gate_span(line)
    assert last + TAIL * RATE < (LEAD + 1.12) * RATE + len(said)


@pytest.mark.parametrize("kind", ["clean", "white", "line", "pink", "hum"])
@pytest.mark.parametrize("level", [20.0, 300.0, 2000.0])
def test_noise_alone_is_no_speech(kind: str, level: float) -> None:
    gate = SpeechGate()
    fed = pcm(noise(kind, 20 * RATE, seed=3) * level)
    for begin in range(0, len(fed), 4800):
        gate.push(fed[begin : begin + 4800])
        assert gate.take() == b""


def test_clicks_neither_open_the_gate_nor_keep_it_open() -> None:
    gate = SpeechGate()
    fed = pcm(clicks(10 * RATE, seed=5))
    for begin in range(0, len(fed), 4800):
        gate.push(fed[begin : begin + 4800])
        assert gate.take() == b""
    said = words(NAMES[0])
    line = np.concatenate([silence(LEAD), said, silence(3.0)])
    _, last = gate_span(line + clicks(len(line), seed=6))
    assert last < (LEAD + 0.5) * RATE + len(said)


@pytest.mark.parametrize("name", NAMES)
def test_clicks_on_the_line_cut_no_word(name: str) -> None:
    said = words(name)
    clean = np.concatenate([silence(LEAD), said, silence(3.0)])
    first, last = gate_span(clean + clicks(len(clean), seed=8))
    cut = (clean[:first] ** 2).sum() + (clean[last:] ** 2).sum()
    assert cut < 0.001 * (clean**2).sum()
    assert last + TAIL * RATE < (LEAD + 1.12) * RATE + len(said)


@pytest.mark.parametrize(("kind", "snr"), [("line", 20.0), ("white", 10.0)])
@pytest.mark.parametrize("name", NAMES)
def test_clicks_in_noise_do_not_hold_a_turn_up(name: str, kind: str, snr: float) -> None:
    said = words(name)
    clean = np.concatenate([silence(LEAD), said, silence(3.0)])
    line = with_noise(clean, kind, snr, seed=21, power=power(said))
    [(_, _, over)] = gate_turns(line + clicks(len(line), seed=21))
    assert over < (LEAD + OVER) * RATE + len(said)


@pytest.mark.parametrize("level", [10.0, 60.0, 200.0])
@pytest.mark.parametrize("name", NAMES)
async def test_comfort_noise_that_fills_what_is_silent_changes_nothing(
    name: str, level: float
) -> None:
    """A network that sends words clean, and noise of its own making between them."""
    one, two = words(name), words(NAMES[0])

    def filled(seconds: float, seed: int) -> Samples:
        return noise("white", round(seconds * RATE), seed) * level

    line = np.concatenate([filled(LEAD, 1), one, filled(0.9, 2), two, filled(3.0, 3)])
    call = FakeCall()
    heard = Heard(call)  # type: ignore[arg-type]  # all that it needs
    call.sound.put(pcm(line))
    got = await turn(heard)
    begin = pcm(line).find(got) / 2
    assert (LEAD - 0.35) * RATE < begin < LEAD * RATE
    end = LEAD * RATE + len(one) + 0.9 * RATE + len(two)
    assert end - 0.02 * RATE < begin + len(got) / 2 < end + 0.6 * RATE


@pytest.mark.parametrize(
    ("kind", "snr"), [("clean", 0.0), ("white", 20.0), ("pink", 10.0), ("hum", 10.0)]
)
@pytest.mark.parametrize("pause", [0.2, 0.5, 0.9])
async def test_a_pause_inside_an_answer_is_delivered_whole(
    pause: float, kind: str, snr: float
) -> None:
    one, two = words(NAMES[1]), words(NAMES[4])
    whole = np.concatenate([silence(LEAD), one, silence(pause), two, silence(2.0)])
    line = with_noise(whole, kind, snr, seed=7, power=power(one))
    call = FakeCall()
    heard = Heard(call)  # type: ignore[arg-type]  # all that it needs
    call.sound.put(pcm(line))
    got = await turn(heard)
    begin = pcm(line).find(got) // 2
    assert begin >= 0, "something was left out"
    assert begin < LEAD * RATE
    assert begin + len(got) // 2 > LEAD * RATE + len(one) + pause * RATE + len(two) * 0.98


@pytest.mark.parametrize("kind", ["white", "line"])
@pytest.mark.parametrize("snr", [10.0, 15.0, 20.0])
@pytest.mark.parametrize("name", NAMES)
def test_words_that_fade_into_noise_still_bridge_the_longest_pause(
    name: str, snr: float, kind: str
) -> None:
    """Their first and last sounds are weaker than the noise in every frame."""
    first, second = words(name), words(NAMES[(NAMES.index(name) + 1) % len(NAMES)])
    whole = np.concatenate([silence(LEAD), first, silence(0.9), second, silence(2.0)])
    said_to = (LEAD + 0.9) * RATE + len(first) + len(second)
    for seed in (7, 11, 12):
        line = with_noise(whole, kind, snr, seed=seed, power=power(first))
        [(begin, end, over)] = gate_turns(line)
        assert begin < LEAD * RATE
        assert end > said_to - 0.25 * RATE
        assert over < said_to + OVER * RATE, "noise was taken for more words"


@pytest.mark.parametrize("kind", ["white", "line"])
@pytest.mark.parametrize("name", NAMES)
def test_noise_is_not_taken_for_words_that_fade(name: str, kind: str) -> None:
    said = words(name)
    clean = np.concatenate([silence(LEAD), said, silence(2.0)])
    for snr, seed in itertools.product((20.0, 15.0, 10.0), range(30, 32)):
        line = with_noise(clean, kind, snr, seed=seed, power=power(said))
        [(_, _, over)] = gate_turns(line)
        assert over < (LEAD + OVER) * RATE + len(said)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("before", "after", "louder"),
    [
        ("white", "hum", 0.0),
        ("white", "line", 6.0),
        ("line", "line", 1.0),
        ("line", "line", 3.0),
        ("line", "line", 10.0),
        ("hum", "white", 0.0),
        ("pink", "line", -6.0),
    ],
)
def test_noise_that_changes_with_the_last_word_holds_a_turn_up_for_a_moment_at_most(
    before: str, after: str, louder: float, name: str
) -> None:
    """It stands out of the noise that was known: no longer than the faintest words may, 0.3 s."""
    said = words(name)
    level = np.sqrt(power(said)) * 10 ** (-15 / 20)
    head = noise(before, int(LEAD * RATE) + len(said), seed=21) * level
    head[int(LEAD * RATE) :] += said
    tail = noise(after, 4 * RATE, seed=22) * level * 10 ** (louder / 20)
    [(_, _, over)] = gate_turns(np.concatenate([head, tail]))
    assert over < (LEAD + OVER + 0.3) * RATE + len(said)


@pytest.mark.parametrize("excess", [1.2, 2.0, 100.0])
def test_doubt_does_not_last(excess: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes on standing out of the noise without being loud: the turn ends."""
    said = words(NAMES[1])
    line = np.concatenate([silence(LEAD), said, silence(3.0)])
    line = with_noise(line, "white", 15.0, seed=5, power=power(said))
    monkeypatch.setattr(KnownNoise, "excess", lambda noise, frame: excess)
    monkeypatch.setattr(KnownNoise, "known", True)
    [(_, _, over)] = gate_turns(line)
    assert over < (LEAD + OVER + 0.3) * RATE + len(said)


async def test_a_longer_pause_parts_two_turns() -> None:
    one, two = words(NAMES[1]), words(NAMES[4])
    line = np.concatenate([silence(LEAD), one, silence(1.4), two, silence(2.0)])
    call = FakeCall()
    heard = Heard(call)  # type: ignore[arg-type]  # all that it needs
    call.sound.put(pcm(line))
    first, second = await turn(heard), await turn(heard)
    assert abs(len(first) / 2 - len(one)) < 0.8 * RATE
    assert abs(len(second) / 2 - len(two)) < 0.8 * RATE


async def test_a_silent_turn_ends_with_its_silence() -> None:
    call = FakeCall()
    heard = Heard(call)  # type: ignore[arg-type]  # all that it needs
    waiting = noise("line", 4 * RATE, seed=1) * 30
    call.sound.put(pcm(waiting[:RATE]))
    turning = asyncio.ensure_future(turn(heard, first=60.0, most=2.0))
    for second in range(1, 4):
        await until(lambda: not len(call.sound))
        call.sound.put(pcm(waiting[second * RATE : (second + 1) * RATE]))
    got = await asyncio.wait_for(turning, 5)
    assert len(got) == 2 * 2 * RATE


class SilentLine(FakeCall):
    """Brings no more sound than it has, and whoever waits for more passes the time by that."""

    def __init__(self, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()

        async def wait(seconds: float, *_: int) -> bool:
            clock.now += seconds
            assert clock.now < 2000.0, "nobody gives up"
            return False

        monkeypatch.setattr(turns, "monotonic", clock)
        monkeypatch.setattr(self.sound, "wait", wait)


async def test_no_speech_in_time_is_a_timeout_outside_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    call = SilentLine(clock, monkeypatch)
    heard = Heard(call)  # type: ignore[arg-type]  # all that it needs
    call.sound.put(pcm(noise("line", RATE, seed=1) * 30))
    began = clock.now
    with pytest.raises(TimeoutError):
        await heard.next_chunk(0.15, most_silence=30.0, first=False)
    assert clock.now - began == pytest.approx(0.15, abs=0.01)


async def test_a_dead_line_times_out_in_a_turn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    heard = Heard(SilentLine(clock, monkeypatch))  # type: ignore[arg-type]  # all that it needs
    began = clock.now
    with pytest.raises(TimeoutError):
        await heard.next_chunk(0.6, most_silence=30.0, first=True)
    assert clock.now - began == pytest.approx(0.6, abs=0.01)


async def test_a_farewell_before_the_hang_up_is_kept() -> None:
    said = words(NAMES[1])
    call = FakeCall()
    heard = Heard(call)  # type: ignore[arg-type]  # all that it needs
    call.sound.put(pcm(np.concatenate([silence(1.0), said])))
    call.end()
    assert heard.has_more
    got = await turn(heard)
    assert pcm(said)[-9600:] in got
    assert not heard.has_more
    assert await heard.next_chunk(1.0, most_silence=30.0, first=False) == b""


async def test_a_call_that_ends_in_silence_has_nothing_more() -> None:
    call = FakeCall()
    heard = Heard(call)  # type: ignore[arg-type]  # all that it needs
    call.sound.put(pcm(noise("line", 3 * RATE, seed=1) * 30))
    call.end()
    assert not heard.has_more
    assert await heard.next_chunk(1.0, most_silence=30.0, first=True) == b""


async def test_music_runs_to_the_cap_and_loses_nothing() -> None:
    rng = np.random.default_rng(2)
    notes = rng.choice([262, 330, 392, 523], 40)
    time_axis = np.arange(RATE // 4) / RATE
    music = np.concatenate(
        [3000 * np.exp(-8 * time_axis) * np.sin(2 * np.pi * n * time_axis) for n in notes]
    )
    call = FakeCall()
    heard = Heard(call)  # type: ignore[arg-type]  # all that it needs
    call.sound.put(pcm(np.concatenate([silence(1.0), music, silence(2.0)])))
    got = b""
    for _ in range(8):
        try:
            got += await turn(heard, first=0.3, most=5.0)
        except TimeoutError:
            break
    assert len(got) >= 0.98 * 2 * len(music)


def test_digital_silence_waits_until_there_is_much_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    hear = Spectrum.hear
    monkeypatch.setattr(
        Spectrum, "hear", lambda self, pcm: (looks.append(len(pcm)), hear(self, pcm))[1]
    )
    gate = SpeechGate()
    for _ in range(250):  # 5 s
        gate.push(bytes(960))
        gate.take()
    assert len(looks) < 35
    assert gate.silence == 5.0
    gate.push(pcm(words(NAMES[0])))
    assert gate.open


def test_what_a_frame_costs() -> None:
    gate, fed = SpeechGate(), pcm(noise("line", 5 * RATE, seed=1) * 300)
    began = time.process_time()
    for begin in range(0, len(fed), 960):
        gate.push(fed[begin : begin + 960])
        gate.take()
    assert (time.process_time() - began) / 250 < 0.002


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hangover", [0.0, 0.1, 0.4, 0.8, 1.5])
def test_the_hangover_is_what_is_handed_out_after_the_last_word(name: str, hangover: float) -> None:
    """A turn ends so much later, too; the words are whole, however short it is."""
    said = words(name)
    clean = np.concatenate([silence(LEAD), said, silence(4.0)])
    line = with_noise(clean, "line", 20.0, seed=11, power=power(said))
    turns = gate_turns(line, GateOptions(hangover=hangover))
    first, (_, last, over) = turns[0][0], turns[-1]
    end = LEAD * RATE + len(said)
    assert first > (LEAD - 0.35) * RATE
    # The last sounds of a word may be as faint as the noise: up to 0.25 s of it.
    assert end + (hangover - 0.25) * RATE < last < end + (hangover + 0.15) * RATE
    assert last + TAIL * RATE <= over < end + (hangover + TAIL + 0.15) * RATE
    if hangover >= 0.4:
        assert len(turns) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_longer_hangover_bridges_a_longer_pause(name: str) -> None:
    line = np.concatenate([silence(LEAD), words(name), silence(1.4), words(NAMES[4]), silence(3.0)])
    assert len(gate_turns(line)) == 2
    assert len(gate_turns(line, GateOptions(hangover=1.2))) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_pre_roll_is_what_is_handed_out_before_the_first_loud_sound(name: str) -> None:
    said = words(name)
    line = with_noise(
        np.concatenate([silence(LEAD), said, silence(2.0)]), "line", 20.0, 11, power(said)
    )
    firsts = {
        roll: gate_turns(line, GateOptions(pre_roll=roll))[0][0] for roll in (0.0, 0.1, 0.3, 1.0)
    }
    loud = firsts[0.0]
    assert (LEAD - 0.05) * RATE < loud < (LEAD + 0.3) * RATE
    assert {roll: loud - first for roll, first in firsts.items()} == {
        roll: round(roll * RATE) for roll in firsts
    }


@pytest.mark.parametrize("hangover", [0.0, 0.4])
@pytest.mark.parametrize("pre_roll", [0.0, 0.3])
def test_within_an_answer_nothing_is_left_out_whatever_the_options(
    hangover: float, pre_roll: float
) -> None:
    one, two = words(NAMES[1]), words(NAMES[4])
    line = np.concatenate([silence(LEAD), one, silence(0.5), two, silence(3.0)])
    gate, fed, got = SpeechGate(GateOptions(pre_roll, hangover)), pcm(line), b""
    for begin in range(0, len(fed), 4800):
        gate.push(fed[begin : begin + 4800])
        got += gate.take()
    begin = fed.find(got) // 2
    assert begin >= 0, "something was left out"
    assert begin < (LEAD + 0.2) * RATE
    assert begin + len(got) // 2 > LEAD * RATE + len(one) + 0.5 * RATE + len(two) - 0.1 * RATE


def test_the_counters_tell_what_was_held_back_and_how_often_speech_began() -> None:
    gate = SpeechGate()
    assert gate.counters == GateCounters(0, 0, 0)
    hiss = noise("line", 2 * RATE, seed=1) * 30
    gate.push(pcm(hiss))
    assert gate.take() == b""
    assert gate.counters == GateCounters(dropped_chunks=20, dropped_ms=2000, onsets=0)
    gate.push(pcm(np.concatenate([words(NAMES[1]), silence(1.4), words(NAMES[1]), silence(1.4)])))
    told = gate.counters
    handed = gate.take()
    total = 2000 + 2 * round(1000 * len(words(NAMES[1])) / RATE) + 2800
    held_back = total - len(handed) / 48
    assert abs(gate.counters.dropped_ms - held_back) <= 1
    assert gate.counters == told, "what is ready is not held back, taken or not"
    assert gate.counters.dropped_chunks == gate.counters.dropped_ms // 100
    assert gate.counters.onsets == 2
    silent = gate.counters.dropped_ms
    assert len(gate.take_silence(0.5)) == 0.5 * 2 * RATE
    assert gate.counters.dropped_ms == silent - 500, "silence that is handed out is not held back"


def test_counters_of_several_calls_add_up() -> None:
    assert GateCounters(1, 150, 2) + GateCounters(0, 80, 1) == GateCounters(2, 230, 3)


async def test_a_farewell_of_two_sentences_that_nobody_has_looked_at_yet_is_kept_whole() -> None:
    one, two = words(NAMES[1]), words(NAMES[4])
    call = FakeCall()
    heard = Heard(call)  # type: ignore[arg-type]  # all that it needs
    call.sound.put(pcm(np.concatenate([silence(1.0), one, silence(0.9), two])))
    call.end()
    assert heard.has_more
    got = await turn(heard)
    assert pcm(one)[:-9600] in got
    assert pcm(two)[-9600:] in got
