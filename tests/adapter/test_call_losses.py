"""What a call has lost, as its client counts it, against a gateway and two workers in memory."""

from __future__ import annotations

import pytest
from call_model import BEGAN, CALL, FRAME, CallModel, Talker, sends

from trunkline.adapter.client.call_audio import DRAIN_SECONDS, CallAudio
from trunkline.adapter.client.call_instructions import Ended
from trunkline.bus import messages as m
from trunkline.bus.sound import IN_DOUBT, TOO_MUCH_QUEUED, UNPLAYED, WIRE_RATE


@pytest.fixture
def speaking(model: CallModel) -> CallModel:
    """A call for which a worker has played 2 s, and has more to play."""
    speaking_for(model, 2.0)
    return model


def speaking_for(model: CallModel, seconds: float, said: float = 10.0) -> None:
    """A worker acknowledges 80 ms at once and then a frame each 20 ms, as they do. ``said`` is how
    much sound the client gives it (seconds)."""
    model.settle()
    model.audio.say(bytes(round(48_000 * said)), model.now)
    model.act()
    position = 640
    for _ in range(round(seconds * 50)):
        model.audio.acknowledge(
            "a", m.AcknowledgedTo(CALL, model.generation, position, False), model.now
        )
        position += FRAME
        model.now += 0.02
    model.act()


def test_what_never_arrived_is_counted(model: CallModel) -> None:
    sound = m.Sound(CALL, model.generation, 480, 1, 640, 480, bytes(6 * 160))
    model.audio.heard("a", sound, model.now)
    assert model.audio.lost.inbound == 480
    assert model.audio.heard_samples == 160


@pytest.mark.parametrize("ago", [0.0, 1.5])
@pytest.mark.parametrize("missing", [0.5, 0.09])
@pytest.mark.parametrize("last_word", [False, True])
def test_what_is_missing_at_the_end_is_counted(
    last_word: bool, missing: float, ago: float, model: CallModel
) -> None:
    """The gateway stands still when the call ends, or it ended itself and no other came. The end
    may be told later, and nothing is missing from then."""
    sound = m.Sound(CALL, model.generation, 0, 1, 160, 0, bytes(6 * 160))
    model.audio.heard("a", sound, model.now)
    heard_at = BEGAN + FRAME / 8000
    if last_word:
        over = m.StreamOver(CALL, model.generation, 1, "close")
        model.audio.stream_over("a", over, heard_at + 0.05)
    told = heard_at + missing + ago
    model.audio.call_ended("hang_up", told, ago)
    model.audio.poll(told + DRAIN_SECONDS)
    model.act()
    assert model.other == [Ended("hang_up")]
    # The last frame may have waited at its gateway, so up to a frame more is told, and never less.
    assert 0 <= round(model.audio.lost.inbound - missing * 8000) <= FRAME


def test_nothing_is_missing_at_an_end_that_the_stream_has_confirmed(model: CallModel) -> None:
    sound = m.Sound(CALL, model.generation, 0, 1, 160, 0, bytes(6 * 160))
    model.audio.heard("a", sound, model.now)
    model.audio.call_ended("hang_up", model.now + 0.5)
    model.audio.stream_over("a", m.StreamOver(CALL, model.generation, 1, "stop"), model.now + 0.6)
    model.act()
    assert model.other == [Ended("hang_up")]
    assert model.audio.lost.inbound == 0


@pytest.mark.parametrize("out_next", [None, 800])
@pytest.mark.parametrize("told", ["worker", "stream"])
def test_what_lay_at_the_carrier_is_lost_where_no_worker_is_left_to_say_so(
    told: str, out_next: int | None, speaking: CallModel
) -> None:
    if told == "worker":
        speaking.audio.worker_lost("a", speaking.now)
    else:
        speaking.audio.stream_gone(1, speaking.now)
    speaking.now += 1.5
    # The new stream's worker knows nothing of the call, or what it knows is old.
    speaking.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, out_next), speaking.now)
    unplayed = speaking.audio.lost.reasons[UNPLAYED]
    assert 480 <= unplayed <= 640
    speaking.audio.opened("b", m.Opened(CALL, m.first_generation(3), 3, None), speaking.now)
    assert speaking.audio.lost.reasons[UNPLAYED] == unplayed  # once


