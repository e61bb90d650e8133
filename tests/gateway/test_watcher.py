"""How loud streams are, and the sound of one: for whoever looks at the console, and nobody else."""

from __future__ import annotations

import pytest

from trunkline.bus import messages as m
from trunkline.bus.testing import until
from trunkline.gateway import watcher
from trunkline.gateway.watcher import FULL_SCALE, Meter, Watcher, loudness

from .model import A, Bench, accepted, placement, up

#: mu-law: full scale, half of it, silence.
LOUD, HALF, SILENT = b"\x80", b"\x8f", b"\xff"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_loudness_is_in_half_decibels_and_silence_is_nothing() -> None:
    assert loudness(LOUD * 800) == FULL_SCALE
    assert abs(loudness(HALF * 800) - (FULL_SCALE - 11)) <= 2, "half of it is 5.6 dB less"
    assert loudness(SILENT * 800) == loudness(b"") == 0
    # The loudest sample counts.
    assert loudness(SILENT * 799 + HALF) == loudness(HALF)


def meter_on(bench: Bench, late: list[float]) -> Meter:
    """A meter on the one stream that there is; the last of ``late`` is its newest frame's."""
    up(bench, placement(1, A))
    (stream,) = bench.streams.all_live()
    meter = Meter(stream, lambda: late[-1])
    stream.keep(meter.keeps)
    return meter


@pytest.mark.parametrize("pairs", [False, True])
def test_a_meter_tells_both_sides_in_thirds_and_begins_again(bench: Bench, *, pairs: bool) -> None:
    bench.say(A, m.Pair(pairs))
    bench.streams.media(1, 0, LOUD * 160)  # before anybody looked
    meter = meter_on(bench, [0.0])
    for n in range(1, 16):
        bench.streams.media(1, n * 160, (SILENT if n < 11 else LOUD) * 160)
    frames = [m.OutFrame("c1", m.first_generation(1), n * 160, HALF * 160) for n in range(5)]
    bench.say(A, m.Outbound(frames))
    loud = loudness(HALF)
    assert meter.take(bench.now) == m.Level(
        call="c1", far=bytes((0, 0, FULL_SCALE)), ours=bytes((loud, loud, loud)), lead_ms=100
    )
    bench.now += 0.06
    assert meter.take(bench.now) == m.Level(call="c1", far=bytes(3), ours=bytes(3), lead_ms=40)
    bench.say(A, m.Clear("c1", m.first_generation(1), 800, 1))
    assert meter.take(bench.now).lead_ms == 0


def test_jitter_grows_where_frames_come_unevenly_and_not_where_they_come_in_time(
    bench: Bench,
) -> None:
    late = [0.1]
    meter = meter_on(bench, late)
    for _ in range(200):
        told = meter.take(bench.now)
    assert told.jitter_ms == 0, "late is not uneven"
    for n in range(200):
        late.append(0.1 + 0.02 * (n % 2))
        told = meter.take(bench.now)
    assert told.jitter_ms == 20


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[m.Notification]:
    monkeypatch.setattr(watcher, "EVERY", 0.005)
    return []


def watching(bench: Bench, told: list[m.Notification], clock: Clock) -> Watcher:
    def notify(notification: m.Notification) -> bool:
        told.append(notification)
        return True

    return Watcher("g1", bench.streams, notify, clock, lambda socket: 0.0)


async def test_nothing_is_on_a_stream_while_nobody_looks(
    bench: Bench, told: list[m.Notification]
) -> None:
    clock = Clock()
    shown = watching(bench, told, clock)
    up(bench, placement(1, A))
    shown.opened("c1")
    (stream,) = bench.streams.all_live()
    assert (stream.taps, stream.keeps) == ((), None)
    shown.watch(m.Watch(seconds=5.0))
    keeps = stream.keeps
    assert keeps is not None
    shown.watch(m.Watch(seconds=5.0))
    assert stream.keeps is keeps, "a Watch that is renewed is the same"
    bench.heard(1, 0, 160)
    await until(lambda: bool(told))
    (told_first, *_) = told
    assert isinstance(told_first, m.Levels)
    assert [level.call for level in told_first.levels] == ["c1"]
    # The last page is closed, and another one opened.
    shown.watch(m.Watch(seconds=0.0))
    assert stream.keeps is None
    shown.watch(m.Watch(seconds=5.0))
    assert stream.keeps is not None
    # Nobody renews it.
    clock.now = 5.1
    await until(lambda: stream.keeps is None)
    told.clear()
    # Another one that begins now would be the second to tell something.
    later: list[m.Notification] = []
    watching(bench, later, clock).watch(m.Watch(seconds=5.0))
    await until(lambda: len(later) >= 2)
    assert told == []


async def test_a_call_that_is_named_is_heard_and_no_other(
    bench: Bench, told: list[m.Notification]
) -> None:
    shown = watching(bench, told, Clock())
    up(bench, placement(1, A))
    shown.watch(m.Watch(seconds=5.0, sound=["c2"]))
    bench.accept(2, accepted(placement(1, A), call="c2"))
    shown.opened("c2")
    for socket in (1, 2):
        bench.heard(socket, 0, 160)
    sounds: list[m.CallSound] = []
    await until(
        lambda: bool(sounds.extend(x for x in told if isinstance(x, m.CallSound)) or sounds)
    )
    assert {sound.call for sound in sounds} == {"c2"}
    assert (sounds[0].at, len(sounds[0].mulaw)) == (0, 640)
    # It is listened to no more, and still looked at.
    shown.watch(m.Watch(seconds=5.0))
    streams = bench.streams.all_live()
    assert [(stream.taps, stream.keeps is None) for stream in streams] == [((), False)] * 2
    shown.close()
    assert [stream.keeps for stream in streams] == [None, None]


async def test_a_stream_that_has_ended_is_told_no_more(
    bench: Bench, told: list[m.Notification]
) -> None:
    shown = watching(bench, told, Clock())
    up(bench, placement(1, A))
    shown.watch(m.Watch(seconds=5.0))
    bench.run(bench.streams.closed(1, "stop", bench.now))
    bench.accept(2, accepted(placement(1, A), call="c2"))
    shown.opened("c2")
    await until(lambda: bool(told))
    assert isinstance(told[0], m.Levels) and [x.call for x in told[0].levels] == ["c2"]
    shown.close()
