"""A call's sound at the client, against a gateway and two workers in memory."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from line_model import CALL, FRAME, LineModel

from trunkline.adapter.client.call_audio import (
    DRAIN_SECONDS,
    IN_DOUBT,
    INTERRUPTED_WITHIN,
    Ended,
    InterruptDone,
    MarkDone,
    Send,
)
from trunkline.adapter.client.outbound import FIRST, GROWTH, MESSAGE, WINDOW
from trunkline.bus import messages as m


class Talker:
    """Makes sound whose every sample tells its number."""

    def __init__(self, line: LineModel) -> None:
        self.line = line
        self.samples = 0
        self.said: list[tuple[object, bytes]] = []

    def say(self, samples: int) -> None:
        pcm = b"".join(((self.samples + i) % 65_536).to_bytes(2, "little") for i in range(samples))
        self.samples += samples
        utterance = self.line.audio.say(pcm, self.line.now)
        self.said.append((utterance, pcm))
        self.line.act()

    @property
    def all_pcm(self) -> bytes:
        return b"".join(pcm for _, pcm in self.said)


def carried(line: LineModel) -> bytes:
    return b"".join(line.carrier[p] for p in sorted(line.carrier))


def sends(line: LineModel) -> list[m.ToWorker]:
    return [e.message for e in line.audio.effects() if isinstance(e, Send)]


MOVES = st.one_of(
    st.tuples(st.just("say"), st.integers(0, 3000)),
    st.tuples(st.just("inbound"), st.integers(1, 900)),
    st.tuples(st.sampled_from(["up a", "up b", "down a", "down b", "tick", "tick"]), st.just(1)),
    st.tuples(st.just("settle"), st.just(1)),
    st.tuples(st.just("switch"), st.just(1)),
)


@patch("trunkline.adapter.client.outbound.CARRY_SECONDS", float("inf"))
@settings(max_examples=300, deadline=None)
@given(st.lists(MOVES, max_size=60))
def test_nothing_is_doubled_or_missing_whenever_the_call_moves(
    moves: list[tuple[str, int]],
) -> None:
    """Samples that make no whole position are carried for ever here (see CARRY_SECONDS)."""
    line = LineModel()
    talker = Talker(line)
    run(line, talker, moves)
    line.settle()
    whole = len(talker.all_pcm) // 6 * 6
    assert carried(line) == talker.all_pcm[:whole]
    assert sorted(line.carrier) == list(range(whole // 6))
    assert line.heard == line.inbound
    assert line.audio.lost.inbound == 0
    assert {u: len(pcm) // 2 for u, pcm in talker.said} == dict(line.spoken)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(MOVES, st.tuples(st.just("interrupt"), st.just(1))),
        max_size=60,
    )
)
def test_interrupts_cut_utterances_and_nothing_else(moves: list[tuple[str, int]]) -> None:
    line = LineModel()
    talker = Talker(line)
    run(line, talker, moves)
    line.settle()
    assert line.heard == line.inbound
    # What the carrier got: of each utterance a beginning, in order, nothing twice.
    got = carried(line)
    assert len(line.spoken) == len(talker.said)
    samples = [int.from_bytes(got[i : i + 2], "little") for i in range(0, len(got), 2)]
    assert samples == sorted(set(samples))
    sent = dict(line.spoken)
    for utterance, pcm in talker.said:
        assert 0 <= sent[utterance] <= len(pcm) // 2


def run(line: LineModel, talker: Talker, moves: list[tuple[str, int]]) -> None:
    for move, amount in moves:
        if move == "say":
            talker.say(amount)
        elif move == "inbound":
            line.say_inbound(amount)
        elif move == "tick":
            line.tick()
        elif move == "switch":
            line.switch()
        elif move == "settle":
            line.settle()
        elif move == "interrupt":
            line.audio.interrupt(line.now)
            line.act()
        elif move.startswith("up"):
            line.up(move[-1])
        else:
            line.down(move[-1])


def test_an_interrupt_tells_how_much_was_sent() -> None:
    line = LineModel()
    talker = Talker(line)
    talker.say(24_000)
    for _ in range(10):
        for name in line.workers:
            while line.up(name) or line.down(name):
                pass
        line.tick()
    sent = line.written
    assert sent > 0
    line.audio.interrupt(line.now)
    line.act()
    talker.say(300)
    line.settle()
    assert line.spoken[0] == (talker.said[0][0], sent * 3)
    assert line.spoken[1][1] == 300
    assert max(line.carrier) == line.audio.out.floor + 99
    assert any(isinstance(e, InterruptDone) for e in line.other)


def test_an_interrupt_without_a_worker_answers_from_what_was_acknowledged() -> None:
    line = LineModel()
    talker = Talker(line)
    line.settle()
    talker.say(4800)
    line.up("a")
    line.tick()
    line.down("a")
    line.audio.worker_lost("a", line.now)
    line.audio.interrupt(line.now)
    line.act()
    assert line.spoken == []
    line.audio.poll(line.now + INTERRUPTED_WITHIN)
    line.act()
    assert line.spoken == [(talker.said[0][0], 480)]


def test_more_is_sent_ahead_the_longer_a_talk_lasts_up_to_the_window_and_in_whole_pieces() -> None:
    line = LineModel()
    line.settle()
    line.audio.say(bytes(6 * 4 * WINDOW), line.now)

    def sent() -> list[int]:
        return [len(s.pcm) // 6 for s in sends(line) if isinstance(s, m.Speak)]

    def acknowledged(position: int) -> None:
        told = m.AcknowledgedTo(CALL, line.generation, position, False)
        line.audio.acknowledge("a", told, line.now)

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
        assert line.audio.out.next == position + ahead
    assert ahead == WINDOW


def test_a_sender_that_gives_up_is_cut_and_the_next_one_is_spoken_whole() -> None:
    line = LineModel()
    talker = Talker(line)
    line.settle()
    talker.say(24_000)
    talker.say(2400)
    while line.up("a"):
        pass
    line.tick()
    line.down("a")
    line.audio.give_up(talker.said[0][0], line.now)  # type: ignore[arg-type]  # the test's own list
    line.act()
    line.settle()
    assert carried(line)[-4800:] == talker.said[1][1]
    assert dict(line.spoken)[talker.said[1][0]] == 2400
    assert len(carried(line)) < 48_000


def test_a_sender_that_gives_up_behind_another_takes_nothing_from_it() -> None:
    line = LineModel()
    talker = Talker(line)
    line.settle()
    for samples in (4800, 4800, 4800):
        talker.say(samples)
    line.audio.give_up(talker.said[1][0], line.now)  # type: ignore[arg-type]  # the test's own list
    line.act()
    line.settle()
    assert carried(line)[:9600] == talker.said[0][1]
    assert carried(line)[-9600:] == talker.said[2][1]
    assert dict(line.spoken)[talker.said[1][0]] < 4800


def test_left_over_samples_go_with_the_sound_that_follows_soon() -> None:
    line = LineModel()
    talker = Talker(line)
    line.settle()
    talker.say(1000)
    line.settle()
    talker.say(1001)
    line.settle()
    assert carried(line) == talker.all_pcm
    talker.say(1)
    line.now += 10
    talker.say(3)
    line.settle()
    assert carried(line)[-6:] == talker.said[-1][1]


def test_digits_are_handed_out_once() -> None:
    line = LineModel()
    line.settle()
    for digit in (m.DigitIn(1, 1, "4"), m.DigitIn(1, 1, "4"), m.DigitIn(1, 2, "4")):
        line.workers["a"].to_adapter.append(m.DigitHeard(CALL, line.generation, digit))
    line.settle()
    assert line.digits == "44"


def test_what_never_arrived_is_counted() -> None:
    line = LineModel()
    line.settle()
    sound = m.Sound(CALL, line.generation, 480, 1, 640, 480, bytes(6 * 160))
    line.audio.heard("a", sound, line.now)
    assert line.audio.lost.inbound == 480
    assert line.audio.heard_samples == 160


def test_the_end_waits_for_the_streams_last_word() -> None:
    line = LineModel()
    line.settle()
    line.audio.call_ended("stop", line.now)
    line.act()
    assert not line.audio.finished
    line.audio.heard("a", m.Sound(CALL, line.generation, 0, 1, 160, 0, bytes(960)), line.now)
    line.audio.stream_over("a", m.StreamOver(CALL, line.generation, 1, "stop"), line.now)
    line.act()
    assert line.heard == bytes(960)
    assert line.other == [Ended("stop")]


def test_the_end_does_not_wait_for_ever() -> None:
    line = LineModel()
    line.settle()
    line.audio.call_ended("hang_up", line.now)
    line.audio.poll(line.now + DRAIN_SECONDS)
    line.act()
    assert line.other == [Ended("hang_up")]


@pytest.mark.parametrize("last_word", [False, True])
def test_what_is_missing_at_the_end_is_counted(last_word: bool) -> None:
    """The gateway stands still when the call ends, or it ended itself and no other came."""
    line = LineModel()
    line.settle()
    sound = m.Sound(CALL, line.generation, 0, 1, 160, 0, bytes(6 * 160))
    line.audio.heard("a", sound, line.now)
    heard_at = line.now
    if last_word:
        over = m.StreamOver(CALL, line.generation, 1, "close")
        line.audio.stream_over("a", over, heard_at + 0.2)
    line.audio.call_ended("hang_up", heard_at + 0.5)
    line.audio.poll(heard_at + 0.5 + DRAIN_SECONDS)
    line.act()
    assert line.other == [Ended("hang_up")]
    assert line.audio.lost.inbound == pytest.approx(4000, abs=FRAME)


def test_nothing_is_missing_at_an_end_that_the_stream_has_confirmed() -> None:
    line = LineModel()
    line.settle()
    sound = m.Sound(CALL, line.generation, 0, 1, 160, 0, bytes(6 * 160))
    line.audio.heard("a", sound, line.now)
    line.audio.call_ended("hang_up", line.now + 0.5)
    line.audio.stream_over("a", m.StreamOver(CALL, line.generation, 1, "stop"), line.now + 0.6)
    line.act()
    assert line.other == [Ended("hang_up")]
    assert line.audio.lost.inbound == 0


def test_a_call_that_never_had_a_worker_ends_at_once() -> None:
    line = LineModel()
    line.audio.call_ended("error", line.now)
    line.act()
    assert line.other == [Ended("error")]


def test_the_end_settles_who_still_speaks() -> None:
    line = LineModel()
    talker = Talker(line)
    line.settle()
    talker.say(48_000)
    line.up("a")
    line.tick()
    line.down("a")
    line.audio.set_mark("m1")
    line.audio.call_ended("stop", line.now)
    line.act()
    assert line.spoken == [(talker.said[0][0], 480)]
    assert MarkDone("m1", False) in line.other


def test_marks_are_set_again_at_the_next_worker() -> None:
    line = LineModel()
    talker = Talker(line)
    line.settle()
    talker.say(4800)
    line.audio.set_mark("m1")
    line.act()
    line.switch()
    line.down("b")
    marks = [s for s in line.workers["b"].from_adapter if isinstance(s, m.SetMark)]
    assert marks == [m.SetMark(CALL, line.generation, "m1", 1600)]
    line.audio.mark_played("b", m.MarkPlayed(CALL, line.generation, "m1", True))
    line.act()
    assert MarkDone("m1", True) in line.other


@pytest.mark.parametrize("out_next", [None, 0])
def test_a_new_stream_resumes_at_what_was_acknowledged(out_next: int | None) -> None:
    line = LineModel()
    talker = Talker(line)
    line.settle()
    talker.say(4800)
    line.up("a")
    line.tick()
    line.down("a")
    line.audio.stream_over("a", m.StreamOver(CALL, line.generation, 1, "error"), line.now)
    opened = m.Opened(CALL, m.first_generation(2), 2, out_next)
    line.audio.opened("b", opened, line.now)
    resume, *speaks = [s for s in sends(line)]
    assert isinstance(resume, m.Resume)
    assert resume.acknowledged == 160
    assert [s.position for s in speaks if isinstance(s, m.Speak)] == [160]


UNPLAYED = "unplayed at the carrier when its stream broke"


def speaking_for(line: LineModel, seconds: float) -> None:
    """A worker acknowledges 60 ms at once and then a frame each 20 ms, as they do."""
    line.settle()
    line.audio.say(bytes(48_000 * 10), line.now)
    line.act()
    position = 480
    for _ in range(round(seconds * 50)):
        line.audio.acknowledge(
            "a", m.AcknowledgedTo(CALL, line.generation, position, False), line.now
        )
        position += FRAME
        line.now += 0.02
    line.act()


@pytest.mark.parametrize("out_next", [None, 800])
@pytest.mark.parametrize("told", ["worker", "stream"])
def test_what_lay_at_the_carrier_is_lost_where_no_worker_is_left_to_say_so(
    told: str, out_next: int | None
) -> None:
    line = LineModel()
    speaking_for(line, 2.0)
    if told == "worker":
        line.audio.worker_lost("a", line.now)
    else:
        line.audio.stream_gone(line.now)
    line.now += 1.5
    # The new stream's worker knows nothing of the call, or what it knows is old.
    line.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, out_next), line.now)
    unplayed = line.audio.lost.reasons[UNPLAYED]
    assert 480 <= unplayed <= 640
    line.audio.opened("b", m.Opened(CALL, m.first_generation(3), 3, None), line.now)
    assert line.audio.lost.reasons[UNPLAYED] == unplayed  # once


def test_what_may_have_been_played_unacknowledged_is_not_said_again() -> None:
    """The worker dies, and a second later the gateway: what the worker had sent since its last
    acknowledgement was written, and the carrier had the time to play it."""
    line = LineModel()
    speaking_for(line, 2.0)
    acknowledged = line.audio.out.acknowledged
    sends(line)
    line.audio.worker_lost("a", line.now)
    line.now += 1.0
    line.audio.stream_gone(line.now)
    line.now += 0.5
    before = line.audio.lost.outbound
    line.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, None), line.now)
    resume, first, *_ = sends(line)
    assert isinstance(resume, m.Resume) and isinstance(first, m.Speak)
    passed = resume.acknowledged - acknowledged
    assert passed == 3 * FRAME  # a frame since the last acknowledgement, two on their way
    assert first.position == resume.acknowledged
    assert line.audio.lost.reasons[IN_DOUBT] == passed
    assert line.audio.lost.outbound >= before + passed


@pytest.mark.parametrize("out_next", [None, 16_320])
def test_a_worker_that_is_stopped_or_leaves_has_not_told_all(out_next: int | None) -> None:
    """Nobody has lost it; but another takes the next stream, and may have had the call before."""
    line = LineModel()
    speaking_for(line, 2.0)
    assert line.audio.out.acknowledged == 16_320
    line.audio.stream_gone(line.now)
    line.now += 1.0
    sends(line)
    # What it knows of losses is older than what is counted here.
    line.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, out_next, 9_999), line.now)
    resume, first, *_ = sends(line)
    assert isinstance(resume, m.Resume) and isinstance(first, m.Speak)
    assert resume.acknowledged == first.position == 16_320 + 3 * FRAME
    assert line.audio.lost.reasons[IN_DOUBT] == 3 * FRAME
    assert line.audio.lost.outbound <= 3 * FRAME + 640


def test_the_controller_may_tell_late_that_the_stream_is_gone() -> None:
    """It gives a gateway that says nothing 2 s. The worker was stopped all the while."""
    line = LineModel()
    speaking_for(line, 2.0)
    line.audio.stream_gone(line.now + 1.9)
    line.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, None), line.now + 2.0)
    assert line.audio.lost.reasons[UNPLAYED] in range(480, 640 + 1)


def test_a_client_that_was_stopped_has_read_all_of_a_worker_that_lives() -> None:
    """No more is in doubt than where the client had run: nothing was cut off."""
    line = LineModel()
    speaking_for(line, 2.0)
    since = line.now
    line.now += 1.0
    line.audio.stalled(since, line.now + 0.06)
    line.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, None), line.now)
    assert line.audio.lost.reasons[IN_DOUBT] <= 1280


def test_what_is_said_once_the_stream_is_gone_is_not_in_doubt() -> None:
    line = LineModel()
    line.settle()
    line.audio.stream_gone(line.now)
    line.audio.say(bytes(48_000), line.now)  # to the worker, which is stopped
    line.act()
    line.now += 1.0
    line.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, None), line.now)
    assert line.audio.lost.outbound == 0


def test_a_worker_that_has_told_the_streams_end_has_told_all() -> None:
    line = LineModel()
    speaking_for(line, 2.0)
    acknowledged = line.audio.out.acknowledged
    line.audio.loss("a", m.Loss(CALL, line.generation, "outbound", 500, UNPLAYED))
    line.audio.stream_over("a", m.StreamOver(CALL, line.generation, 1, "error"), line.now)
    line.audio.worker_lost("a", line.now + 0.1)
    sends(line)
    line.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, None), line.now + 1.0)
    assert [s.acknowledged for s in sends(line) if isinstance(s, m.Resume)] == [acknowledged]
    assert line.audio.lost.reasons == {UNPLAYED: 500}


def test_what_an_interrupt_skipped_did_not_lie_at_the_carrier() -> None:
    """Positions go on behind all that was queued: a second of it was never sent."""
    line = LineModel()
    line.settle()
    line.audio.say(bytes(48_000), line.now)
    line.audio.interrupt(line.now)
    floor = line.audio.out.floor
    assert floor == 8000
    line.audio.interrupted("a", m.Interrupted(CALL, line.generation, 1, 0), line.now)
    line.audio.say(bytes(48_000), line.now)
    for position in (floor, floor + 480, floor + 640):
        line.audio.acknowledge(
            "a", m.AcknowledgedTo(CALL, line.generation, position, False), line.now
        )
    line.audio.worker_lost("a", line.now)
    line.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, None), line.now)
    assert line.audio.lost.reasons[UNPLAYED] == 640


def test_an_acknowledgement_that_died_with_its_worker_is_sound_at_the_carrier_too() -> None:
    line = LineModel()
    line.settle()
    line.audio.say(bytes(48_000), line.now)
    line.audio.acknowledge("a", m.AcknowledgedTo(CALL, line.generation, 160, False), line.now)
    line.audio.worker_lost("a", line.now)
    line.audio.opened("b", m.Opened(CALL, line.generation + 1, 1, 640), line.now)
    line.audio.worker_lost("b", line.now)
    line.audio.opened("a", m.Opened(CALL, m.first_generation(2), 2, None), line.now)
    assert line.audio.lost.reasons[UNPLAYED] == 640


def test_what_lay_at_the_carrier_is_not_counted_where_the_worker_does_or_it_was_played() -> None:
    line = LineModel()
    speaking_for(line, 2.0)
    acknowledged = line.audio.out.acknowledged
    opened = m.Opened(CALL, m.first_generation(2), 2, acknowledged, 480)
    for _ in range(2):
        line.audio.opened("a", opened, line.now)  # it may be told again
        assert line.audio.lost.reasons == {UNPLAYED: 480}

    line = LineModel()
    speaking_for(line, 2.0)
    line.now += 5.0  # nothing was said since
    line.audio.stream_gone(line.now)
    line.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, None), line.now)
    assert UNPLAYED not in line.audio.lost.reasons


def test_streams_that_brought_nothing_count_as_time_in_which_nothing_was_heard() -> None:
    line = LineModel()
    line.now += 4.0
    opened = m.Opened(CALL, m.first_generation(2), 2, None)
    line.audio.opened("b", opened, line.now)
    (resume,) = [s for s in sends(line) if isinstance(s, m.Resume)]
    assert (resume.ordinal, resume.idle) == (0, 4.0)


def test_the_first_stream_begins_with_what_it_brings() -> None:
    line = LineModel()
    line.now += 4.0
    line.down("a")
    (resume,) = [s for s in line.workers["a"].from_adapter if isinstance(s, m.Resume)]
    assert (resume.ordinal, resume.idle) == (0, 0.0)


def test_what_comes_late_of_a_stream_that_is_over_is_as_old_as_that() -> None:
    """Stream 2 broke before it brought anything; all that came was what the filter had held back
    of stream 1."""
    line = LineModel()
    line.settle()
    heard = m.Sound(CALL, line.generation, 0, 1, 784, 0, bytes(784 * 6))
    line.audio.heard("a", heard, line.now)
    line.now += 1.5
    line.audio.opened("a", m.Opened(CALL, m.first_generation(2), 2, None), line.now)
    tail = m.Sound(CALL, m.first_generation(2), 784, 1, 800, 0, bytes(16 * 6))
    line.audio.heard("a", tail, line.now)
    line.audio.effects()
    line.now += 0.1
    line.audio.opened("a", m.Opened(CALL, m.first_generation(3), 3, None), line.now)
    (resume,) = [s for s in sends(line) if isinstance(s, m.Resume)]
    assert (resume.ordinal, resume.position) == (1, 800)
    assert resume.idle == pytest.approx(1.6 - 16 / 8000)


@pytest.mark.parametrize("opened", ["in time", "late"])
def test_what_waited_for_a_worker_that_did_not_run_is_as_old_as_it_is(opened: str) -> None:
    """Its gateway was killed meanwhile, so what was said since is lost, and has to be counted."""
    line = LineModel()
    if opened == "in time":
        line.settle()
    line.now += 0.1 + 0.8  # it was said in 100 ms, and handed out 800 ms later
    line.down("a")
    heard = m.Sound(CALL, line.generation, 0, 1, 800, 0, bytes(800 * 6))
    line.audio.heard("a", heard, line.now)
    line.audio.effects()
    line.now += 0.5
    line.audio.opened("a", m.Opened(CALL, m.first_generation(2), 2, None), line.now)
    (resume,) = [s for s in sends(line) if isinstance(s, m.Resume)]
    assert resume.idle == pytest.approx(1.3, abs=0.05)


def test_what_waited_here_for_long_does_not_all_lie_at_the_carrier() -> None:
    """Acknowledgements of a second come at once; the stream is gone, and so is its worker: what it
    may have had written after the last of them is not said again."""
    line = LineModel()
    line.settle()
    talker = Talker(line)
    talker.say(96_000)
    since, now = line.now, line.now + 1.5
    line.audio.acknowledge("a", m.AcknowledgedTo(CALL, line.generation, 160, False), since)
    line.audio.stalled(since, now + 0.06)
    for position in range(160, 8000, 160):
        line.audio.acknowledge("a", m.AcknowledgedTo(CALL, line.generation, position, False), now)
    line.audio.worker_lost("a", now)
    line.audio.opened("b", m.Opened(CALL, (2 << 16), 2, None), now + 0.06)
    lost = line.audio.lost.reasons
    assert lost[UNPLAYED] <= 0.08 * 8000
    in_doubt = lost[IN_DOUBT]
    assert 0.4 * 8000 <= in_doubt <= 0.6 * 8000
    assert line.audio.out.acknowledged == 7840 + in_doubt