def test_what_may_have_been_played_unacknowledged_is_not_said_again(speaking: CallModel) -> None:
    """The worker dies, and a second later the gateway: what the worker had sent since its last
    acknowledgement was written, and the carrier had the time to play it."""
    acknowledged = speaking.audio.out.acknowledged
    sends(speaking)
    speaking.audio.worker_lost("a", speaking.now)
    speaking.now += 1.0
    speaking.audio.stream_gone(1, speaking.now)
    speaking.now += 0.5
    before = speaking.audio.lost.outbound
    speaking.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, None), speaking.now)
    resume, first, *_ = sends(speaking)
    assert isinstance(resume, m.Resume) and isinstance(first, m.Speak)
    passed = resume.acknowledged - acknowledged
    # A frame since the last acknowledgement, two on their way, and one more in their message.
    assert passed == 4 * FRAME
    assert first.position == resume.acknowledged
    assert speaking.audio.lost.reasons[IN_DOUBT] == passed
    assert speaking.audio.lost.outbound >= before + passed


@pytest.mark.parametrize("out_next", [None, 16_480])
def test_a_worker_that_is_stopped_or_leaves_has_not_told_all(
    out_next: int | None, speaking: CallModel
) -> None:
    """Nobody has lost it; but another takes the next stream, and may have had the call before."""
    assert speaking.audio.out.acknowledged == 16_480
    speaking.audio.stream_gone(1, speaking.now)
    speaking.now += 1.0
    sends(speaking)
    # What it knows of losses is older than what is counted here.
    speaking.audio.opened(
        "b", m.Opened(CALL, m.first_generation(2), 2, out_next, 9_999), speaking.now
    )
    resume, first, *_ = sends(speaking)
    assert isinstance(resume, m.Resume) and isinstance(first, m.Speak)
    assert resume.acknowledged == first.position == 16_480 + 4 * FRAME
    assert speaking.audio.lost.reasons[IN_DOUBT] == 4 * FRAME
    assert speaking.audio.lost.outbound <= 4 * FRAME + 640


def test_a_worker_that_has_just_begun_may_have_filled_up_the_lead(model: CallModel) -> None:
    """It acknowledged one frame, and sent the next ones in one go before it died."""
    model.settle()
    model.audio.say(bytes(48_000), model.now)
    model.act()
    model.audio.acknowledge("a", m.AcknowledgedTo(CALL, model.generation, FRAME, False), model.now)
    sends(model)
    model.now += 0.005
    model.audio.worker_lost("a", model.now)
    model.audio.stream_gone(1, model.now + 1.0)
    model.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, None), model.now + 1.5)
    resume, *_ = sends(model)
    assert isinstance(resume, m.Resume)
    # 80 ms lie at the carrier, and 40 ms may have been on their way.
    assert resume.acknowledged >= (4 + 2) * FRAME
    assert model.audio.lost.reasons[IN_DOUBT] == resume.acknowledged - FRAME


def tell_the_end(model: CallModel, worker: str, unplayed: int) -> None:
    """The worker says that stream 1 broke, and how much sound lay at the carrier."""
    generation = model.audio.generation
    model.audio.loss(worker, m.Loss(CALL, generation, "outbound", unplayed, UNPLAYED))
    over = m.StreamOver(CALL, generation, 1, "error")
    model.audio.stream_over(worker, over, model.now)


def hear_until_now(model: CallModel) -> None:
    """The far end's sound came all the while since the call began."""
    positions = round((model.now - BEGAN) * WIRE_RATE)
    sound = m.Sound(CALL, model.generation, 0, 1, positions, 0, bytes(positions * 6))
    model.audio.heard("a", sound, model.now)


@pytest.mark.parametrize("late", [1.9, 5.3])
@pytest.mark.parametrize("said", [10.0, 2.06])
def test_the_controller_may_tell_late_that_the_stream_is_gone(
    said: float, late: float, model: CallModel
) -> None:
    """It gives a gateway that says nothing 2 s, and it may have stood still itself. The stream
    broke with the last acknowledgement, whether more was to be said or not."""
    speaking_for(model, 2.0, said)
    hear_until_now(model)
    told = model.now + late
    model.audio.stream_gone(1, told)
    model.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, None), told + 0.1)
    assert model.audio.lost.reasons[UNPLAYED] in range(480, 640 + 1)


