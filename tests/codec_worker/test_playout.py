"""Playout as a script of what happens: late ticks, starvation, interrupts, lost streams."""

from __future__ import annotations

import pytest

from trunkline.bus.sound import FRAME
from trunkline.codec_worker import playout as playouts
from trunkline.codec_worker.playout import (
    DEFAULT_LEAD_NS,
    SAMPLE_NS,
    FlushTail,
    Frame,
    Playout,
    PlayoutError,
    Range,
    SendMark,
)

from .carrier import MS, Carrier, Pump, sound

T0 = 1_000_000 * MS


def started(frames: int = 50, **options: int) -> tuple[Playout, Pump, Carrier]:
    """A playout that has just sent the lead of ``frames`` frames of speech at T0."""
    playout, carrier = Playout(**options), Carrier()
    pump = Pump(playout, carrier)
    pump.speak(sound(frames * FRAME))
    pump.tick(T0)
    return playout, pump, carrier


def test_the_lead_goes_out_at_once_then_a_frame_each_20_ms() -> None:
    playout, pump, carrier = started()
    assert [f.position for f in carrier.frames] == [0, 160, 320, 480]  # at T0, T0 + 20, + 40, + 60
    assert playout.next_due() == T0 + 20 * MS
    assert pump.tick(T0 + 20 * MS - 1) == []
    assert pump.tick(T0 + 20 * MS) == [Frame(640, sound(160, 640))]
    for n in range(2, 60):
        pump.tick(T0 + n * 20 * MS)
    assert carrier.sound == sound(50 * FRAME)
    assert len(carrier.gaps) == 1  # before the first frame
    assert playout.underruns == 0
    assert playout.frames_out == 50


def test_a_caller_that_comes_each_20_ms_never_finds_less_than_the_lead() -> None:
    playout, carrier = Playout(), Carrier()
    pump = Pump(playout, carrier)
    pump.speak(sound(50 * FRAME))
    pump.tick(T0, T0 + 7 * MS)  # speech arrived between two ticks
    for n in range(40):
        now = T0 + 7 * MS + n * 20 * MS
        assert carrier.ends - now >= 60 * MS
        assert len(pump.tick(now, now + 20 * MS)) == 1
    assert carrier.deepest <= 100 * MS


