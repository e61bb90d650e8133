"""A call's sound at the client, against a gateway and two workers in memory."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from call_model import CALL, CallModel, Talker, sends
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.adapter.client.call_audio import (
    DRAIN_SECONDS,
    INTERRUPTED_WITHIN,
    CallAudio,
    Lost,
)
from trunkline.adapter.client.call_instructions import Ended, InterruptDone, MarkDone
from trunkline.adapter.client.outbound import FIRST, GROWTH, MESSAGE, WINDOW
from trunkline.bus import messages as m


def carried(model: CallModel) -> bytes:
    return b"".join(model.carrier[p] for p in sorted(model.carrier))


MOVES = st.one_of(
    st.tuples(st.just("say"), st.integers(0, 3000)),
    st.tuples(st.just("inbound"), st.integers(1, 900)),
    st.tuples(st.sampled_from(["up a", "up b", "down a", "down b", "tick", "tick"]), st.just(1)),
    st.tuples(st.just("settle"), st.just(1)),
    st.tuples(st.just("move"), st.just(1)),
)


@patch("trunkline.adapter.client.outbound.CARRY_SECONDS", float("inf"))
@settings(max_examples=300)
@given(st.lists(MOVES, max_size=60))
def test_nothing_is_doubled_or_missing_whenever_the_call_moves(
    moves: list[tuple[str, int]],
) -> None:
    """Samples that make no whole position are carried for ever here (see CARRY_SECONDS)."""
    model = CallModel()
    talker = Talker(model)
    run(model, talker, moves)
    model.settle()
    whole = len(talker.all_pcm) // 6 * 6
    assert carried(model) == talker.all_pcm[:whole]
    assert sorted(model.carrier) == list(range(whole // 6))
    assert model.heard == model.inbound
    assert model.audio.lost.inbound == 0
    assert {u: len(pcm) // 2 for u, pcm in talker.said} == dict(model.spoken)


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(MOVES, st.tuples(st.just("interrupt"), st.just(1))),
        max_size=60,
    )
)
def test_interrupts_cut_utterances_and_nothing_else(moves: list[tuple[str, int]]) -> None:
    model = CallModel()
    talker = Talker(model)
    run(model, talker, moves)
    model.settle()
    assert model.heard == model.inbound
    # What the carrier got: of each utterance a beginning, in order, nothing twice.
    got = carried(model)
    assert len(model.spoken) == len(talker.said)
    samples = [int.from_bytes(got[i : i + 2], "little") for i in range(0, len(got), 2)]
    assert samples == sorted(set(samples))
    sent = dict(model.spoken)
    for utterance, pcm in talker.said:
        assert 0 <= sent[utterance] <= len(pcm) // 2


def run(model: CallModel, talker: Talker, moves: list[tuple[str, int]]) -> None:
    for move, amount in moves:
        if move == "say":
            talker.say(amount)
        elif move == "inbound":
            model.say_inbound(amount)
        elif move == "tick":
            model.tick()
        elif move == "move":
            model.move()
        elif move == "settle":
            model.settle()
        elif move == "interrupt":
            model.audio.interrupt(model.now)
            model.act()
        elif move.startswith("up"):
            model.up(move[-1])
        else:
            model.down(move[-1])


def test_an_interrupt_tells_how_much_was_sent() -> None:
    model = CallModel()
    talker = Talker(model)
    talker.say(24_000)
    for _ in range(10):
        for name in model.workers:
            while model.up(name) or model.down(name):
                pass
        model.tick()
    sent = model.written
    assert sent > 0
    model.audio.interrupt(model.now)
    model.act()
    talker.say(300)
    model.settle()
    assert model.spoken[0] == (talker.said[0][0], sent * 3)
    assert model.spoken[1][1] == 300
    assert max(model.carrier) == model.audio.out.floor + 99
    assert any(isinstance(e, InterruptDone) for e in model.other)


def test_an_interrupt_without_a_worker_answers_from_what_was_acknowledged(
    model: CallModel, talker: Talker
) -> None:
    talker.say(4800)
    model.up("a")
    model.tick()
    model.down("a")
    model.audio.worker_lost("a", model.now)
    model.audio.interrupt(model.now)
    model.act()
    assert model.spoken == []
    model.audio.poll(model.now + INTERRUPTED_WITHIN)
    model.act()
    assert model.spoken == [(talker.said[0][0], 480)]


def test_more_is_sent_ahead_the_longer_a_talk_lasts_up_to_the_window_and_in_whole_pieces(
    model: CallModel,
) -> None:
    model.audio.say(bytes(6 * 4 * WINDOW), model.now)

    def sent() -> list[int]:
        return [len(s.pcm) // 6 for s in sends(model) if isinstance(s, m.Speak)]

    def acknowledged(position: int) -> None:
        told = m.AcknowledgedTo(CALL, model.generation, position, False)
        model.audio.acknowledge("a", told, model.now)

    assert sent() == [MESSAGE] * (FIRST // MESSAGE)
    acknowledged(160)
    assert sent() == []  # not a whole piece more
    acknowledged(MESSAGE)
    assert sent() == [MESSAGE] * (1 + GROWTH)
    ahead = FIRST + GROWTH * MESSAGE
    for position in range(2 * MESSAGE, 2 * WINDOW, MESSAGE):
        acknowledged(position)
        ahead = min(WINDOW, ahead + GROWTH * MESSAGE)
        sent()
        assert model.audio.out.next == position + ahead
    assert ahead == WINDOW


def test_a_sender_that_gives_up_is_cut_and_the_next_one_is_spoken_whole(
    model: CallModel, talker: Talker
) -> None:
    talker.say(24_000)
    talker.say(2400)
    while model.up("a"):
        pass
    model.tick()
    model.down("a")
    model.audio.give_up(talker.said[0][0], model.now)  # type: ignore[arg-type]  # the test's own list
    model.act()
    model.settle()
    assert carried(model)[-4800:] == talker.said[1][1]
    assert dict(model.spoken)[talker.said[1][0]] == 2400
    assert len(carried(model)) < 48_000


def test_a_sender_that_gives_up_behind_another_takes_nothing_from_it(
    model: CallModel, talker: Talker
) -> None:
    for samples in (4800, 4800, 4800):
        talker.say(samples)
    model.audio.give_up(talker.said[1][0], model.now)  # type: ignore[arg-type]  # the test's own list
    model.act()
    model.settle()
    assert carried(model)[:9600] == talker.said[0][1]
    assert carried(model)[-9600:] == talker.said[2][1]
    assert dict(model.spoken)[talker.said[1][0]] < 4800


def test_left_over_samples_go_with_the_sound_that_follows_soon(
    model: CallModel, talker: Talker
) -> None:
    talker.say(1000)
    model.settle()
    talker.say(1001)
    model.settle()
    assert carried(model) == talker.all_pcm
    talker.say(1)
    model.now += 10
    talker.say(3)
    model.settle()
    assert carried(model)[-6:] == talker.said[-1][1]


def test_digits_are_handed_out_once(model: CallModel) -> None:
    for digit in (m.DigitIn(1, 1, "4"), m.DigitIn(1, 1, "4"), m.DigitIn(1, 2, "4")):
        model.workers["a"].to_adapter.append(m.DigitHeard(CALL, model.generation, digit))
    model.settle()
    assert model.digits == "44"


def test_the_end_waits_for_the_streams_last_word(model: CallModel) -> None:
    model.audio.call_ended("stop", model.now)
    model.act()
    assert not model.audio.finished
    last = m.Sound(CALL, model.generation, 0, 1, 160, 0, bytes(960))
    assert model.audio.heard("a", last, model.now) == bytes(960)
    model.audio.stream_over("a", m.StreamOver(CALL, model.generation, 1, "stop"), model.now)
    model.act()
    assert model.other == [Ended("stop")]


def test_what_came_late_is_told_by_each_worker_at_a_streams_end(model: CallModel) -> None:
    over = m.StreamOver(CALL, model.generation, 1, "error", late=200)
    model.audio.stream_over("a", over, model.now)
    assert model.audio.late == 200
    model.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, 0), model.now)
    over = m.StreamOver(CALL, model.audio.generation, 2, "stop", late=70)
    model.audio.stream_over("b", over, model.now)
    assert model.audio.late == 270
    assert model.audio.lost == Lost(), "late is not lost"


def test_a_call_that_keeps_no_sound_has_no_tape(model: CallModel) -> None:
    audio = CallAudio(CALL, 0.0, taped=False)
    audio.opened("a", m.Opened(CALL, m.first_generation(1), 1, 0), 0.1)
    audio.say(bytes(9600), 0.1)
    audio.heard("a", m.Sound(CALL, audio.generation, 0, 1, 160, 0, bytes(960)), 0.2)
    audio.acknowledge("a", m.AcknowledgedTo(CALL, audio.generation, 160, False), 0.2)
    assert audio.tape is None and audio.heard_samples == 160


def test_the_end_does_not_wait_for_ever(model: CallModel) -> None:
    model.audio.call_ended("hang_up", model.now)
    model.audio.poll(model.now + DRAIN_SECONDS)
    model.act()
    assert model.other == [Ended("hang_up")]


def test_a_call_that_never_had_a_worker_ends_at_once() -> None:
    model = CallModel()
    model.audio.call_ended("error", model.now)
    model.act()
    assert model.other == [Ended("error")]


def test_the_end_settles_who_still_speaks(model: CallModel, talker: Talker) -> None:
    talker.say(48_000)
    model.up("a")
    model.tick()
    model.down("a")
    model.audio.set_mark("m1")
    model.audio.call_ended("stop", model.now)
    model.act()
    assert model.spoken == [(talker.said[0][0], 480)]
    assert MarkDone("m1", False) in model.other


def test_marks_are_set_again_at_the_next_worker(model: CallModel, talker: Talker) -> None:
    talker.say(4800)
    model.audio.set_mark("m1")
    model.act()
    model.move()
    model.down("b")
    marks = [s for s in model.workers["b"].from_adapter if isinstance(s, m.SetMark)]
    assert marks == [m.SetMark(CALL, model.generation, "m1", 1600)]
    model.audio.mark_played("b", m.MarkPlayed(CALL, model.generation, "m1", True))
    model.act()
    assert MarkDone("m1", True) in model.other


@pytest.mark.parametrize("out_next", [None, 0])
def test_a_new_stream_resumes_at_what_was_acknowledged(
    out_next: int | None, model: CallModel, talker: Talker
) -> None:
    talker.say(4800)
    model.up("a")
    model.tick()
    model.down("a")
    model.audio.stream_over("a", m.StreamOver(CALL, model.generation, 1, "error"), model.now)
    opened = m.Opened(CALL, m.first_generation(2), 2, out_next)
    model.audio.opened("b", opened, model.now)
    resume, *speaks = [s for s in sends(model)]
    assert isinstance(resume, m.Resume)
    assert resume.acknowledged == 160
    assert [s.position for s in speaks if isinstance(s, m.Speak)] == [160]


def test_the_next_worker_is_told_the_last_sound_that_was_heard(model: CallModel) -> None:
    """As far as it has no gap."""
    audio, at = model.audio, model.audio.heard_to
    for begin, lost, codes in ((0, 0, b"gone"), (10, 6, b"first"), (12, 0, b"rst, last")):
        stop = at + begin + len(codes)
        pcm = bytes(6 * len(codes))
        sound = m.Sound(CALL, model.generation, at + begin, 1, stop, lost, pcm, codes)
        audio.heard("a", sound, model.now)
    audio.opened("b", m.Opened(CALL, model.generation + 1, 1, 0), model.now)
    (resume,) = [s for s in sends(model) if isinstance(s, m.Resume)]
    assert resume.heard == b"first, last"