def test_the_end_of_a_stream_may_be_read_once_the_next_one_is_up(speaking: CallModel) -> None:
    """It says nothing of the next stream, with which another worker begins and dies."""
    speaking.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, None), speaking.now)
    speaking.audio.stream_gone(1, speaking.now)
    assert speaking.audio.stream_gone_at is None
    acknowledged = speaking.audio.out.acknowledged + FRAME
    told = m.AcknowledgedTo(CALL, m.first_generation(2), acknowledged, False)
    speaking.audio.acknowledge("b", told, speaking.now)
    speaking.audio.worker_lost("b", speaking.now)
    sends(speaking)
    speaking.audio.opened("c", m.Opened(CALL, m.first_generation(3), 3, None), speaking.now + 1.0)
    (resume,) = [s for s in sends(speaking) if isinstance(s, m.Resume)]
    assert resume.acknowledged > acknowledged, "the carrier may have played more"


def test_a_stream_that_was_out_of_sight_may_have_played_what_came_after(model: CallModel) -> None:
    """Its gateway had stood still for a while. Later it is gone indeed, with its worker."""
    model.audio.stream_gone(1, model.now)
    model.audio.stream_there(1)
    speaking_for(model, 2.0)
    acknowledged = model.audio.out.acknowledged
    model.audio.worker_lost("a", model.now)
    model.audio.stream_gone(1, model.now)
    sends(model)
    model.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, None), model.now + 1.0)
    (resume,) = [s for s in sends(model) if isinstance(s, m.Resume)]
    assert resume.acknowledged > acknowledged


def test_a_client_that_was_stopped_has_read_all_of_a_worker_that_lives(speaking: CallModel) -> None:
    """No more is in doubt than where the client had run: nothing was cut off."""
    since = speaking.now
    speaking.now += 1.0
    speaking.audio.stalled(since, speaking.now + 0.06)
    speaking.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, None), speaking.now)
    assert speaking.audio.lost.reasons[IN_DOUBT] <= 1280


def test_what_is_said_once_the_stream_is_gone_is_not_in_doubt(model: CallModel) -> None:
    model.audio.stream_gone(1, model.now)
    model.audio.say(bytes(48_000), model.now)  # to the worker, which is stopped
    model.act()
    model.now += 1.0
    model.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, None), model.now)
    assert model.audio.lost.outbound == 0


@pytest.mark.parametrize("passed_over", [None, 0, 2 * FRAME])
def test_a_worker_that_has_told_the_streams_end_has_told_all(
    passed_over: int | None, speaking: CallModel
) -> None:
    """But the worker of the next stream may have had the call before, and go on behind the sound
    that it had sent then. Nobody has counted that."""
    acknowledged = speaking.audio.out.acknowledged
    tell_the_end(speaking, "a", 500)
    speaking.audio.worker_lost("a", speaking.now + 0.1)
    sends(speaking)
    out_next = None if passed_over is None else acknowledged + passed_over
    opened = m.Opened(CALL, m.first_generation(2), 2, out_next, 9_999)
    speaking.audio.opened("b", opened, speaking.now + 1.0)
    (resume,) = [s for s in sends(speaking) if isinstance(s, m.Resume)]
    assert resume.acknowledged == acknowledged + (passed_over or 0)
    assert speaking.audio.lost.outbound == 500 + (passed_over or 0)


def test_the_loss_of_a_stream_is_counted_once_though_two_workers_tell_it(
    speaking: CallModel,
) -> None:
    """The worker dies once it has told the stream's end, and the gateway tells another one."""
    acknowledged = speaking.audio.out.acknowledged
    tell_the_end(speaking, "a", 500)
    speaking.audio.worker_lost("a", speaking.now)
    second = speaking.generation + 1
    speaking.audio.opened("b", m.Opened(CALL, second, 1, acknowledged), speaking.now)
    tell_the_end(speaking, "b", 500)
    third = m.Opened(CALL, m.first_generation(2), 2, acknowledged, 500)
    speaking.audio.opened("b", third, speaking.now)
    assert speaking.audio.lost.reasons == {UNPLAYED: 500}