def test_where_frames_go_together_the_first_is_due_and_the_others_are_early() -> None:
    playout, carrier = Playout(), Carrier()
    pump = Pump(playout, carrier, together=2)
    pump.speak(sound(9 * FRAME))
    pump.tick(T0)
    sizes = [(f.position // FRAME, len(f.payload) // FRAME) for f in carrier.frames]
    assert sizes == [(0, 2), (2, 2)]  # the lead, and the frame that is due at T0
    assert pump.tick(T0 + 20 * MS) == [Frame(4 * FRAME, sound(2 * FRAME, 4 * FRAME))]
    assert playout.next_due() == T0 + 60 * MS
    assert pump.tick(T0 + 40 * MS) == []
    assert pump.tick(T0 + 60 * MS) == [Frame(6 * FRAME, sound(2 * FRAME, 6 * FRAME))]
    for n in range(4, 10):  # half a frame less than one is left, and goes by itself
        pump.tick(T0 + n * 20 * MS)
    assert carrier.sound == sound(9 * FRAME)
    assert playout.frames_out == 9
    assert len(carrier.gaps) == 1
    assert carrier.deepest == 100 * MS


def test_a_frame_does_not_wait_for_another_to_go_with() -> None:
    playout, carrier = Playout(), Carrier()
    pump = Pump(playout, carrier, held=0, together=2)
    pump.speak(sound(4 * FRAME))
    pump.tick(T0)
    for n in range(1, 20):  # a source that is never more than a frame ahead
        pump.speak(sound(FRAME, (3 + n) * FRAME))
        done = pump.tick(T0 + n * 20 * MS)
        assert done == [Frame((3 + n) * FRAME, sound(FRAME, (3 + n) * FRAME))]


def test_how_long_the_buffer_was_dry_follows_from_what_lies_there_now() -> None:
    """The gateway stood still from 65 to 300 ms. It had written a pair that it had not told of, and
    writes what waited for it as it wakes."""
    playout, carrier = Playout(), Carrier()
    playout.speak(0, sound(50 * FRAME))
    carrier.take(playout.due(T0, together=2), T0)
    playout.acknowledge(640, T0)
    carrier.take(playout.due(T0 + 60 * MS, together=2), T0 + 60 * MS)  # 80 to 160 ms
    waits = [*playout.due(T0 + 120 * MS, together=2), *playout.due(T0 + 160 * MS, together=2)]
    carrier.take(waits, woke := T0 + 300 * MS)
    assert len(carrier.gaps) == 2 and playout.underruns == 0
    told = woke + 15 * MS
    playout.acknowledge(
        playout.position, told + 3 * MS, told - 17 * MS, (carrier.ends - told) // SAMPLE_NS
    )
    (_, dry) = carrier.gaps[1]
    assert playout.underruns == 1
    assert dry - 17 * MS <= playout.underrun_ns <= dry
    # So what is sent next finds the lead there, or a little more, and never less.
    due_at = playout.next_due()
    assert due_at is not None
    assert 60 * MS <= carrier.ends - due_at <= 77 * MS


def test_a_late_tick_within_the_lead_keeps_the_timeline() -> None:
    playout, pump, carrier = started()
    for n in range(1, 6):
        pump.tick(T0 + n * 20 * MS)
    pump.tick(T0 + 100 * MS + 79 * MS)  # 59 ms late
    assert [f.position // FRAME for f in carrier.frames[-3:]] == [9, 10, 11]
    assert playout.underruns == 0
    assert len(carrier.gaps) == 1
    assert playout.next_due() == T0 + 180 * MS


def test_a_later_tick_moves_the_line_by_just_the_underrun() -> None:
    playout, pump, carrier = started()
    for n in range(1, 6):
        pump.tick(T0 + n * 20 * MS)
    dry = carrier.ends
    assert dry == T0 + 180 * MS
    pump.tick(dry + 33 * MS)
    assert (playout.underruns, playout.underrun_ns) == (1, 33 * MS)
    assert carrier.gaps[1:] == [(9 * FRAME, 33 * MS)]
    assert [f.position // FRAME for f in carrier.frames[-4:]] == [9, 10, 11, 12]  # the lead again
    assert playout.next_due() == dry + 33 * MS + 20 * MS
    assert carrier.deepest == 80 * MS


def test_a_start_with_less_than_the_lead_waits_for_more() -> None:
    playout, carrier = Playout(), Carrier()
    pump = Pump(playout, carrier)
    for n in range(40):  # a source in real time, a frame at a time
        pump.speak(sound(FRAME, n * FRAME))
        pump.tick(T0 + n * 20 * MS)
    assert carrier.starts[0] == T0 + 40 * MS  # as soon as 60 ms were there
    assert len(carrier.gaps) == 1
    assert pump.flushes == []
    assert playout.underruns == 0


def test_a_short_sound_alone_goes_out_when_it_has_waited() -> None:
    playout, carrier = Playout(), Carrier()
    pump = Pump(playout, carrier)
    pump.speak(sound(100))
    assert pump.tick(T0) == []
    assert playout.next_due() == T0 + 60 * MS
    assert pump.tick(T0 + 60 * MS) == [Frame(0, sound(100))]
    assert playout.next_due() is None


def test_starved_it_waits_until_20_ms_before_the_buffer_is_dry_then_flushes() -> None:
    playout, pump, carrier = started(frames=10)
    for n in range(1, 8):
        pump.tick(T0 + n * 20 * MS)
    # Nine whole frames are out, the buffer is dry at 180 ms; 144 samples are in hand, 16 held back.
    assert carrier.ends == T0 + 180 * MS
    assert (playout.unsent, pump.flushes) == (144, [])
    assert playout.next_due() == T0 + 160 * MS
    assert pump.tick(T0 + 160 * MS - 1) == []
    pump.tick(T0 + 160 * MS)
    assert pump.flushes == [10 * FRAME - 16]
    assert carrier.sound == sound(10 * FRAME)
    assert len(carrier.gaps) == 1


def test_a_chunk_within_the_grace_joins_without_a_seam() -> None:
    _, pump, carrier = started(frames=10)
    for n in range(1, 8):
        pump.tick(T0 + n * 20 * MS)
    pump.speak(sound(10 * FRAME, 10 * FRAME))  # at 150 ms
    for n in range(8, 30):
        pump.tick(T0 + n * 20 * MS)
    assert carrier.sound == sound(20 * FRAME)
    assert len(carrier.gaps) == 1
    assert pump.flushes == [20 * FRAME - 16]


def test_speech_that_comes_before_the_buffer_is_dry_still_joins_after_the_flush() -> None:
    playout, pump, carrier = started(frames=10)
    for n in range(1, 9):
        pump.tick(T0 + n * 20 * MS)
    assert pump.flushes
    dry = carrier.ends
    pump.speak(sound(FRAME * 3, 10 * FRAME))
    pump.tick(dry - 1 * MS)
    assert len(carrier.gaps) == 1
    assert carrier.starts[10 * FRAME] == dry
    assert playout.underruns == 0


def test_speech_after_a_pause_begins_a_new_line_and_that_is_no_underrun() -> None:
    playout, pump, carrier = started(frames=10)
    for n in range(1, 12):
        pump.tick(T0 + n * 20 * MS)
    later = T0 + 5_003 * MS
    pump.speak(sound(10 * FRAME, 10 * FRAME))
    pump.tick(later)
    assert carrier.starts[10 * FRAME] == later
    assert playout.underruns == 0
    assert playout.next_due() == later + 20 * MS


def test_repeated_speech_is_ignored_and_a_gap_is_refused() -> None:
    playout = Playout(next_position=480)
    playout.speak(480, sound(320, 480))
    playout.speak(480, sound(320, 480))
    playout.speak(640, sound(320, 640))  # half of it is new
    assert (playout.end, playout.unsent) == (960, 480)
    with pytest.raises(PlayoutError, match="speech at 961 leaves a gap: 960 is next"):
        playout.speak(961, b"x")
    frames = [i for i in playout.due(T0) if isinstance(i, Frame)]
    assert b"".join(f.payload for f in frames) == sound(480, 480)


def test_an_interrupt_drops_what_is_queued_and_clears_what_lies_at_the_carrier() -> None:
    playout, pump, carrier = started()
    playout.acknowledge(640, T0)
    playout.mark("end", 50 * FRAME)
    done = playout.interrupt(1, 50 * FRAME, T0 + 10 * MS)
    assert done is not None
    assert (done.sent_to, done.next_position, done.playback) == (640, 8000, 1)
    assert done.cleared == Range(80, 640)
    assert done.dropped == Range(640, 50 * FRAME - 16)
    assert done.unplayed_marks == ("end",)
    assert pump.tick(T0 + 500 * MS) == []
    assert playout.next_due() is None
    carrier.clear(T0 + 10 * MS)
    pump.rest = b""
    playout.speak(8000, sound(800, 8000))
    assert playout.due(T0 + 600 * MS)[0] == Frame(8000, sound(160, 8000))
    assert playout.underruns == 0


def test_an_interrupt_is_done_once_and_speech_may_jump_after_it_only() -> None:
    playout = Playout()
    playout.speak(0, sound(1600))
    first = playout.interrupt(1, 1600, T0)
    assert playout.interrupt(1, 1600, T0) is None
    assert playout.last_interruption is first
    playout.speak(2400, sound(800, 2400))  # further than promised: still legal
    with pytest.raises(PlayoutError, match="gap"):
        playout.speak(4000, b"x")
    with pytest.raises(PlayoutError, match="resumes at 100, spoken to 3200"):
        playout.interrupt(2, 100, T0)
    assert playout.playback == 1


def test_marks_follow_the_sound_before_them_and_are_forgotten_by_a_clear() -> None:
    playout = Playout()
    playout.speak(0, sound(480))
    playout.mark("b", 320)
    playout.mark("a", 150)
    done = playout.due(T0)
    assert [type(i) for i in done] == [Frame, SendMark, Frame, SendMark, Frame]
    assert done[1] == SendMark("a")
    assert playout.mark_returned("a")
    assert not playout.mark_returned("a")  # twice
    playout.interrupt(1, 480, T0)
    assert not playout.mark_returned("b")  # came back by the clear
    playout.mark("c", 400)
    assert playout.next_due() == 0
    assert playout.due(T0) == [SendMark("c")]
    assert playout.mark_returned("c")


def test_frames_that_go_together_do_not_pass_a_mark() -> None:
    playout = Playout()
    playout.speak(0, sound(6 * FRAME))
    playout.mark("m", 3 * FRAME)
    done = playout.due(T0, together=2)
    assert [type(i) for i in done] == [Frame, Frame, Frame, SendMark, Frame]
    assert isinstance(done[-1], Frame)
    assert len(done[-1].payload) == 2 * FRAME


def test_what_a_mark_says_was_played_is_not_lost_when_the_stream_breaks() -> None:
    playout, pump, _ = started()
    playout.mark("m", 640)
    pump.tick(T0 + 20 * MS)
    playout.acknowledge(800, T0 + 20 * MS)
    assert playout.mark_returned("m")  # the carrier is a little ahead of the model
    assert playout.freeze(T0 + 79 * MS) == Range(640, 800)


def test_without_a_stream_nothing_is_sent_and_the_lead_is_lost() -> None:
    playout, pump, _ = started()
    playout.acknowledge(480, T0)  # the fourth frame never reached the socket
    lost = playout.freeze(T0 + 20 * MS)
    assert lost == Range(160, 480)
    assert playout.lost == 320
    assert pump.tick(T0 + 400 * MS) == []
    assert playout.next_due() is None
    pump.speak(sound(160, 50 * FRAME))  # speech goes on meanwhile
    assert playout.open() == 0
    done = pump.tick(T0 + 900 * MS)
    assert done[0] == Frame(480, sound(160, 480))  # sent again: it was never written
    assert playout.underruns == 0


def test_what_a_lost_gateway_may_have_written_is_not_said_again() -> None:
    """It said nothing of the fourth frame, and how long the carrier played on is not known."""
    playout, pump, _ = started()
    playout.acknowledge(480, T0)
    assert playout.freeze(T0 + 20 * MS, told=False) == Range(160, 480)
    assert playout.open() == 160
    assert playout.lost == 480
    assert pump.tick(T0 + 900 * MS)[0] == Frame(640, sound(160, 640))


def test_what_was_written_a_little_late_lies_at_the_carrier_for_longer() -> None:
    """Too little to be an underrun. But the carrier plays all of the utterance so much later."""
    playout, _, _ = started()
    written = T0 + 15 * MS
    assert playout.acknowledge(640, now=T0 + 20 * MS, since=T0)
    assert playout.underruns == 0
    broke = T0 + 60 * MS
    lay_there = (written + 80 * MS - broke) // SAMPLE_NS
    assert playout.freeze(broke, told=False).samples in range(lay_there, lay_there + 41)


def test_an_interrupt_without_a_stream_loses_nothing() -> None:
    playout, _, _ = started()
    playout.acknowledge(640, T0)
    assert playout.freeze(T0 + 20 * MS).samples == 480
    playout.interrupt(1, 50 * FRAME, T0 + 30 * MS)
    assert playout.open() == 0
    assert (playout.position, playout.lost) == (50 * FRAME, 480)


def test_what_lay_unplayed_by_the_gateways_word_is_lost() -> None:
    playout, _, _ = started()
    playout.acknowledge(640, T0)
    assert playout.freeze(T0 + 400 * MS, 500) == Range(140, 640)
    assert playout.lost == 500


def test_what_an_interrupt_took_back_is_not_lost_by_the_gateways_word() -> None:
    """The stream broke before its gateway had seen the clear."""
    playout, _, _ = started()
    playout.acknowledge(640, T0)
    playout.interrupt(1, 50 * FRAME, T0 + 30 * MS)
    assert playout.freeze(T0 + 40 * MS, 400).samples == 0


def test_a_gateway_that_is_stopped_behind_a_write_says_later_that_all_of_it_was_played() -> None:
    """Its word on that sound is as late as the stall was long, and nothing lies at the carrier. So
    the buffer was dry from the end of that sound on, and not from the end of what was told before.
    """
    playout = Playout()
    playout.speak(0, bytes(8000))
    playout.due(0, 20 * MS)
    assert playout.position == 640
    playout.acknowledge(480, 0, ahead=480)
    playout.acknowledge(640, 400 * MS, ahead=0)
    assert (playout.underruns, playout.underrun_ns) == (1, (400 - 80) * MS)


def test_a_word_that_was_read_late_is_corrected_by_those_that_follow() -> None:
    """The first word after a stall may have waited between two looks at the socket, or have had a
    long way. The timeline would keep that error, and the next stall would add its own."""
    playout, _, _ = started(100)
    playout.acknowledge(640, T0, ahead=640)
    for n in range(1, 20):
        playout.due(T0 + n * 20 * MS)
    woke = T0 + 480 * MS  # so 400 ms were silent
    playout.acknowledge(800, woke + 15 * MS, woke - 18 * MS, ahead=160)
    assert playout.underrun_ns == 382 * MS  # the least that it can have been
    playout.acknowledge(960, woke + 30 * MS, woke + 4 * MS, ahead=320 - 40)
    assert playout.underrun_ns == 399 * MS
    playout.acknowledge(1120, woke + 31 * MS, woke + 30 * MS, ahead=480 - 160)  # 10 ms on the way
    assert playout.underrun_ns == 410 * MS
    playout.acknowledge(1280, woke + 32 * MS, woke + 31 * MS, ahead=640 - 248)
    assert playout.underrun_ns == 401 * MS
    assert playout.underruns == 1


def test_no_word_takes_more_of_a_hole_back_than_was_counted() -> None:
    """StreamOver tells the client how long the holes were, and holds no negative number."""
    playout, _, _ = started(100)
    playout.acknowledge(640, T0, ahead=640)
    for n in range(1, 20):
        playout.due(T0 + n * 20 * MS)
    playout.acknowledge(800, T0 + 125 * MS, ahead=160)
    assert playout.underrun_ns == 45 * MS
    playout.acknowledge(960, T0 + 126 * MS, ahead=0)
    assert playout.underrun_ns == 6 * MS
    playout.acknowledge(1120, T0 + 127 * MS, ahead=0)
    assert playout.underrun_ns == 0


@pytest.mark.parametrize(("late", "moved"), [(4, 0), (6, 6), (19, 19)])
def test_a_timeline_follows_a_word_of_a_known_time(late: int, moved: int) -> None:
    """The buffer was dry for too short a time to be told as an underrun, but the far end hears the
    rest so much later. A frame's own way to the carrier is less."""
    playout, _, _ = started(100)
    playout.acknowledge(640, T0, ahead=640)
    for n in range(1, 31):
        now = T0 + n * 20 * MS
        playout.due(now)
        told = now + late * MS if n == 30 else now
        playout.acknowledge(640 + n * 160, told, told, ahead=640)
    assert playout.next_due() == T0 + (31 * 20 + moved) * MS
    assert (playout.underruns, playout.underrun_ns) == (0, moved * MS)


def test_short_holes_count_together() -> None:
    """Thirty of 18 ms are more than half a second of silence, though none is an underrun alone."""
    playout, _, _ = started(100)
    playout.acknowledge(640, T0, ahead=640)
    now = T0
    for n in range(1, 71):
        now += 20 * MS if n <= 10 or n % 2 else 38 * MS
        playout.due(now)
        playout.acknowledge(640 + n * 160, now, now, ahead=640)
    assert (playout.underruns, playout.underrun_ns) == (30 * 18 // 20, 30 * 18 * MS)


def test_a_timeline_that_has_settled_stays_where_it_is() -> None:
    playout, _, _ = started(100)
    playout.acknowledge(640, T0, T0, ahead=640)
    for n in range(1, 30):
        now = T0 + n * 20 * MS
        playout.due(now)
        playout.acknowledge(640 + n * 160, now, now, ahead=640)
    due = playout.next_due()
    playout.due(now + 20 * MS)
    playout.acknowledge(640 + 30 * 160, now + 38 * MS, now + 37 * MS, ahead=640)
    playout.due(now + 40 * MS)
    assert due is not None
    assert playout.next_due() == due + 40 * MS
    assert playout.underruns == 0


def test_no_more_lies_at_the_carrier_than_may_be_sent_ahead() -> None:
    playout, pump, _ = started()
    for n in range(1, 20):
        pump.tick(T0 + n * 20 * MS)
        playout.acknowledge(playout.position, T0 + n * 20 * MS)
    assert playout.freeze(T0 - 1_000 * MS).samples == 8 * 160  # 60 ms and 100 ms


def test_what_was_written_after_the_stream_broke_is_lost_too() -> None:
    playout, pump, _ = started()
    playout.acknowledge(320, T0)
    assert playout.freeze(T0 + 10 * MS).samples == 240
    assert playout.open(next_position=640) == 320
    assert playout.lost == 560
    assert pump.tick(T0 + 900 * MS)[0] == Frame(640, sound(160, 640))


def test_no_more_than_the_lead_and_100_ms_is_sent_to_a_gateway_that_does_not_write() -> None:
    playout, _, _ = started()
    for n in range(1, 50):
        playout.due(T0 + n * 20 * MS)
    assert playout.position == 160 * 8
    assert playout.next_due() is None


def test_a_gateway_that_wrote_late_wrote_to_a_dry_buffer() -> None:
    playout, _, _ = started()
    for n in range(1, 50):
        playout.due(T0 + n * 20 * MS)
    woke = T0 + 1000 * MS
    assert playout.acknowledge(160, woke)
    assert (playout.underruns, playout.underrun_ns) == (1, 1000 * MS)
    assert playout.acknowledge(160 * 8, woke + 1 * MS)
    assert playout.underruns == 1
    # The first frame is heard from when it was written, and the rest lies there.
    assert playout.played(woke + 50 * MS) == 400
    assert playout.next_due() == woke + 100 * MS  # 60 ms before what was sent has been played
    assert playout.freeze(woke + 50 * MS) == Range(400, 160 * 8)


def test_acknowledgements_that_are_late_by_less_than_the_lead_change_nothing() -> None:
    playout, _, _ = started()
    playout.acknowledge(640, T0)
    for n in range(1, 20):
        playout.due(T0 + n * 20 * MS)
        playout.acknowledge(160 * (n + 4), T0 + n * 20 * MS + 60 * MS)
    assert playout.underruns == 0
    assert playout.played(T0 + 200 * MS) == 1600


def test_what_another_worker_left_at_the_carrier_is_joined() -> None:
    playout = Playout(next_position=1600)
    playout.plays_on(T0 + 50 * MS)
    playout.speak(1600, sound(1600, 1600))
    assert [i.position for i in playout.due(T0) if isinstance(i, Frame)] == [1600]
    assert playout.next_due() == T0 + 10 * MS
    playout.acknowledge(1760, T0)
    assert playout.freeze(T0 + 20 * MS) == Range(1360, 1760)  # of both


def test_what_another_worker_left_is_played_by_the_time_there_is_more() -> None:
    playout = Playout(next_position=1600)
    playout.plays_on(T0 + 50 * MS)
    playout.speak(1600, sound(1600, 1600))
    assert len(playout.due(T0 + 70 * MS)) == 4
    assert playout.underruns == 0
    assert playout.next_due() == T0 + 90 * MS


def test_a_stream_that_goes_on_elsewhere_has_to_be_spoken_to_from_there() -> None:
    playout, _, _ = started()
    playout.acknowledge(640, T0)
    playout.freeze(T0)
    playout.open(next_position=160)  # before what is held
    assert (playout.position, playout.end, playout.unsent) == (160, 160, 0)
    playout.open(next_position=99_999, playback=7)  # past it
    assert (playout.position, playout.end) == (99_999, 99_999)
    assert playout.interrupt(1, 99_999, T0).playback == 8  # type: ignore[union-attr]  # it is new


def test_a_call_holds_300_s_of_sound() -> None:
    playout = Playout()
    whole = 300 * 8_000
    assert playout.speak(0, bytes(whole)) == 0
    assert playout.speak(whole, bytes(160)) == 160


def test_what_is_over_the_bound_is_counted_and_played_as_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(playouts, "CAPACITY", 1600)
    playout = Playout()
    assert playout.speak(0, sound(1500)) == 0
    assert playout.speak(1500, sound(300, 1500)) == 200
    assert playout.lost == 200
    position, got, now = 0, b"", T0
    while playout.unsent:
        for frame in playout.due(now):
            assert isinstance(frame, Frame)
            assert frame.position == position
            position += len(frame.payload)
            got += frame.payload
        playout.acknowledge(position, now)
        now += 20 * MS
    assert got == sound(1600) + b"\xff" * 200
    assert playout.speak(1800, sound(160, 1800)) == 0
    assert playout.end - playout.position == 160


def test_a_playout_may_begin_anywhere() -> None:
    playout = Playout(next_position=123_456, playback=3)
    playout.speak(123_456, sound(800, 123_456))
    assert playout.due(T0)[0] == Frame(123_456, sound(160, 123_456))


def test_wrong_peers_are_named() -> None:
    playout, _, _ = started()
    with pytest.raises(PlayoutError, match="641 acknowledged, but sent only up to 640"):
        playout.acknowledge(641, T0)
    assert playout.acknowledge(640, T0) is True
    assert playout.acknowledge(480, T0) is False
    with pytest.raises(ValueError, match="less than a frame"):
        Playout(lead_ns=19 * MS)


def test_the_tail_is_asked_for_even_when_it_is_all_there_is() -> None:
    playout = Playout()
    playout.speak(0, b"", tail=12)
    assert playout.due(T0) == []
    assert playout.due(T0 + DEFAULT_LEAD_NS) == [FlushTail()]
    playout.flushed(sound(12))
    assert playout.due(T0 + DEFAULT_LEAD_NS) == [Frame(0, sound(12))]
