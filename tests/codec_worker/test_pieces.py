"""Calls whose sound is taken in larger pieces: what waits, what does not, and gateways that send in
pairs for them."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.codec_worker.calls import Calls
from trunkline.codec_worker.pairs import ANSWER_NS

from .peers import ADAPTER, CALL, CODES, GATEWAY, SPEECH, Bench, decoded, opened, seconds


def listening(samples: int) -> Bench:
    """A call whose client takes so many samples at a time."""
    bench = opened()
    hear(bench, 0, 1)
    bench.from_adapter(bench.adapter.gather(samples))
    bench.run()
    bench.adapter.sounds = 0
    return bench


def hear(bench: Bench, first: int, frames: int) -> None:
    for n in range(first, first + frames):
        bench.hear(n * 160, CODES[n * 160 : (n + 1) * 160])
        bench.tick()


def test_a_client_that_takes_100_ms_at_a_time_gets_a_fifth_of_the_messages() -> None:
    bench = listening(800)
    hear(bench, 1, 50)
    assert (bench.adapter.sounds, bench.adapter.heard_at) == (10, (1, 51 * 160 - 16))
    hear(bench, 51, 3)
    assert bench.adapter.sounds == 10
    bench.from_adapter(bench.adapter.gather(0))
    bench.run()
    assert bench.adapter.heard_at == (1, 54 * 160 - 16), "what waited comes at once"
    hear(bench, 54, 2)
    assert (bench.adapter.sounds, bench.adapter.heard_at) == (13, (1, 56 * 160 - 16))
    assert np.array_equal(
        np.frombuffer(bytes(bench.adapter.heard), "<i2"), decoded(CODES[: 56 * 160])[: -3 * 16]
    )


def test_a_digit_does_not_overtake_the_sound_before_it() -> None:
    bench = listening(800)
    hear(bench, 1, 3)
    assert bench.adapter.heard_at == (1, 144)
    bench.from_gateway(m.Digit(CALL, bench.gateway.generation, m.DigitIn(1, 1, "5")))
    assert [type(message) for _, message in bench.worker.take_instructions()] == [
        m.Heard,
        m.DigitHeard,
    ]


@pytest.mark.parametrize("gone", [False, True])
def test_sound_does_not_wait_for_a_gateway_that_stands_still_or_is_gone(gone: bool) -> None:
    bench = listening(800)
    hear(bench, 1, 3)
    if gone:
        bench.worker.disconnected(GATEWAY, bench.now)
    else:
        bench.worker.beat(bench.now)
        bench.run()
        assert bench.adapter.heard_at == (1, 144)
        bench.worker.beat(bench.now)
    bench.run()
    assert bench.adapter.heard_at == (1, 4 * 160 - 16)


def told_pairs(calls: Calls, now: int) -> list[bool]:
    """What the gateway is told of pairs now."""
    calls.choose_pairs(now)
    told = calls.take_instructions()
    return [message.on for _, message in told if isinstance(message, m.Pair)]


def test_gateways_send_pairs_while_all_calls_are_taken_in_large_pieces() -> None:
    bench = listening(800)
    calls, now = bench.worker, bench.now
    assert told_pairs(calls, now) == [True]
    assert told_pairs(calls, now) == [], "once"
    calls.receive(ADAPTER, bench.adapter.gather(0), now)
    assert told_pairs(calls, now) == [False]
    calls.receive(ADAPTER, bench.adapter.gather(160), now)
    assert told_pairs(calls, now) == [], "a frame is enough"
    calls.receive(ADAPTER, bench.adapter.gather(161), now)
    assert told_pairs(calls, now) == [True]
    other = replace(bench.gateway.open_call(), call="other")
    calls.receive(GATEWAY, other, now)
    assert told_pairs(calls, now) == [False], "nobody has said in what pieces the other is taken"


def test_a_gateway_whose_call_is_refused_is_told_of_pairs_once_more() -> None:
    """It has ended them, because its call would have been one that nobody takes in pieces yet."""
    bench = listening(800)
    told_pairs(bench.worker, bench.now)
    bench.worker.draining = True
    other = replace(bench.gateway.open_call(), call="other")
    bench.worker.receive(GATEWAY, other, bench.now)
    answers = [message for _, message in bench.worker.take_instructions()]
    assert [type(message) for message in answers] == [m.OpenRefused, m.Pair]
    assert told_pairs(bench.worker, bench.now) == []


def test_speech_is_urgent_unless_all_calls_are_in_the_middle_of_words() -> None:
    bench = listening(800)
    told_pairs(bench.worker, bench.now)
    assert not bench.worker.pairs.all_speak
    bench.speak(SPEECH[: seconds(0.3)])
    found = []
    for _ in range(12):
        told_pairs(bench.worker, bench.now)
        found.append(bench.worker.pairs.all_speak)
        bench.tick()
    assert found == sorted(found, reverse=True)
    assert 3 < sum(found) < 10  # 0.3 s, less the lead and the 100 ms that are left


def test_a_speaker_who_has_said_all_is_answered_before_there_are_pairs_again() -> None:
    bench = listening(800)
    assert told_pairs(bench.worker, bench.now) == [True]
    bench.speak(SPEECH[: seconds(0.05)])
    bench.tick(5)
    ended = bench.worker.ended_at
    assert told_pairs(bench.worker, ended + 1) == [False]
    assert told_pairs(bench.worker, ended + ANSWER_NS - 1) == []
    assert told_pairs(bench.worker, ended + ANSWER_NS) == [True]


def test_acknowledgements_do_not_wait_for_sound() -> None:
    bench = listening(1600)
    bench.speak(SPEECH[: seconds(1)])
    hear(bench, 1, 6)
    assert (bench.adapter.sounds, bench.adapter.acknowledged) == (0, 640 + 6 * 160)
