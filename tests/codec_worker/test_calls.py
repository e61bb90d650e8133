"""All calls of a worker: opening, attaching, speech and sound, interrupts, streams, moves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.bus import messages as m
from trunkline.codec_worker import mulaw
from trunkline.codec_worker.calls import FORGET_NS, Calls
from trunkline.codec_worker.playout import SAMPLE_NS
from trunkline.codec_worker.resample import Downsampler, Upsampler

from .bench import ADAPTER, CALL, GATEWAY, MS, SECRET, TICK, Bench

RNG = np.random.default_rng(7)
PCM = np.rint(8000 * np.sin(np.arange(24_000 * 12) * 0.11) * np.sin(np.arange(24_000 * 12) * 1e-4))
SPEECH = PCM.astype("<i2").tobytes()
CODES = mulaw.encode(np.rint(PCM[::3]).astype(np.int16)).tobytes()


def coded(pcm: bytes) -> npt.NDArray[np.int_]:
    down = Downsampler()
    history = down.history()
    return heard_codes(down.run([history], [pcm])[0] + down.flush([history])[0])


def heard_codes(codes: bytes | bytearray) -> npt.NDArray[np.int_]:
    return mulaw.decode(np.frombuffer(bytes(codes), np.uint8)).astype(int)


def decoded(codes: bytes) -> npt.NDArray[np.int_]:
    up = Upsampler()
    history = up.history()
    return np.frombuffer(up.run([history], [codes])[0] + up.flush([history])[0], "<i2").astype(int)


def opened(workers: int = 1) -> Bench:
    bench = Bench(workers)
    bench.open()
    return bench


def seconds(n: float) -> int:
    return round(n * 48_000)


def test_a_call_speaks_a_frame_each_tick_and_is_told_what_was_written() -> None:
    bench = opened()
    bench.speak(SPEECH[: seconds(1)])
    assert [p for _, p in bench.gateway.frames] == [0, 160, 320, 480]  # the lead, at once
    bench.tick()
    assert len(bench.gateway.frames) == 5
    assert (bench.adapter.acknowledged, bench.adapter.idle) == (800, False)
    bench.tick(60)
    assert (bench.adapter.acknowledged, bench.adapter.idle) == (8000, True)
    assert np.array_equal(heard_codes(bench.gateway.written), coded(SPEECH[: seconds(1)]))
    (stats,) = bench.worker.stats(bench.now)
    assert (stats.frames_out, stats.underruns, stats.frames_lost) == (50, 0, 0)


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=15), st.booleans())
def test_speech_in_any_pieces_sounds_as_if_said_at_once(sizes: list[int], slow: bool) -> None:
    bench = opened()
    begin = 0
    for size in sizes:
        bench.speak(SPEECH[begin : begin + 6 * size])
        begin += 6 * size
        if slow:
            bench.tick(max(1, size // 160 - 1))
    bench.tick(100 + begin // 960)
    assert len(bench.gateway.written) == begin // 6
    apart = heard_codes(bench.gateway.written) - coded(SPEECH[:begin])
    if not slow:
        assert np.count_nonzero(apart) <= 2 + len(apart) // 500


def test_idle_is_told_when_at_most_a_frame_is_left_though_nothing_new_was_written() -> None:
    bench = opened()
    bench.speak(SPEECH[:960])  # one frame, of which the filter holds back 2 ms
    assert bench.adapter.idle
    assert bench.gateway.written == b""
    bench.tick(5)
    assert len(bench.gateway.written) == 160


def test_small_chunks_one_after_the_other_leave_no_trace() -> None:
    """A sender that waits until the worker is idle, and then says the next 20 ms."""
    bench = opened()
    for begin in range(0, seconds(1), 960):
        bench.speak(SPEECH[begin : begin + 960])
        waited = 0
        while not bench.adapter.idle:
            bench.tick()
            waited += 1
            assert waited < 10
    bench.tick(20)
    apart = heard_codes(bench.gateway.written) - coded(SPEECH[: seconds(1)])
    assert np.count_nonzero(apart) <= 20
    assert len(bench.gateway.written) == 8000


def test_speech_that_joins_after_a_flush_has_its_past_and_after_a_pause_has_none() -> None:
    for pause, past in ((0, True), (50, False)):
        bench = opened()
        bench.speak(SPEECH[:9600])
        while len(bench.gateway.written) < 1600:
            bench.tick()
        bench.tick(pause)
        bench.speak(SPEECH[9600:19_200])
        bench.tick(20)
        written = heard_codes(bench.gateway.written)
        whole = coded(SPEECH[:19_200]) if past else coded(bytes(9600) + SPEECH[9600:19_200])
        assert np.array_equal(written[1600:], whole[1600:])


def test_the_adapter_may_attach_before_or_after_the_call_is_opened() -> None:
    early, late = Calls("w"), Calls("w")
    gateway = Bench().gateway
    early.receive(ADAPTER, m.Attach(CALL, SECRET), 0)
    early.receive(GATEWAY, gateway.open_call(), 0)
    late.receive(GATEWAY, gateway.open_call(), 0)
    late.receive(ADAPTER, m.Attach(CALL, SECRET), 0)
    for calls in (early, late):
        assert calls.take() == [(ADAPTER, m.Opened(CALL, gateway.generation, 1, 0))]


def test_a_wrong_secret_is_refused_and_the_right_one_keeps_the_call() -> None:
    bench = opened()
    bench.worker.receive(b"stranger", m.Attach(CALL, "x" * 32), bench.now)
    assert bench.worker.take() == [(b"stranger", m.AttachRefused(CALL))]
    bench.worker.receive(b"stranger", m.Interrupt(CALL, bench.gateway.generation, 1, 0), bench.now)
    assert bench.worker.take() == []
    bench.speak(SPEECH[:9600])
    assert bench.gateway.written


def test_nothing_goes_out_before_the_resume() -> None:
    calls = Calls("w")
    gateway = Bench().gateway
    generation = gateway.generation
    calls.receive(ADAPTER, m.Attach(CALL, SECRET), 0)
    calls.receive(GATEWAY, gateway.open_call(), 0)
    calls.take()
    frame = m.InFrame(CALL, generation, 1, 0, CODES[:160])
    calls.receive(GATEWAY, m.Inbound([frame]), 0)
    calls.receive(ADAPTER, m.Speak(CALL, generation, 0, SPEECH[:9600]), 0)
    calls.work(0, TICK)
    calls.tick(TICK, 2 * TICK)
    assert calls.take() == []
    assert calls.dropped["not-resumed"] == 1


def test_sound_reaches_the_adapter_in_the_same_turn() -> None:
    bench = opened()
    for n in range(50):
        bench.hear(n * 160, CODES[n * 160 : (n + 1) * 160])
        bench.run()
        assert len(bench.adapter.heard) == 960 * (n + 1) - 96
    bench.from_gateway(m.StreamEnded(CALL, bench.gateway.generation, 1, "stop"))
    bench.run()
    heard = np.frombuffer(bytes(bench.adapter.heard), "<i2").astype(int)
    assert np.abs(heard - decoded(CODES[:8000])).max() <= 1
    assert bench.adapter.others == [m.StreamOver(CALL, bench.gateway.generation, 1, "stop")]


def test_many_calls_share_the_messages_of_a_turn() -> None:
    calls = Calls("w")
    names = [f"{n:032x}" for n in range(30)]
    for name in names:
        calls.receive(ADAPTER, m.Attach(name, SECRET), 0)
        calls.receive(GATEWAY, m.OpenCall(name, 65536, 1, SECRET, 0, 0, [], [], 60, {}), 0)
        calls.receive(ADAPTER, m.Resume(name, 65536, 0, 0, 0, 0.0, 0, 0, 0), 0)
    calls.work(0, TICK)
    calls.take()
    for name in names:
        calls.receive(ADAPTER, m.Speak(name, 65536, 0, SPEECH[:9600]), 0)
    frames = [m.InFrame(name, 65536, 1, 0, CODES[:160]) for name in names]
    calls.receive(GATEWAY, m.Inbound(frames), 0)
    calls.work(0, TICK)
    out = calls.take()
    assert [(peer, type(message)) for peer, message in out] == [
        (GATEWAY, m.Outbound),
        (ADAPTER, m.Heard),
    ]
    assert isinstance(out[0][1], m.Outbound)
    assert len(out[0][1].frames) == 30 * 4
    assert isinstance(out[1][1], m.Heard)
    assert {s.pcm for s in out[1][1].sounds} == {out[1][1].sounds[0].pcm}
    assert [told.call for told in out[1][1].acknowledged] == names


def test_a_long_speech_is_encoded_in_turns() -> None:
    bench = opened()
    calls = bench.worker
    calls.receive(ADAPTER, bench.adapter.speak(SPEECH[: seconds(11.5)]), bench.now)
    turns = 1
    while calls.work(bench.now, bench.now + TICK):
        turns += 1
    assert turns == 6
    bench.run()
    bench.tick(600)
    assert np.array_equal(heard_codes(bench.gateway.written), coded(SPEECH[: seconds(11.5)]))


def test_an_interrupt_clears_and_speech_goes_on_at_the_promised_position() -> None:
    bench = opened()
    bench.speak(SPEECH[: seconds(2)])
    bench.tick(3)
    bench.from_adapter(m.SetMark(CALL, bench.gateway.generation, "end", 16_000))
    bench.from_adapter(bench.adapter.interrupt())
    bench.run()
    assert bench.gateway.texts[-1] == "clear"
    assert (bench.gateway.out_next, bench.gateway.playback) == (16_000, 1)
    generation = bench.gateway.generation
    assert bench.adapter.others == [
        m.MarkPlayed(CALL, generation, "end", False),
        m.Interrupted(CALL, generation, 1, 7 * 160),
    ]
    bench.from_adapter(m.Interrupt(CALL, generation, 1, 16_000))  # asked again
    bench.run()
    assert bench.gateway.texts.count("clear") == 1
    assert bench.adapter.others[-1] == m.Interrupted(CALL, generation, 1, 7 * 160)
    bench.tick(5)
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(60)
    assert np.array_equal(heard_codes(bench.gateway.written)[16_000:], coded(SPEECH[: seconds(1)]))


def test_marks_go_out_after_their_sound_and_come_back() -> None:
    bench = opened()
    generation = bench.gateway.generation
    bench.speak(SPEECH[: 6 * 800])
    bench.from_adapter(m.SetMark(CALL, generation, "a", 300))
    bench.from_adapter(m.SetMark(CALL, generation, "b", 800))
    bench.tick(8)
    assert bench.gateway.texts == ["media"] * 4 + ["mark a", "media", "mark b"]
    bench.from_gateway(m.MarkReached(CALL, generation, "b"))
    bench.from_gateway(m.MarkReached(CALL, generation, "unknown"))
    bench.run()
    assert bench.adapter.others == [m.MarkPlayed(CALL, generation, "b", True)]


def test_digits_are_told_and_told_again_to_a_resume() -> None:
    bench = opened()
    generation = bench.gateway.generation
    bench.from_gateway(m.Digit(CALL, generation, m.DigitIn(1, 1, "5")))
    bench.run()
    told = m.DigitHeard(CALL, generation, m.DigitIn(1, 1, "5"))
    assert bench.adapter.others == [told]
    bench.from_adapter(m.Attach(CALL, SECRET))
    bench.run()
    assert bench.adapter.others == [told, told]


def test_a_new_stream_goes_on_from_the_last_acknowledged_position() -> None:
    bench = opened()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(10)
    lost_before = len(bench.gateway.written)
    bench.new_stream()
    assert bench.adapter.lost_out in range(480, 640 + 1)  # the lead that lay at the carrier
    bench.tick(50)
    assert len(bench.gateway.written) == lost_before
    bench.open()
    bench.tick(60)
    assert bench.gateway.dropped == 0
    apart = heard_codes(bench.gateway.written) - coded(SPEECH[: seconds(1)])
    assert np.count_nonzero(apart) <= 3
    (stats,) = bench.worker.stats(bench.now)
    assert stats.frames_lost == -(-bench.adapter.lost_out // 160)


def test_what_a_lost_gateway_may_have_written_is_passed_over_and_told() -> None:
    """It lives on for a while without us, and the carrier plays what it has."""
    bench = opened()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(10)
    position = bench.gateway.out_next
    assert position is not None
    bench.gateway_stopped = []  # what is sent now is not acknowledged
    bench.tick(3)
    bench.worker.gone(GATEWAY, bench.now)
    bench.gateway_stopped = None
    before = len(bench.gateway.written)
    bench.new_stream(reason=None)
    bench.open()
    bench.tick(60)
    begins = next(p for _, p in bench.gateway.frames if p >= before)
    assert begins - position == 3 * 160
    assert len(bench.gateway.written) == 8000
    # what is in doubt, and the lead when the gateway was last heard of
    assert bench.adapter.lost_out in range(3 * 160 + 480, 3 * 160 + 640 + 1)


def test_an_adapter_that_attaches_late_is_told_what_the_stream_before_lost() -> None:
    bench = opened()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(10)
    bench.worker.gone(ADAPTER, bench.now)
    bench.new_stream()
    bench.tick(5)
    assert bench.adapter.lost_out == 0
    bench.send(0, ADAPTER, m.Attach(CALL, SECRET))
    bench.run()
    assert bench.adapter.lost_out in range(480, 640 + 1)


def test_what_a_stream_lost_is_told_with_the_next_one_and_again_until_it_is_resumed() -> None:
    """Whoever reads that sound goes on behind what is in doubt reads that it is lost as well."""
    bench = opened()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(10)
    bench.worker.gone(GATEWAY, bench.now)
    bench.new_stream(reason=None)
    for again in range(2):
        bench.worker.receive(GATEWAY, bench.gateway.open_call(bench.now), bench.now)
        ((_, told),) = bench.worker.take()
        assert isinstance(told, m.Opened) and told.unplayed in range(480, 640 + 1), again
        bench.gateway.generation += 1
    resume = m.Resume(CALL, told.generation, 0, 0, 0, 0.0, bench.adapter.acknowledged, 0, 0)
    bench.worker.receive(ADAPTER, resume, bench.now)
    bench.worker.receive(GATEWAY, bench.gateway.open_call(bench.now), bench.now)
    assert [told for _, told in bench.worker.take() if isinstance(told, m.Loss)] == []
    bench.gateway.generation += 1
    bench.worker.receive(GATEWAY, bench.gateway.open_call(bench.now), bench.now)
    assert [told.unplayed for _, told in bench.worker.take() if isinstance(told, m.Opened)] == [0]


def test_a_streams_end_between_opened_and_resume_is_told_then() -> None:
    bench = opened()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(10)
    bench.gateway.generation += 1
    bench.worker.receive(GATEWAY, bench.gateway.open_call(bench.now), bench.now)
    ended = m.StreamEnded(CALL, bench.gateway.generation, 1, "error", 512)
    bench.worker.receive(GATEWAY, ended, bench.now)
    assert bench.adapter.lost_out == 0
    bench.run()
    assert bench.adapter.lost_out == 512


def test_who_hears_of_a_streams_end_has_heard_what_was_written() -> None:
    bench = opened()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(10)
    bench.gateway_stopped = []
    bench.tick()  # a frame is written, and the word of it comes with the stream's end
    generation, position = bench.gateway.generation, bench.gateway.out_next
    assert position is not None
    for told in (
        m.Inbound([], [m.WrittenTo(CALL, generation, position + 160)]),
        m.StreamEnded(CALL, generation, 1, "error"),
    ):
        bench.from_gateway(told)
    bench.worker.work(bench.now, bench.now)
    kinds = [type(told) for peer, told in bench.worker.take() if peer == ADAPTER]
    assert kinds == [m.Heard, m.Loss, m.StreamOver]


def test_a_streams_end_that_is_read_late_tells_what_lay_at_the_carrier() -> None:
    """The worker was stopped meanwhile: by its own clock all of it had been played."""
    bench = opened()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(10)
    bench.now += 400 * MS
    bench.from_gateway(m.StreamEnded(CALL, bench.gateway.generation, 1, "error", 512))
    bench.run()
    assert bench.adapter.lost_out == 512


def test_a_gateway_that_died_while_the_worker_stood_still_is_counted_from_before() -> None:
    bench = opened()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(10)
    bench.now += 400 * MS
    bench.worker.gone(GATEWAY, bench.now)
    bench.new_stream(reason=None)
    bench.open()
    assert bench.adapter.lost_out in range(480, 640 + 1)


def test_a_gateway_that_died_is_counted_from_when_it_was_missed() -> None:
    bench = opened()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(10)
    bench.worker.gone(GATEWAY, bench.now)
    bench.new_stream(reason=None)
    bench.tick(50)
    assert bench.adapter.lost_out == 0
    bench.open()
    assert bench.adapter.lost_out in range(480, 640 + 1)
    bench.tick(60)
    assert len(bench.gateway.written) == 8000


def test_a_call_moves_to_a_standby_and_nothing_is_lost_or_doubled() -> None:
    bench = opened(workers=2)
    bench.speak(SPEECH[: seconds(4)])
    for n in range(50):
        bench.hear(n * 160, CODES[n * 160 : (n + 1) * 160])
        bench.tick()
    bench.replace(0)  # killed
    for n in range(50, 55):  # before the gateway noticed
        bench.gateway.ring.append(
            m.InFrame(CALL, bench.gateway.generation, 1, n * 160, CODES[n * 160 : (n + 1) * 160])
        )
    bench.move(1)
    for n in range(55, 100):
        bench.hear(n * 160, CODES[n * 160 : (n + 1) * 160])
        bench.tick()
    bench.from_gateway(m.StreamEnded(CALL, bench.gateway.generation, 1, "stop"))
    bench.run()
    assert bench.gateway.dropped == 0
    assert (bench.adapter.lost_in, len(bench.adapter.heard)) == (0, 96_000)
    heard = np.frombuffer(bytes(bench.adapter.heard), "<i2").astype(int)
    assert np.abs(heard - decoded(CODES[:16_000])).max() <= 1
    written = heard_codes(bench.gateway.written)
    joint = 54 * 160  # the new filter starts on silence there
    apart = np.abs(written - coded(SPEECH[: seconds(4)])[: len(written)])
    assert np.count_nonzero(apart[:joint]) <= 20
    assert np.count_nonzero(apart[joint + 40 :]) <= 20


def test_a_stopped_worker_that_wakes_up_harms_nothing() -> None:
    bench = opened(workers=2)
    bench.speak(SPEECH[: seconds(3)])
    bench.tick(10)
    bench.stopped[0] = []
    bench.now += 25 * TICK
    bench.move(1)
    bench.tick(20)
    written = len(bench.gateway.written)
    bench.wake(0)
    assert len(bench.gateway.written) == written
    assert CALL not in bench.workers[0].calls
    bench.tick(150)
    assert len(bench.gateway.written) == 24_000
    assert [p for _, p in bench.gateway.frames] == [160 * n for n in range(150)]


def test_a_gateway_that_stood_still_leaves_no_deep_buffer_behind() -> None:
    bench = opened()
    bench.speak(SPEECH[: seconds(6)])
    bench.tick(20)
    bench.gateway_stopped = []
    bench.tick(100)  # 2 s
    bench.gateway.deepest = 0
    bench.wake_gateway()
    bench.tick(50)
    assert bench.gateway.deepest <= (60 + 100 + 20) * MS  # not two seconds of it
    assert bench.gateway.plays_until - bench.now <= (60 + 60) * MS  # and soon as ever
    (stats,) = bench.worker.stats(bench.now)
    assert stats.underruns == 1
    bench.tick(250)
    assert np.array_equal(heard_codes(bench.gateway.written), coded(SPEECH[: seconds(6)]))


def test_what_lies_at_the_carrier_after_a_gateway_stood_still_is_known_when_it_dies() -> None:
    bench = opened()
    bench.speak(SPEECH[: seconds(6)])
    bench.tick(20)
    bench.gateway_stopped = []
    bench.tick(100)
    bench.wake_gateway()
    bench.tick(2)
    lay_there = bench.gateway.plays_until - bench.now
    bench.new_stream("error")
    assert abs(bench.adapter.lost_out * SAMPLE_NS - lay_there) <= 40 * MS


def test_a_call_that_moves_again_and_again_keeps_its_lead() -> None:
    bench = opened(workers=2)
    bench.speak(SPEECH[: seconds(6)])
    for n in range(10):
        bench.tick(10)
        bench.move(1 - n % 2)
    assert bench.gateway.deepest <= (60 + 40) * MS
    lay_there = bench.gateway.plays_until - bench.now
    bench.new_stream("error")
    assert bench.adapter.lost_out * SAMPLE_NS == lay_there  # the last worker had sent but little


def test_a_worker_whose_state_is_old_says_nothing_twice() -> None:
    """It was stopped, others had the call, and it is given the call back for a later stream."""
    bench = opened(workers=2)
    bench.speak(SPEECH[: seconds(6)])
    bench.tick(10)
    bench.stopped[0] = []
    bench.move(1)
    bench.tick(100)
    bench.stopped[0] = [x for x in bench.stopped[0] if not isinstance(x[1], m.CloseCall)]
    bench.new_stream(reason=None)  # with its gateway all that had been on its way to it was lost
    bench.wake(0)
    bench.open(0)
    bench.tick(250)
    assert [p for _, p in bench.gateway.frames] == [160 * n for n in range(300)]


def test_a_worker_whose_state_is_old_says_the_rest_to_its_last_sample() -> None:
    """It has encoded all of it before others had the call: what its filter holds back is kept."""
    bench = opened(workers=2)
    bench.speak(SPEECH[: seconds(2)])
    bench.tick(10)
    bench.stopped[0] = []
    bench.move(1)
    bench.tick(50)
    bench.stopped[0] = [x for x in bench.stopped[0] if not isinstance(x[1], m.CloseCall)]
    bench.new_stream(reason=None)
    bench.wake(0)
    bench.open(0)
    bench.tick(60)
    last = slice(-160, None)
    assert np.array_equal(
        heard_codes(bench.gateway.written)[last], coded(SPEECH[: seconds(2)])[last]
    )


def test_a_worker_that_stood_still_does_not_count_what_cannot_have_lain_there() -> None:
    bench = opened()
    bench.speak(SPEECH[: seconds(6)])
    bench.tick(10)
    bench.gateway_stopped = []  # it writes on; the worker stands still, and reads nothing
    bench.now += 2_000 * MS
    bench.tick()
    bench.worker.gone(GATEWAY, bench.now)
    bench.gateway_stopped = None
    bench.new_stream(reason=None)
    bench.open()
    in_doubt = 1280
    assert bench.adapter.lost_out <= in_doubt + 1280


def test_an_interrupt_that_no_worker_acknowledged_is_carried_out_by_the_next() -> None:
    bench = opened(workers=2)
    bench.speak(SPEECH[: seconds(3)])
    bench.tick(10)
    bench.stopped[0] = []
    bench.from_adapter(bench.adapter.interrupt())
    bench.move(1)
    assert bench.gateway.texts[-1] == "clear"
    assert bench.gateway.out_next == 24_000
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(70)
    assert len(bench.gateway.written) == 32_000


def test_an_interrupt_that_was_done_before_the_move_is_not_done_again() -> None:
    bench = opened(workers=2)
    bench.speak(SPEECH[: seconds(3)])
    bench.from_adapter(bench.adapter.interrupt())
    bench.run()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(5)
    bench.move(1)
    bench.from_adapter(m.Interrupt(CALL, bench.gateway.generation, 1, 24_000))
    bench.tick(70)
    assert bench.gateway.texts.count("clear") == 1
    assert len(bench.gateway.written) == 32_000
    assert isinstance(bench.adapter.others[-1], m.Interrupted)


def test_a_later_stream_without_state_begins_where_the_adapter_says() -> None:
    bench = opened()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(10)
    bench.replace(0)
    bench.new_stream(reason=None)
    bench.open()
    bench.tick(60)
    assert len(bench.gateway.written) == 8000
    assert bench.gateway.dropped == 0


def test_speech_that_leaves_a_gap_is_asked_for_again() -> None:
    bench = opened()
    bench.adapter.said += SPEECH[:6000]  # never sent
    bench.speak(SPEECH[6000:12_000])
    bench.tick(20)
    assert len(bench.gateway.written) == 2000
    assert bench.worker.complaints[0].endswith("speech at 1000 leaves a gap, 0 is next")
    for _ in range(5):  # an adapter that does not understand is not asked for ever
        bench.from_adapter(m.Speak(CALL, bench.gateway.generation, 9999, bytes(6)))
        bench.run()
    assert bench.worker.dropped["speech-gap"] == 1 + 5


def test_old_generations_are_dropped() -> None:
    bench = opened()
    old = bench.gateway.generation
    bench.gateway.generation += 1
    bench.open()
    frame = m.InFrame(CALL, old, 1, 0, CODES[:160])
    for message in (
        m.Inbound([frame], [m.WrittenTo(CALL, old, 160)]),
        m.StreamEnded(CALL, old, 1, "stop"),
        m.CloseCall(CALL, old),
        m.MarkReached(CALL, old, "x"),
        m.Digit(CALL, old, m.DigitIn(1, 1, "1")),
    ):
        bench.from_gateway(message)
    bench.from_adapter(m.Speak(CALL, old, 0, SPEECH[:960]))
    bench.run()
    assert bench.worker.dropped["generation"] == 7
    assert bench.adapter.heard == b""
    assert bench.adapter.others == []


def test_a_call_that_moved_away_comes_back_only_under_a_newer_generation() -> None:
    bench = opened(workers=2)
    first = bench.gateway.open_call()
    bench.move(1)
    bench.run()
    assert CALL not in bench.workers[0].calls
    bench.send(0, GATEWAY, first)
    assert CALL not in bench.workers[0].calls
    bench.move(0)
    assert CALL in bench.workers[0].calls
    bench.speak(SPEECH[:9600])
    bench.tick(20)
    assert len(bench.gateway.written) == 1600


def test_a_worker_that_drains_or_is_full_refuses_new_calls_only() -> None:
    bench = Bench()
    bench.worker.most_calls = 0
    bench.open()
    assert bench.gateway.refused == ["0 calls are the most"]
    bench.worker.most_calls = 1
    bench.open()
    bench.worker.draining = True
    bench.gateway.generation += 1
    bench.open()  # it has this one
    assert len(bench.gateway.refused) == 1
    bench.send(0, GATEWAY, m.OpenCall("d" * 32, 65536, 1, SECRET, 0, 0, [], [], 60, {}))
    bench.run()
    assert bench.gateway.refused[-1] == "draining"


def test_a_worker_is_over_once_all_that_was_heard_is_told() -> None:
    bench = Bench()
    assert bench.worker.over
    bench.open()
    bench.tick(5)
    assert not bench.worker.over
    bench.from_gateway(m.StreamEnded(CALL, bench.gateway.generation, 1, "stop"))
    assert not bench.worker.over
    bench.tick()
    assert bench.worker.over and CALL in bench.worker.calls


def test_ticks_go_to_all_peers_and_another_protocol_is_refused() -> None:
    calls = Calls("w7")
    calls.receive(GATEWAY, m.MediaHello("gateway", "g"), 0)
    calls.receive(ADAPTER, m.MediaHello("adapter", "a"), 0)
    calls.receive(b"old", m.MediaHello("adapter", "o", 0), 0)
    ((peer, refused),) = calls.take()
    assert peer == b"old"
    assert isinstance(refused, m.MediaRefused)
    calls.beat(0)
    calls.gone(ADAPTER, 0)
    calls.beat(0)
    assert calls.take() == [
        (GATEWAY, m.Tick("w7", 1)),
        (ADAPTER, m.Tick("w7", 1)),
        (GATEWAY, m.Tick("w7", 2)),
    ]


def test_an_adapter_that_comes_back_hears_what_it_missed() -> None:
    bench = opened()
    bench.hear(0, CODES[:160])
    bench.run()
    bench.worker.gone(ADAPTER, bench.now)
    for n in range(1, 10):
        bench.hear(n * 160, CODES[n * 160 : (n + 1) * 160])
        bench.tick()
    assert len(bench.adapter.heard) == 144 * 6
    bench.attach(0)
    bench.run()
    assert (len(bench.adapter.heard), bench.adapter.lost_in) == ((1600 - 16) * 6, 0)


def test_a_call_is_not_forgotten_where_its_gateway_goes_before_anything_was_worked_on() -> None:
    bench = Bench()
    bench.from_gateway(bench.gateway.open_call(bench.now))
    bench.hear(0, CODES[:160])
    bench.worker.gone(GATEWAY, bench.now)
    bench.worker.beat(bench.now)
    assert CALL in bench.worker.calls


def test_a_call_without_a_stream_is_forgotten_in_the_end() -> None:
    bench = opened()
    bench.new_stream()
    bench.worker.beat(bench.now + FORGET_NS)
    assert CALL in bench.worker.calls
    bench.worker.beat(bench.now + FORGET_NS + 1)
    assert bench.worker.calls == {}


def test_more_speech_than_the_bound_is_told_as_lost() -> None:
    bench = opened()
    playout = bench.worker.calls[CALL].playout
    assert playout is not None
    playout.capacity = 1600
    bench.speak(SPEECH[: seconds(1)])
    assert bench.adapter.lost_out == 8000 - 16 - 1600
    bench.tick(70)
    assert bench.adapter.acknowledged == 8000
    assert bench.adapter.idle


@pytest.mark.parametrize("idle", [float("nan"), float("inf"), -5.0])
def test_an_impossible_idle_time_is_none(idle: float) -> None:
    bench = opened()
    bench.from_adapter(m.Resume(CALL, bench.gateway.generation, 1, 0, 0, idle, 0, 0, 0))
    bench.hear(0, CODES[:160])
    bench.run()
    assert bench.adapter.lost_in == 0


def test_an_interrupt_that_went_down_with_its_worker_is_done_where_nothing_is_known() -> None:
    """It was acknowledged, and its Clear never reached the gateway, which stands before it."""
    bench = opened(workers=2)
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(10)
    stands_at = bench.gateway.out_next
    bench.adapter.interrupt()
    bench.adapter.acknowledged = bench.adapter.floor  # by the word of the worker that died
    bench.move(1)
    assert bench.gateway.texts[-1] == "clear"
    assert (stands_at, bench.gateway.out_next) == (2240, 8000)
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(70)
    assert len(bench.gateway.written) == 16_000


def test_an_interrupt_that_was_done_while_the_gateway_was_away_is_done_again() -> None:
    """The connection between gateway and worker broke; both live, and the call comes back."""
    bench = opened()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(10)
    bench.worker.gone(GATEWAY, bench.now)
    bench.from_adapter(bench.adapter.interrupt())
    bench.run()
    assert isinstance(bench.adapter.others[-1], m.Interrupted)
    assert "clear" not in bench.gateway.texts
    bench.speak(SPEECH[: seconds(1)])
    bench.move(0)
    assert bench.gateway.texts[-1] == "media" and bench.gateway.texts.count("clear") == 1
    bench.tick(70)
    assert len(bench.gateway.written) == 16_000 and bench.gateway.dropped == 0


def test_an_adapter_whose_new_connection_was_read_before_the_old_one_keeps_the_call() -> None:
    bench = opened()
    late = b"an earlier connection"
    bench.send(0, late, m.Attach(CALL, SECRET))
    bench.worker.gone(late, bench.now)  # what is sent there finds nobody
    bench.run()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(70)
    assert len(bench.gateway.written) == 8_000
