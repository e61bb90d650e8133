"""All calls of a worker: opening, attaching, speech and sound, interrupts, bounds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.codec_worker import calls
from trunkline.codec_worker import playout as playouts
from trunkline.codec_worker.calls import MOST_ATTACHED, Calls
from trunkline.codec_worker.playout import Playout

from .peers import (
    ADAPTER,
    CALL,
    CODES,
    GATEWAY,
    SECRET,
    SPEECH,
    TICK,
    Bench,
    coded,
    decoded,
    heard_codes,
    opened,
    seconds,
    speaking,
    tick,
)


def test_a_call_speaks_a_frame_each_tick_and_is_told_what_was_written() -> None:
    bench = opened()
    bench.speak(SPEECH[: seconds(1)])
    assert [p for _, p in bench.gateway.frames] == [0, 160, 320, 480]  # the lead, at once
    assert bench.gateway.texts == 2 * ["media"]
    bench.tick(2)
    assert [p for _, p in bench.gateway.frames[4:]] == [640, 800, 960]
    assert bench.gateway.texts == 4 * ["media"]
    assert (bench.adapter.acknowledged, bench.adapter.idle) == (1120, False)
    bench.tick(60)
    assert (bench.adapter.acknowledged, bench.adapter.idle) == (8000, True)
    assert np.array_equal(heard_codes(bench.gateway.written), coded(SPEECH[: seconds(1)]))
    (stats,) = bench.worker.stats(bench.now)
    assert (stats.frames_out, stats.underruns, stats.frames_lost) == (50, 0, 0)


@pytest.mark.parametrize(
    ("at", "ms"),
    [
        pytest.param(430, 430 - 80, id="as the gateway's clock has it"),
        pytest.param(399, 400 - 80, id="before the last look: it is another host's clock"),
        pytest.param(441, 400 - 80, id="behind now"),
        pytest.param(None, 400 - 80, id="an unknown time counts as the last look"),
    ],
)
def test_a_word_of_the_gateway_was_said_when_its_clock_says_so(at: int | None, ms: int) -> None:
    """It is read at 440 ms, and nothing had come when the worker looked at 400."""
    bench = opened()
    bench.speak(SPEECH[: seconds(1)])  # the lead and a frame, 80 ms
    (call,) = bench.worker.calls.values()
    looked = bench.now + 400_000_000
    bench.worker.all_read(looked)
    moment = None if at is None else (bench.now + at * 1_000_000) / 1e9
    written = [m.WrittenTo(CALL, call.generation, 640, ahead=0)]
    assert call.playout is not None
    call.playout.acknowledged = 480  # the last frame's word is still to come
    bench.worker.receive(GATEWAY, m.Inbound([], written, moment), looked + 40_000_000)
    assert round(call.playout.underrun_ns / 1e6) == ms


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


def test_the_gateway_is_told_when_a_call_has_sent_all_that_it_has() -> None:
    bench = opened()
    calls = bench.worker
    calls.receive(ADAPTER, bench.adapter.speak(SPEECH[:5760]), bench.now)  # six frames
    ends: list[tuple[int, bool]] = []
    for _ in range(4):
        calls.work(bench.now, bench.now + TICK)
        for _, message in calls.take_instructions():
            if isinstance(message, m.Outbound):
                ends.append((len(message.frames), message.ends))
        bench.now += TICK
        calls.tick(bench.now, bench.now + TICK)
    assert ends == [
        (2, False),
        (1, True),
    ]  # two frames each, and one; the rest of the sixth waits for more ...
    (rest,) = (
        message for _, message in calls.take_instructions() if isinstance(message, m.Outbound)
    )
    assert rest.ends and calls.ended_at == bench.now  # ... and goes out when none came


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
    for worker in (early, late):
        assert worker.take_instructions() == [(ADAPTER, m.Opened(CALL, gateway.generation, 1, 0))]


def test_a_wrong_secret_is_refused_and_the_right_one_keeps_the_call() -> None:
    bench = opened()
    bench.worker.receive(b"stranger", m.Attach(CALL, "x" * 32), bench.now)
    assert bench.worker.take_instructions() == [(b"stranger", m.AttachRefused(CALL))]
    bench.worker.receive(b"stranger", m.Interrupt(CALL, bench.gateway.generation, 1, 0), bench.now)
    assert bench.worker.take_instructions() == []
    bench.speak(SPEECH[:9600])
    assert bench.gateway.written


def test_nothing_goes_out_before_the_resume() -> None:
    calls = Calls("w")
    gateway = Bench().gateway
    generation = gateway.generation
    calls.receive(ADAPTER, m.Attach(CALL, SECRET), 0)
    calls.receive(GATEWAY, gateway.open_call(), 0)
    calls.take_instructions()
    frame = m.InFrame(CALL, generation, 1, 0, CODES[:160])
    calls.receive(GATEWAY, m.Inbound([frame]), 0)
    calls.receive(ADAPTER, m.Speak(CALL, generation, 0, SPEECH[:9600]), 0)
    calls.work(0, TICK)
    calls.tick(TICK, 2 * TICK)
    assert calls.take_instructions() == []
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


def test_a_streams_last_word_tells_for_how_long_the_far_end_has_waited() -> None:
    bench = opened()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(5)
    bench.now += 10 * TICK  # the worker stands still, beyond its lead
    bench.tick(60)
    (stats,) = bench.worker.stats(bench.now)
    bench.from_gateway(m.StreamEnded(CALL, bench.gateway.generation, 1, "stop"))
    bench.run()
    (over,) = bench.adapter.others
    assert stats.underruns == 1 and isinstance(over, m.StreamOver)
    assert 0.1 * 8000 <= over.late <= 0.2 * 8000


def a_worker_with(count: int) -> tuple[Calls, list[str]]:
    """A worker with so many calls, which are open in both directions, and their names."""
    calls = Calls("w")
    names = [f"{n:032x}" for n in range(count)]
    for name in names:
        calls.receive(ADAPTER, m.Attach(name, SECRET), 0)
        calls.receive(GATEWAY, m.OpenCall(name, 65536, 1, SECRET, 0, 0, [], [], 60, {}), 0)
        calls.receive(ADAPTER, m.Resume(name, 65536, 0, 0, 0, 0.0, 0, 0, 0), 0)
    return calls, names


def test_many_calls_share_the_messages_of_a_turn() -> None:
    calls, names = a_worker_with(30)
    calls.work(0, TICK)
    calls.take_instructions()
    for name in names:
        calls.receive(ADAPTER, m.Speak(name, 65536, 0, SPEECH[:9600]), 0)
    frames = [m.InFrame(name, 65536, 1, 0, CODES[:160]) for name in names]
    calls.receive(GATEWAY, m.Inbound(frames), 0)
    calls.work(0, TICK)
    out = calls.take_instructions()
    assert [(peer, type(message)) for peer, message in out] == [
        (GATEWAY, m.Outbound),
        (ADAPTER, m.Heard),
    ]
    assert isinstance(out[0][1], m.Outbound)
    assert [len(f.payload) for f in out[0][1].frames] == 30 * 2 * [2 * 160]
    assert isinstance(out[1][1], m.Heard)
    assert {s.pcm for s in out[1][1].sounds} == {out[1][1].sounds[0].pcm}
    assert [told.call for told in out[1][1].acknowledged] == names


def test_the_messages_of_calls_that_began_to_speak_at_different_times_leave_together() -> None:
    calls, names = a_worker_with(4)
    speech = SPEECH[: seconds(2)]
    ticks: list[set[str]] = []
    for n in range(40):
        now = n * TICK
        if n < len(names):
            calls.receive(ADAPTER, m.Speak(names[n], 65536, 0, speech), now)
        tick(calls, now)
        calls.work(now, now + TICK)
        sent = [x for _, x in calls.take_instructions() if isinstance(x, m.Outbound)]
        written = [
            m.WrittenTo(f.call, f.generation, f.position + len(f.payload))
            for x in sent
            for f in x.frames
        ]
        calls.receive(GATEWAY, m.Inbound([], written), now)
        ticks.append({to.call for to in written})
    assert {frozenset(sent) for sent in ticks[8:]} == {frozenset(names), frozenset()}
    assert sum(map(bool, ticks[8:])) == 16


def test_a_long_speech_is_encoded_in_turns() -> None:
    bench = opened()
    calls = bench.worker
    calls.receive(ADAPTER, bench.adapter.speak(SPEECH[: seconds(11.5)]), bench.now)
    turns = 1
    while calls.work(bench.now, bench.now + TICK):
        turns += 1
    assert turns == 2  # the first of 8 s
    bench.run()
    bench.tick(600)
    assert np.array_equal(heard_codes(bench.gateway.written), coded(SPEECH[: seconds(11.5)]))


def test_calls_that_begin_to_speak_at_one_moment_begin_to_play_before_all_is_encoded() -> None:
    calls, names = a_worker_with(40)
    for name in names:
        calls.receive(ADAPTER, m.Speak(name, 65536, 0, SPEECH[: seconds(10)]), 0)
    assert calls.work(0, TICK)  # 0.2 s of each; there is more to encode
    batches = [
        message for _, message in calls.take_instructions() if isinstance(message, m.Outbound)
    ]
    sent = [frame.call for batch in batches for frame in batch.frames]
    assert sorted(sent) == sorted(2 * names)  # the lead, two frames in a message


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
    assert bench.gateway.texts == ["media"] * 2 + ["mark a", "media", "mark b"]
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


def test_speech_that_leaves_a_gap_is_asked_for_again() -> None:
    bench = opened()
    bench.adapter.said += SPEECH[:6000]  # never sent
    bench.speak(SPEECH[6000:12_000])
    bench.tick(20)
    assert len(bench.gateway.written) == 2000
    assert bench.worker.complaints[0].endswith("speech at 1000 leaves a gap, 0 is next")
    told: list[object] = []
    for _ in range(5):  # an adapter that does not understand is not asked for ever
        bench.from_adapter(m.Resume(CALL, bench.gateway.generation, 0, 0, 0, 0.0, 0, 0, 0))
        bench.from_adapter(m.Speak(CALL, bench.gateway.generation, 9999, bytes(6)))
        told += [message for _, message in bench.worker.take_instructions()]
    assert bench.worker.dropped["speech-gap"] == 1 + 5
    assert len([message for message in told if isinstance(message, m.Opened)]) == 3


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
    ((peer, refused),) = calls.take_instructions()
    assert peer == b"old"
    assert isinstance(refused, m.MediaRefused)
    calls.beat(0)
    calls.disconnected(ADAPTER, 0)
    calls.beat(0)
    assert calls.take_instructions() == [
        (GATEWAY, m.Tick("w7", 1)),
        (ADAPTER, m.Tick("w7", 1)),
        (GATEWAY, m.Tick("w7", 2)),
    ]
    calls.receive(GATEWAY, m.OpenCall(CALL, 65536, 1, SECRET, 0, 0, [], [], 60, {}), 0)
    calls.receive(ADAPTER, m.MediaHello("adapter", "a"), 0)
    calls.receive(ADAPTER, m.Attach(CALL, SECRET), 0)
    assert [(peer, type(told)) for peer, told in calls.take_instructions()] == [(ADAPTER, m.Opened)]
    calls.beat(0)
    assert calls.take_instructions() == [
        (GATEWAY, m.Tick("w7", 3))
    ]  # the other knows by the Opened
    calls.beat(0)
    assert calls.take_instructions() == [(GATEWAY, m.Tick("w7", 4)), (ADAPTER, m.Tick("w7", 4))]


def test_an_adapter_that_comes_back_hears_what_it_missed() -> None:
    bench = opened()
    bench.hear(0, CODES[:160])
    bench.run()
    bench.worker.disconnected(ADAPTER, bench.now)
    for n in range(1, 10):
        bench.hear(n * 160, CODES[n * 160 : (n + 1) * 160])
        bench.tick()
    assert len(bench.adapter.heard) == 144 * 6
    bench.attach(0)
    bench.run()
    assert (len(bench.adapter.heard), bench.adapter.lost_in) == ((1600 - 16) * 6, 0)


def test_more_speech_than_the_bound_is_told_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playouts, "CAPACITY", 1600)
    bench = opened()
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


@pytest.mark.parametrize("leaves", [False, True])
def test_an_adapter_whose_new_connection_was_read_before_the_old_one_keeps_the_call(
    leaves: bool,
) -> None:
    bench = opened()
    late = b"an earlier connection"
    bench.send(0, late, m.Attach(CALL, SECRET))
    if leaves:
        bench.send(0, late, m.Detach(CALL))
    else:
        bench.worker.disconnected(late, bench.now)  # what is sent there finds nobody
    bench.run()
    bench.speak(SPEECH[: seconds(1)])
    bench.tick(70)
    assert len(bench.gateway.written) == 8_000


# --------------------------------------------------------------------------- who may speak for it

ROGUE = b"rogue"


def test_only_the_gateway_that_opened_a_call_speaks_for_it() -> None:
    bench = speaking(1.0)
    worker, generation = bench.worker, bench.gateway.generation
    call = worker.calls[CALL]
    before = (call.inbound._next, call.playout and call.playout.acknowledged)
    frame = m.InFrame(CALL, generation, 1, 0, CODES[:160])
    told: list[m.ToWorker] = [
        m.MediaHello("gateway", "rogue"),
        m.Inbound([frame], [m.WrittenTo(CALL, generation, 8_000)]),
        m.MarkReached(CALL, generation, "m"),
        m.Digit(CALL, generation, m.DigitIn(1, 1, "5")),
        m.StreamEnded(CALL, generation, 1, "stop"),
        m.CloseCall(CALL, generation + 100),
    ]
    for message in told:
        worker.receive(ROGUE, message, bench.now)
    assert worker.calls[CALL] is call and call.ended is None and not call.digits
    assert (call.inbound._next, call.playout and call.playout.acknowledged) == before
    assert worker.dropped == {"not-its-gateway": 6}
    bench.tick(60)
    assert len(bench.gateway.written) == 8_000


def test_a_call_that_is_here_is_opened_again_by_its_secret_only() -> None:
    bench = speaking(1.0)
    worker = bench.worker
    opening = replace(bench.gateway.open_call(), generation=2**40)
    worker.receive(ROGUE, replace(opening, secret="x" * 32), bench.now)
    (told,) = worker.take_instructions()
    assert told == (ROGUE, m.OpenRefused(CALL, 2**40, "the call is here, with another secret"))
    assert worker.calls[CALL].gateway == GATEWAY
    # Once its gateway is gone the secret may be another one: a restarted controller's.
    worker.disconnected(GATEWAY, bench.now)
    worker.receive(b"other", replace(opening, secret="y" * 32), bench.now)
    assert (worker.calls[CALL].gateway, worker.calls[CALL].secret) == (b"other", "y" * 32)


def test_attaches_of_one_client_are_bounded_and_go_with_it() -> None:
    worker = Calls("w")
    for n in range(MOST_ATTACHED + 100):
        worker.receive(ROGUE, m.Attach(f"{n}", "s"), 0)
    assert worker.dropped == {"too-many-attaches": 100}
    assert len(worker._attached) == MOST_ATTACHED
    worker.receive(ADAPTER, m.Attach(CALL, SECRET), 0)
    worker.receive(GATEWAY, Bench().gateway.open_call(), 0)
    assert worker.calls[CALL].adapter == ADAPTER, "another client's are not touched"
    assert ROGUE in worker.peers, "it is told that the loop is alive, and so is missed"
    worker.receive(ROGUE, m.Detach("5"), 0)
    worker.receive(ROGUE, m.Attach("one more", "s"), 0)
    worker.disconnected(ROGUE, 0)
    assert list(worker._attached) == [CALL] and worker._attaches[ROGUE] == 0


def test_calls_that_were_forgotten_are_remembered_within_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "_TOMBSTONES", 2)
    worker = Calls("w")
    opening = Bench().gateway.open_call()
    for n in range(3):
        worker.receive(GATEWAY, replace(opening, call=f"{n}"), 0)
        worker.receive(GATEWAY, m.CloseCall(f"{n}", opening.generation), 0)
    for n in range(3):
        worker.receive(GATEWAY, replace(opening, call=f"{n}"), 0)
    assert list(worker.calls) == ["0"], "the other two come back under a newer generation only"


def test_wrong_secrets_for_a_call_to_come_do_not_push_the_right_one_out() -> None:
    worker = Calls("w")
    worker.receive(ADAPTER, m.Attach(CALL, SECRET), 0)
    for n in range(50):
        worker.receive(b"rogue %d" % n, m.Attach(CALL, "x"), 0)
    worker.receive(GATEWAY, Bench().gateway.open_call(), 0)
    assert worker.calls[CALL].adapter == ADAPTER
    assert list(worker._attached[CALL]) == [ADAPTER]


class Failing(Playout):
    """Its sound cannot be worked on."""

    def one_message(self, now: int, until: int, together: int) -> bytes | None:
        raise ZeroDivisionError("a defect")


def test_a_call_whose_sound_fails_is_given_back_and_the_others_go_on() -> None:
    worker, names = a_worker_with(3)
    bad = worker.calls[names[1]]
    bad.playout = Failing()
    for name in names:
        worker.receive(ADAPTER, m.Speak(name, m.first_generation(1), 0, SPEECH[:9_600]), 0)
    worker.work(0, TICK)
    worker.take_instructions()
    for n in range(1, 5):
        tick(worker, n * TICK)
    told = worker.take_instructions()
    refused = [x for _, x in told if isinstance(x, m.OpenRefused)]
    assert [(x.call, x.why) for x in refused] == [(names[1], "its sound cannot be worked on")]
    sent = Counter[str]()
    for _, message in told:
        for frame in message.frames if isinstance(message, m.Outbound) else ():
            sent[frame.call] += len(frame.payload) // 160
    # Behind the four at once four more: no more than 160 ms goes unacknowledged.
    assert sent == {names[0]: 4, names[2]: 4}
    assert list(worker.calls) == [names[0], names[2]]
    assert [type(error) for error in worker.broken] == [ZeroDivisionError]


def test_a_call_that_is_closed_after_its_sound_failed_takes_no_other_with_it() -> None:
    worker, (name, other) = a_worker_with(2)
    bad = worker.calls[name]
    bad.playout = Failing()
    for one in (name, other):
        worker.receive(ADAPTER, m.Speak(one, m.first_generation(1), 0, SPEECH[:9_600]), 0)
    worker.work(0, TICK)
    worker.receive(GATEWAY, m.CloseCall(name, bad.generation), 0)
    worker.take_instructions()
    worker.tick(TICK, 2 * TICK)
    sent = [x for _, x in worker.take_instructions() if isinstance(x, m.Outbound)]
    assert [f.call for x in sent for f in x.frames] == [other]
    assert [type(error) for error in worker.broken] == [ZeroDivisionError]