def test_sound_that_was_too_much_says_nothing_of_what_lies_at_the_carrier(
    speaking: CallModel,
) -> None:
    lost = m.Loss(CALL, speaking.generation, "outbound", 7, TOO_MUCH_QUEUED)
    speaking.audio.loss("a", lost)
    speaking.audio.worker_lost("a", speaking.now)
    speaking.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, None), speaking.now)
    assert speaking.audio.lost.reasons[UNPLAYED] in range(480, 640 + 1)


def test_what_an_interrupt_skipped_did_not_lie_at_the_carrier(model: CallModel) -> None:
    """Positions go on behind all that was queued: a second of it was never sent."""
    model.audio.say(bytes(48_000), model.now)
    model.audio.interrupt(model.now)
    floor = model.audio.out.floor
    assert floor == 8000
    model.audio.interrupted("a", m.Interrupted(CALL, model.generation, 1, 0), model.now)
    model.audio.say(bytes(48_000), model.now)
    for position in (floor, floor + 480, floor + 640):
        model.audio.acknowledge(
            "a", m.AcknowledgedTo(CALL, model.generation, position, False), model.now
        )
    model.audio.worker_lost("a", model.now)
    model.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, None), model.now)
    assert model.audio.lost.reasons[UNPLAYED] == 640


def test_an_acknowledgement_that_died_with_its_worker_is_sound_at_the_carrier_too(
    model: CallModel,
) -> None:
    model.audio.say(bytes(48_000), model.now)
    model.audio.acknowledge("a", m.AcknowledgedTo(CALL, model.generation, 160, False), model.now)
    model.audio.worker_lost("a", model.now)
    model.audio.opened("b", m.Opened(CALL, model.generation + 1, 1, 640), model.now)
    model.audio.worker_lost("b", model.now)
    model.audio.opened("a", m.Opened(CALL, m.first_generation(2), 2, None), model.now)
    assert model.audio.lost.reasons[UNPLAYED] == 640


def test_what_lay_at_the_carrier_is_not_counted_where_the_worker_does_or_it_was_played() -> None:
    model = CallModel()
    speaking_for(model, 2.0)
    acknowledged = model.audio.out.acknowledged
    opened = m.Opened(CALL, m.first_generation(2), 2, acknowledged, 480)
    for _ in range(2):
        model.audio.opened("a", opened, model.now)  # it may be told again
        assert model.audio.lost.reasons == {UNPLAYED: 480}

    model = CallModel()
    speaking_for(model, 2.0, said=2.06)
    assert model.audio.out.acknowledged == model.audio.out.end  # nothing more waits
    model.now += 5.0  # nothing was said since
    hear_until_now(model)
    model.audio.stream_gone(1, model.now)
    model.audio.opened("b", m.Opened(CALL, m.first_generation(2), 2, None), model.now)
    assert not model.audio.lost.reasons


def test_streams_that_brought_nothing_count_as_time_in_which_nothing_was_heard() -> None:
    model = CallModel()
    model.now += 4.0
    opened = m.Opened(CALL, m.first_generation(2), 2, None)
    model.audio.opened("b", opened, model.now)
    (resume,) = [s for s in sends(model) if isinstance(s, m.Resume)]
    assert (resume.ordinal, resume.idle) == (0, 4.0)


def test_the_first_stream_begins_with_what_it_brings() -> None:
    model = CallModel()
    model.now += 4.0
    model.down("a")
    (resume,) = [s for s in model.workers["a"].from_adapter if isinstance(s, m.Resume)]
    assert (resume.ordinal, resume.idle) == (0, 0.0)


def test_a_first_stream_need_not_have_the_ordinal_1() -> None:
    """A controller that was restarted leaves ordinals out."""
    model = CallModel()
    model.audio = CallAudio(CALL, model.now, first=17)
    model.now += 4.0
    model.audio.opened("b", m.Opened(CALL, m.first_generation(17), 17, None), model.now)
    (resume,) = [s for s in sends(model) if isinstance(s, m.Resume)]
    assert (resume.ordinal, resume.idle) == (0, 0.0)


