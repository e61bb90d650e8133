"""Two streams that brought the same sound for a while, joined to the sample."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.bus import messages as m
from trunkline.codec_worker import mulaw
from trunkline.codec_worker.inbound import Inbound, InboundFrame, SoundPiece, hand_out
from trunkline.codec_worker.join import TOLERANCE, by_clock, by_sound
from trunkline.codec_worker.resample import LOOKAHEAD

from .peers import ADAPTER, CALL, GATEWAY, UP, Bench, decoded

MS = 1_000_000
T0 = 1_000_000 * MS
RNG = np.random.default_rng(11)
#: 8 s of sound that is alike nowhere, and the same with a pause between 2 and 3 s.
SOUND = mulaw.encode(np.rint(RNG.normal(0, 3000, 64_000)).astype(np.int16)).tobytes()
PAUSED = SOUND[:16_000] + bytes([0xFF]) * 8_000 + SOUND[24_000:]


def heard(pieces: list[SoundPiece]) -> npt.NDArray[np.int_]:
    return np.frombuffer(b"".join(p.pcm for p in pieces), "<i2").astype(int)


def take(inbound: Inbound) -> list[SoundPiece]:
    return hand_out(UP, [inbound])


def frames(
    ordinal: int, begin: int, end: int, *, of: bytes = SOUND, late: int = 0
) -> list[InboundFrame]:
    """Samples ``begin`` to ``end`` of the sound as a stream brings them, ``late`` ns late."""
    found = []
    for at in range(begin, end, 160):
        payload = of[at : min(at + 160, end)]
        arrival = T0 + (at + len(payload)) * MS // 8 + late
        found.append(InboundFrame(arrival, ordinal, at - begin, payload))
    return found


def having_heard(first: list[InboundFrame]) -> tuple[Inbound, list[SoundPiece]]:
    """A call whose first stream has brought these frames, and what was handed out of them."""
    inbound = Inbound()
    inbound.resume(0, 0, 0, 0, T0)
    for frame in first:
        inbound.add(frame)
    return inbound, take(inbound)


# ----------------------------------------------------------------------------- by the bytes


@given(st.integers(16, 8000), st.integers(16, 16_000), st.integers(-4000, 4000))
def test_the_sound_says_exactly_how_much_both_brought(old: int, new: int, guess: int) -> None:
    """Whichever of the two reaches farther, and however wrong the clock is."""
    end = 20_000
    for both in (16, 31, 400, 777, min(old, new), new + 123, old + 123):
        begin = end - both  # the new one begins `both` samples before the old one's end
        if begin < end - old and both - old > new - 16:
            continue  # less than 2 ms in common
        found = by_sound(SOUND[end - old : end], SOUND[begin : begin + new], both + guess)
        if min(both, new) - max(0, both - old) >= 16:
            assert found == both


def test_a_tone_is_joined_where_the_clock_says() -> None:
    """Alike at each period: the nearest one."""
    tone = mulaw.encode(
        np.rint(8000 * np.sin(np.arange(16_000) * 2 * np.pi / 80)).astype(np.int16)
    ).tobytes()
    assert by_sound(tone[:8000], tone[6400:12_000], 1610) == 1600
    assert by_sound(tone[:8000], tone[6400:12_000], 1650) == 1680


def test_silence_and_sound_that_differs_say_nothing() -> None:
    quiet = bytes([0xFF]) * 4000
    assert by_sound(quiet, quiet, 0) is None
    other = bytes(b ^ 1 for b in SOUND)
    assert by_sound(SOUND[:4000], other[2000:8000], 2000) is None


@pytest.mark.parametrize(
    ("clock", "found"),
    [(0, 0), (TOLERANCE, 0), (-TOLERANCE, 0), (TOLERANCE + 1, TOLERANCE + 1), (-1200, -1200)],
)
def test_the_clock_tells_long_gaps_and_overlaps(clock: int, found: int) -> None:
    assert by_clock(clock) == found


def test_a_pause_at_the_joint_does_not_hide_the_words_before_it() -> None:
    old, new = PAUSED[8000:18_000], PAUSED[14_000:20_000]
    assert by_sound(old, new, 3500) == 4000


# ----------------------------------------------------------------------------- as it is heard


@pytest.mark.parametrize("before", [0, 3, 40])
def test_two_joints_leave_every_sample_in_its_place_and_the_filter_goes_on(before: int) -> None:
    """``before``: how many frames of the stream before the client has not heard at the joint."""
    inbound = Inbound()
    inbound.resume(0, 0, 0, 0, T0)
    told: list[SoundPiece] = []
    last = [*frames(1, 0, 16_000)]
    for frame in last[: len(last) - before]:
        inbound.add(frame)
        told += take(inbound)
    for ordinal, begin, end in ((2, 9_000, 30_003), (3, 27_321, 40_000)):
        if ordinal == 2:
            for frame in last[len(last) - before :]:
                inbound.add(frame)
        inbound.join(ordinal)
        new = frames(ordinal, begin, end)
        inbound.replace_ring(new[:60])
        position = told[-1]
        now = new[59].arrival
        stop = position.position + len(position.pcm) // 6
        inbound.resume(position.ordinal, position.stream_end, stop, 30 * MS, now)
        told += take(inbound)
        for frame in new[60:]:
            inbound.add(frame)
            told += take(inbound)
    inbound.end_stream()
    told += take(inbound)
    assert inbound.lost == 0 and all(piece.lost == 0 for piece in told)
    assert np.array_equal(heard(told), decoded(SOUND[:40_000]))
    assert (told[-1].ordinal, told[-1].stream_end) == (3, 40_000 - 27_321)
    assert told[-1].position + len(told[-1].pcm) // 6 == 40_000


def test_what_no_stream_brought_is_lost_and_counted() -> None:
    """The one-way stream was up only 0.5 s after the end of the stream before it."""
    inbound, told = having_heard(frames(1, 0, 16_000))
    inbound.join(2)
    new = frames(2, 20_000, 24_000)
    inbound.replace_ring(new)
    resume(inbound, told, new[-1].arrival)
    told += take(inbound)
    assert sum(piece.lost for piece in told) == inbound.lost == 4_000
    assert told[-1].position + len(told[-1].pcm) // 6 in range(24_000 - 20, 24_001)


def waiting(*, resumed_first: bool = True) -> tuple[Inbound, list[SoundPiece]]:
    """The first stream has brought 2 s so far. Its gateway stands still. The second stream began at
    2.2 s, at another gateway, and has brought 0.3 s."""
    inbound, told = having_heard(frames(1, 0, 16_000))
    inbound.join(2, [1])
    new = frames(2, 17_600, 20_000)
    inbound.replace_ring(new[:8])
    if resumed_first:
        resume(inbound, told, new[7].arrival)
        told += take(inbound)
    for frame in new[8:]:
        inbound.add(frame)
        told += take(inbound)
    return inbound, told


def resume(inbound: Inbound, told: list[SoundPiece], now: int) -> None:
    """The client has heard all that was handed out, when it was said."""
    end = told[-1].position + len(told[-1].pcm) // 6
    idle = now - (T0 + end * MS // 8)
    inbound.resume(told[-1].ordinal, told[-1].stream_end, end, idle, now)


@pytest.mark.parametrize("resumed_first", [True, False])
def test_sound_that_is_late_at_the_other_gateway_is_waited_for(resumed_first: bool) -> None:
    inbound, told = waiting(resumed_first=resumed_first)
    assert inbound.awaits(1) and told[-1].ordinal == 1
    now = T0 + 20_000 * MS // 8
    for late in frames(1, 0, 19_200)[100:]:
        inbound.add_late([InboundFrame(now, 1, late.position, late.payload)])
        told += take(inbound)
    if not resumed_first:
        assert inbound.awaits(1)
        resume(inbound, told, now)
        told += take(inbound)
    assert not inbound.awaits(1)
    for frame in frames(2, 17_600, 32_000)[15:]:
        inbound.add(frame)
        told += take(inbound)
    inbound.end_stream()
    told += take(inbound)
    assert inbound.lost == 0 and all(piece.lost == 0 for piece in told)
    assert np.array_equal(heard(told), decoded(SOUND[:32_000]))


@pytest.mark.parametrize("how", ["none late", "the stream ends", "2 s have come"])
def test_it_is_not_waited_for_without_an_end(how: str) -> None:
    """A part of it came, and then no more: the rest is lost, by the clock."""
    inbound, told = waiting()
    for late in frames(1, 0, 16_160)[100:]:
        inbound.add_late([late])
        told += take(inbound)
    assert inbound.awaits(1) and told[-1].ordinal == 1
    end = 20_000
    if how == "none late":
        inbound.none_late()
    elif how == "the stream ends":
        inbound.end_stream()
    else:
        *most, last = frames(2, 17_600, 17_600 + 16_000 + 160)[15:]
        for frame in most:
            inbound.add(frame)
            assert take(inbound) == []
        inbound.add(last)
        end = 17_600 + 16_000 + 160
    assert not inbound.awaits(1)
    told += take(inbound)
    inbound.end_stream()
    told += take(inbound)
    assert sum(piece.lost for piece in told) == inbound.lost == 17_600 - 16_160
    assert (told[-1].ordinal, told[-1].stream_end) == (2, end - 17_600)


def test_a_client_that_is_back_meanwhile_waits_too() -> None:
    inbound, told = waiting()
    now = T0 + 20_000 * MS // 8
    resume(inbound, told, now)
    assert take(inbound) == [] and inbound.awaits(1)
    for late in frames(1, 0, 17_760, late=300 * MS)[100:]:
        inbound.add_late([late])
        told += take(inbound)
    inbound.end_stream()
    told += take(inbound)
    assert inbound.lost == 0
    assert told[-1].position + len(told[-1].pcm) // 6 == 20_000


# ----------------------------------------------------------------------------- a worker's call


def next_stream(bench: Bench, reason: m.StreamEndReason | None, *, one_way: bool) -> None:
    bench.new_stream(reason)
    bench.gateway.one_way, bench.gateway.joins = one_way, True
    bench.open()


def test_a_one_way_stream_takes_no_sound_and_what_is_said_waits() -> None:
    bench = Bench(1)
    bench.open()
    bench.speak(bytes(4_800))
    bench.tick(12)
    assert bench.adapter.acknowledged == 800
    next_stream(bench, "stop", one_way=True)
    bench.speak(bytes(9_600))
    bench.tick(50)
    assert (bench.adapter.acknowledged, bench.adapter.idle) == (800, False)
    bench.from_adapter(bench.adapter.interrupt())
    bench.run()
    assert "clear" not in bench.gateway.texts  # there is nothing that it could be written to
    bench.speak(bytes(4_800))
    bench.tick(20)
    assert len(bench.gateway.frames) == 5
    next_stream(bench, None, one_way=False)
    bench.tick(12)
    assert bench.adapter.acknowledged == 800 + 1600 + 800
    assert (bench.adapter.lost_in, bench.adapter.lost_out) == (0, 0)
    (stats,) = bench.worker.stats(bench.now)
    assert (stats.frames_out, stats.frames_lost) == (10, 0)


def test_a_worker_that_takes_over_in_the_seam_is_mute_too() -> None:
    bench = Bench(2)
    bench.open()
    bench.speak(bytes(960))
    bench.tick(6)
    next_stream(bench, "stop", one_way=True)
    bench.move(1)
    bench.speak(bytes(9_600))
    bench.tick(30)
    assert bench.adapter.acknowledged == len(bench.gateway.frames) * 160 == 160
    next_stream(bench, None, one_way=False)
    bench.tick(30)
    assert bench.adapter.acknowledged == 160 + 1600
    assert bench.adapter.lost_out == 0


@pytest.mark.parametrize("knows", [0, 4000])
def test_a_worker_that_did_not_have_the_first_stream_joins_the_next_one_to_the_sample(
    knows: int,
) -> None:
    """The client tells it what was heard last. ``knows``: the worker had the call this far, before
    another worker took it."""
    bench = Bench(2)
    for worker, begin, end in ((1, 0, knows), (0, knows, 8000)):
        bench.gateway.generation += 1
        bench.open(worker)
        for frame in frames(1, begin, end):
            bench.now += 20 * MS
            bench.hear(begin + frame.position, frame.payload)
            bench.run()
    bench.workers[0].disconnected(GATEWAY, bench.now)
    bench.now += 90 * MS
    bench.new_stream(None)
    bench.gateway.joins = True
    generation = bench.gateway.generation
    for frame in frames(2, 7000, 9000):
        bench.gateway.ring.append(m.InFrame(CALL, generation, 2, frame.position, frame.payload))
    bench.open(1)
    bench.from_gateway(m.StreamEnded(CALL, generation, 2, "stop"))
    bench.run()
    assert bench.adapter.lost_in == 0
    assert np.array_equal(np.frombuffer(bench.adapter.heard, "<i2"), decoded(SOUND[:9000]))


OTHER = b"other gateway"


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_in_whatever_order_two_gateways_are_read_nothing_is_lost(data: st.DataObject) -> None:
    """Each of them may stand still for a while, and the client may have to come back."""
    begins = data.draw(st.integers(160, 9_000), "where the second stream begins")
    ends = begins + data.draw(st.integers(16, 8_000), "how much both bring")
    last = ends + data.draw(st.integers(160, 4_000), "how much more the second one brings")
    bench = Bench(1)
    bench.send(0, OTHER, bench.gateway.open_call())
    first: list[m.ToWorker] = [m.Inbound([frame]) for frame in first_stream(0, ends)]
    first.append(m.StreamEnded(CALL, m.first_generation(1), 1, "close"))
    bench.send(0, OTHER, first.pop(0))
    bench.run()
    bench.new_stream(None)
    bench.gateway.joins = True
    generation = bench.gateway.generation
    sound = [m.InFrame(CALL, generation, 2, f.position, f.payload) for f in frames(2, begins, last)]
    early = data.draw(st.integers(0, 20), "frames with its opening")
    bench.gateway.ring.extend(sound[:early])
    second: list[m.ToWorker] = [bench.gateway.open_call(), *(m.Inbound([f]) for f in sound[early:])]
    while first or second:
        of_first = bool(first) and (not second or data.draw(st.booleans(), "of the first one"))
        waiting, peer = (first, OTHER) if of_first else (second, GATEWAY)
        for _ in range(min(len(waiting), data.draw(st.integers(1, 40), "messages"))):
            bench.send(0, peer, waiting.pop(0))
        bench.now += data.draw(st.integers(0, 400), "ms") * MS
        bench.run()
        if data.draw(st.integers(0, 9), "the client comes back") == 0:
            bench.worker.disconnected(ADAPTER, bench.now)
            bench.attach(0)
            bench.run()
    bench.from_gateway(m.StreamEnded(CALL, generation, 2, "stop"))
    bench.run()
    assert bench.adapter.lost_in == 0
    off = np.flatnonzero(np.frombuffer(bench.adapter.heard, "<i2") != decoded(SOUND[:last]))
    # A stream that ended before the next one was opened has silence behind it, for the filter.
    assert len(off) == 0 or off[-1] - off[0] < 6 * LOOKAHEAD


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_three_streams_of_two_gateways_in_whatever_order_they_are_read(data: st.DataObject) -> None:
    """Digits: the one-way stream joins the first, and the third joins that. Where a gateway stands
    still, even the opening of an earlier stream comes behind that of a later one."""
    draw = data.draw
    end_1 = draw(st.integers(3_000, 9_000), "the first stream's end")
    begin_2 = end_1 - draw(st.integers(16, 2_000), "how much the first two bring")
    begin_3 = end_1 + draw(st.integers(160, 4_000), "how long only the second one brings")
    end_2 = begin_3 + draw(st.integers(16, 3_000), "how much the last two bring")
    last = end_2 + draw(st.integers(160, 3_000), "how much more the third one brings")
    places = [GATEWAY, *(draw(st.sampled_from([GATEWAY, OTHER]), "at") for _ in range(2))]
    bench = Bench(1)
    waiting: dict[bytes, list[m.ToWorker]] = {GATEWAY: [], OTHER: []}
    for ordinal, begin, end in ((1, 0, end_1), (2, begin_2, end_2), (3, begin_3, last)):
        generation = bench.gateway.generation = m.first_generation(ordinal)
        bench.gateway.joins, bench.gateway.one_way = ordinal > 1, ordinal == 2
        bench.gateway.out_next = 0 if ordinal == 1 else None
        sound = [
            m.InFrame(CALL, generation, ordinal, f.position, f.payload)
            for f in frames(ordinal, begin, end)
        ]
        early = draw(st.integers(1, 10), "frames with its opening") if ordinal > 1 else 0
        bench.gateway.ring.extend(sound[:early])
        queue = waiting[places[ordinal - 1]]
        queue += [bench.gateway.open_call(), *(m.Inbound([frame]) for frame in sound[early:])]
        if ordinal == 1 and places[1] != GATEWAY:
            queue.append(m.StreamEnded(CALL, generation, 1, "stop"))
    for message in waiting[GATEWAY][:11]:
        bench.send(0, GATEWAY, message)
    bench.run()
    del waiting[GATEWAY][:11]
    while any(waiting.values()):
        peer = draw(st.sampled_from([peer for peer in waiting if waiting[peer]]), "is read")
        for _ in range(min(len(waiting[peer]), draw(st.integers(1, 60), "messages"))):
            bench.send(0, peer, waiting[peer].pop(0))
        bench.now += draw(st.integers(0, 400), "ms") * MS
        bench.run()
        if draw(st.integers(0, 9), "the client comes back") == 0:
            bench.worker.disconnected(ADAPTER, bench.now)
            bench.attach(0)
            bench.run()
    bench.send(0, places[2], m.StreamEnded(CALL, m.first_generation(3), 3, "stop"))
    bench.run()
    assert bench.adapter.lost_in == 0
    assert len(bench.adapter.heard) == 6 * last
    off = np.flatnonzero(np.frombuffer(bench.adapter.heard, "<i2") != decoded(SOUND[:last]))
    # Streams that ended before the next one was opened have silence behind them, for the filter.
    assert len(off) < 2 * 6 * LOOKAHEAD, off


def at_another_gateway(ends: int) -> Bench:
    """A stream whose gateway has brought ``ends`` samples, and the next one at another gateway,
    which begins at 8000 and has brought 0.3 s."""
    bench = Bench(1)
    bench.send(0, OTHER, bench.gateway.open_call())
    bench.run()
    bench.send(0, OTHER, m.Inbound(first_stream(0, ends)))
    bench.run()
    bench.now += (8000 - ends) * MS // 8
    next_stream(bench, None, one_way=False)
    for frame in frames(2, 8000, 10_400):
        bench.now += 20 * MS
        bench.hear(frame.position, frame.payload)
        bench.run()
    return bench


def first_stream(begin: int, end: int) -> list[m.InFrame]:
    generation = m.first_generation(1)
    return [m.InFrame(CALL, generation, 1, f.position, f.payload) for f in frames(1, 0, end)][
        begin // 160 :
    ]


def test_frames_of_a_gateway_that_stood_still_are_heard_behind_the_next_ones_opening() -> None:
    bench = at_another_gateway(6400)
    assert len(bench.adapter.heard) // 6 <= 6400
    bench.send(0, OTHER, m.Inbound(first_stream(6400, 9600)))
    bench.run()
    bench.from_gateway(m.StreamEnded(CALL, bench.gateway.generation, 2, "stop"))
    bench.run()
    assert bench.adapter.lost_in == 0
    assert np.array_equal(np.frombuffer(bench.adapter.heard, "<i2"), decoded(SOUND[:10_400]))
    bench.send(0, OTHER, m.Inbound(first_stream(9600, 9760)))
    assert bench.worker.dropped == {"generation": 1}, "what the next stream had brought already"


def test_ordinals_that_a_restarted_controller_gives_hide_no_stream() -> None:
    """They begin at 1,000 times its epoch, and no stream lies between."""
    bench = Bench(1)
    bench.send(0, OTHER, bench.gateway.open_call())
    bench.send(0, OTHER, m.Inbound(first_stream(0, 6400)))
    bench.run()
    bench.gateway.generation = m.first_generation(1999)
    next_stream(bench, None, one_way=True)
    for frame in frames(2000, 6000, 8000):
        bench.hear(frame.position, frame.payload)
    bench.send(0, OTHER, m.Inbound(first_stream(6400, 7040)))
    bench.run()
    assert list(bench.worker.calls[CALL].before) == [1]
    assert bench.adapter.lost_in == 0
    assert len(bench.adapter.heard) // 6 > 8000 - 20


def test_the_ring_of_a_stream_that_is_opened_late_is_looked_at_as_a_whole() -> None:
    """Its first frame is silent, which tells nothing."""
    sound = SOUND[:7_000] + bytes([0xFF]) * 160 + SOUND[7_160:]
    inbound, told = having_heard(frames(1, 0, 8_000, of=sound))
    inbound.join(3, {2})
    newest = frames(3, 11_000, 13_400, of=sound)
    inbound.replace_ring(newest)
    resume(inbound, told, newest[-1].arrival)
    told += take(inbound)
    assert inbound.awaits(2) and told[-1].ordinal == 1
    inbound.join(2, {2})
    now = newest[-1].arrival
    late = frames(2, 7_000, 12_000, of=sound)
    inbound.add_late([InboundFrame(now, 2, each.position, each.payload) for each in late])
    inbound.end_stream()
    told += take(inbound)
    assert inbound.lost == 0
    assert told[-1].position + len(told[-1].pcm) // 6 == 13_400


def test_a_stream_that_another_worker_had_is_not_waited_for() -> None:
    bench = Bench(1)
    bench.open()
    bench.adapter.heard_at = (2, 800)
    bench.gateway.generation = m.first_generation(2)
    next_stream(bench, None, one_way=False)
    assert bench.worker.calls[CALL].before == {}


@pytest.mark.parametrize("how", ["its gateway dies", "a stream comes that joins none"])
def test_what_waits_at_a_joint_is_heard_when_nothing_follows(how: str) -> None:
    bench = at_another_gateway(6400)
    if how == "its gateway dies":
        bench.worker.disconnected(GATEWAY, bench.now)
    else:
        bench.new_stream(None)
        bench.gateway.joins = False
        bench.open()
        bench.hear(0, SOUND[:160])
    bench.run()
    assert len(bench.adapter.heard) // 6 > 10_400 - 20
    assert bench.adapter.lost_in >= 1600


def test_a_key_that_a_gateway_tells_late_is_heard_too() -> None:
    bench = at_another_gateway(6400)
    key = m.DigitIn(1, 1, "5")
    bench.send(0, OTHER, m.Digit(CALL, m.first_generation(1), key))
    bench.send(0, b"stranger", m.Digit(CALL, m.first_generation(1), m.DigitIn(1, 2, "6")))
    bench.run()
    assert bench.adapter.others == [m.DigitHeard(CALL, bench.gateway.generation, key)]


@pytest.mark.parametrize("how", ["ends", "is gone"])
def test_frames_that_no_gateway_has_are_not_waited_for(how: str) -> None:
    bench = at_another_gateway(6400)
    if how == "ends":
        bench.send(0, OTHER, m.StreamEnded(CALL, m.first_generation(1), 1, "close"))
    else:
        bench.worker.disconnected(OTHER, bench.now)
    bench.run()
    assert bench.adapter.lost_in == 1600
    bench.send(0, OTHER, m.Inbound(first_stream(6400, 6560)))
    assert bench.worker.dropped == {"generation": 1}
    assert len(bench.adapter.heard) // 6 > 10_400 - 20


def test_frames_behind_the_joint_are_dropped_and_so_are_a_strangers() -> None:
    bench = at_another_gateway(8800)
    assert len(bench.adapter.heard) // 6 > 10_400 - 20
    bench.send(0, OTHER, m.Inbound(first_stream(8800, 8960)))
    assert bench.worker.dropped == {"generation": 1}
    bench = at_another_gateway(6400)
    bench.send(0, b"stranger", m.Inbound(first_stream(6400, 6560)))
    assert bench.worker.dropped == {"generation": 1}