def test_what_comes_late_of_a_stream_that_is_over_is_as_old_as_that(model: CallModel) -> None:
    """Stream 2 broke before it brought anything; all that came was what the filter had held back
    of stream 1."""
    heard = m.Sound(CALL, model.generation, 0, 1, 784, 0, bytes(784 * 6))
    model.audio.heard("a", heard, model.now)
    model.now += 1.5
    model.audio.opened("a", m.Opened(CALL, m.first_generation(2), 2, None), model.now)
    tail = m.Sound(CALL, m.first_generation(2), 784, 1, 800, 0, bytes(16 * 6))
    model.audio.heard("a", tail, model.now)
    model.audio.take_instructions()
    model.now += 0.1
    model.audio.opened("a", m.Opened(CALL, m.first_generation(3), 3, None), model.now)
    (resume,) = [s for s in sends(model) if isinstance(s, m.Resume)]
    assert (resume.ordinal, resume.position) == (1, 800)
    assert resume.idle == pytest.approx(1.6 - 16 / 8000)


def test_sound_was_said_before_its_stream_was_gone() -> None:
    """The stream had waited to be let in with 1.5 s of sound when the client heard of the call, and
    broke at once. Its worker does not run until a second stream is up."""
    model = CallModel()
    model.now += 0.3
    model.audio.stream_gone(1, model.now)
    model.now += 2.0
    model.audio.opened("a", m.Opened(CALL, m.first_generation(1), 1, 0), model.now)
    sound = m.Sound(CALL, m.first_generation(1), 0, 1, 12_000, 0, bytes(12_000 * 6))
    model.audio.heard("a", sound, model.now)
    sends(model)
    model.audio.opened("a", m.Opened(CALL, m.first_generation(2), 2, 0), model.now)
    (resume,) = [s for s in sends(model) if isinstance(s, m.Resume)]
    assert resume.idle == pytest.approx(2.0)


@pytest.mark.parametrize("opened", ["in time", "late"])
def test_what_waited_for_a_worker_that_did_not_run_is_as_old_as_it_is(opened: str) -> None:
    """Its gateway was killed meanwhile, so what was said since is lost, and has to be counted."""
    model = CallModel()
    if opened == "in time":
        model.settle()
    model.now += 0.1 + 0.8  # it was said in 100 ms, and handed out 800 ms later
    model.down("a")
    heard = m.Sound(CALL, model.generation, 0, 1, 800, 0, bytes(800 * 6))
    model.audio.heard("a", heard, model.now)
    model.audio.take_instructions()
    model.now += 0.5
    model.audio.opened("a", m.Opened(CALL, m.first_generation(2), 2, None), model.now)
    (resume,) = [s for s in sends(model) if isinstance(s, m.Resume)]
    assert resume.idle == pytest.approx(1.3, abs=0.05)


def test_what_waited_here_for_long_does_not_all_lie_at_the_carrier(
    model: CallModel, talker: Talker
) -> None:
    """Acknowledgements of a second come at once; the stream is gone, and so is its worker: what it
    may have had written after the last of them is not said again."""
    talker.say(96_000)
    since, now = model.now, model.now + 1.5
    model.audio.acknowledge("a", m.AcknowledgedTo(CALL, model.generation, 160, False), since)
    model.audio.stalled(since, now + 0.06)
    for position in range(160, 8000, 160):
        model.audio.acknowledge("a", m.AcknowledgedTo(CALL, model.generation, position, False), now)
    model.audio.worker_lost("a", now)
    model.audio.opened("b", m.Opened(CALL, (2 << 16), 2, None), now + 0.06)
    lost = model.audio.lost.reasons
    assert lost[UNPLAYED] <= 0.08 * 8000
    in_doubt = lost[IN_DOUBT]
    assert 0.4 * 8000 <= in_doubt <= 0.6 * 8000
    assert model.audio.out.acknowledged == 7840 + in_doubt


def test_what_lay_at_the_carrier_is_the_lead_and_a_frame_where_no_more_was_seen(
    model: CallModel, talker: Talker
) -> None:
    """The client stands still from the first word on, so it has seen no acknowledgement come."""
    talker.say(96_000)
    since, now = model.now, model.now + 1.5
    model.audio.stalled(since, now + 0.06)
    for position in (640, 960, 1280):
        model.audio.acknowledge("a", m.AcknowledgedTo(CALL, model.generation, position, False), now)
    model.audio.worker_lost("a", now)
    model.audio.opened("b", m.Opened(CALL, (2 << 16), 2, None), now + 0.06)
    assert model.audio.lost.reasons[UNPLAYED] == 0.08 * 8000
