"""The carrier's buffer and the metrics, on a clock that the test turns."""

from __future__ import annotations

import pytest

from trunkline.carrier_sim.mulaw import SILENCE
from trunkline.carrier_sim.pacing import measure
from trunkline.carrier_sim.playback import PlaybackBuffer, Span

FRAME = bytes(range(160))


class Playing:
    """Ticks of 20 ms; `send` lists when frames arrive (ms)."""

    def __init__(self) -> None:
        self.buffer = PlaybackBuffer()
        self.marks: list[str] = []
        self.heard = b""

    def run(self, until_ms: int, arrivals: list[float], start_ms: int = 0) -> None:
        todo = sorted(arrivals)
        for ms in range(start_ms, until_ms, 20):
            while todo and todo[0] <= ms:
                self.buffer.add(todo.pop(0) / 1000, FRAME)
            self.heard += self.buffer.take(ms / 1000)
            self.marks += self.buffer.reached()


def test_sound_comes_out_in_order_and_silence_otherwise() -> None:
    playing = Playing()
    playing.buffer.add(0.0, b"\x01" * 100)
    playing.buffer.add(0.0, b"\x02" * 100)
    playing.run(60, [])
    assert playing.heard == b"\x01" * 100 + b"\x02" * 100 + b"\xff" * 280
    assert playing.buffer.spans == [Span(0.0, 0.025, 0, 200, "dry")]


def test_marks_come_back_when_reached() -> None:
    playing = Playing()
    assert playing.buffer.mark("at once") == ["at once"]
    playing.buffer.add(0.0, FRAME * 2)
    assert playing.buffer.mark("two") == []
    assert playing.buffer.mark("two again") == []
    playing.buffer.add(0.0, FRAME)
    assert playing.buffer.mark("three") == []
    playing.run(20, [])
    assert playing.marks == []
    playing.run(40, [], 20)
    assert playing.marks == ["two", "two again"]
    playing.run(60, [], 40)
    assert playing.marks == ["two", "two again", "three"]
    assert playing.buffer.pending_marks == 0


def test_clear_empties_and_returns_all_marks() -> None:
    playing = Playing()
    playing.buffer.add(0.0, FRAME * 50)
    playing.buffer.mark("end")
    playing.run(40, [])
    assert playing.buffer.clear(0.045) == ["end"]
    assert playing.buffer.take(0.06) is SILENCE
    assert playing.buffer.discarded == 48 * 160
    span = playing.buffer.spans[0]
    # The frame that is being played is heard to its end.
    assert span.ended_by == "clear" and span.ended == pytest.approx(0.04)
    # Audio after a clear plays, and its marks count from there.
    playing.buffer.add(0.07, FRAME)
    assert playing.buffer.mark("next") == []
    playing.run(100, [], 80)
    assert playing.marks == ["next"]
    assert playing.buffer.played == playing.buffer.accepted == 51 * 160


def test_exact_pacing_with_a_lead() -> None:
    playing = Playing()
    playing.run(3000, [0, 0, 0, *(20 * n for n in range(1, 100))])
    metrics = measure(playing.buffer, 7, 3.0)
    (utterance,) = metrics.utterances
    assert metrics.frames_in == 7 and metrics.frames_out == 102
    assert utterance.underruns == 0
    assert utterance.drift_ms == pytest.approx(-40.0)
    assert utterance.slope == pytest.approx(1.0)
    assert utterance.max_depth_ms == 60.0
    assert utterance.gap_p50_ms == pytest.approx(20.0)
    assert utterance.ended - utterance.started == pytest.approx(102 * 0.02)


def test_of_a_message_with_two_frames_each_has_its_own_time() -> None:
    buffer = PlaybackBuffer()
    for n in range(20):
        buffer.add(n * 0.04, bytes(320))
        buffer.take(n * 0.04)
        buffer.take(n * 0.04 + 0.02)
    metrics = measure(buffer, 0, 0.8)
    assert (metrics.gap_p50_ms, metrics.gap_max_ms) == (pytest.approx(20.0), pytest.approx(20.0))


def test_a_slow_pacer_drifts_and_runs_dry() -> None:
    playing = Playing()
    playing.run(4000, [21.0 * n for n in range(150)])
    (utterance,) = measure(playing.buffer, 0, 4.0).utterances
    assert utterance.drift_ms == pytest.approx(149.0)
    assert utterance.slope == pytest.approx(1.05)
    assert utterance.underruns >= 7
    assert utterance.underrun_ms == pytest.approx(20.0 * utterance.underruns)


def test_a_hole_is_an_underrun_and_a_pause_is_not() -> None:
    playing = Playing()
    first = [20.0 * n for n in range(10)]
    late = [300.0 + 20 * n for n in range(10)]
    later = [2000.0 + 20 * n for n in range(10)]
    playing.run(3000, first + late + later)
    metrics = measure(playing.buffer, 0, 3.0)
    assert [u.underruns for u in metrics.utterances] == [1, 0]
    assert metrics.underrun_ms == pytest.approx(100.0)
    assert [u.messages for u in metrics.utterances] == [20, 10]
    assert metrics.gap_max_ms == pytest.approx(120.0)


def test_a_clear_ends_an_utterance() -> None:
    playing = Playing()
    playing.run(100, [0.0] * 20)
    playing.buffer.clear(0.1)
    playing.run(300, [120.0, 140.0], 100)
    metrics = measure(playing.buffer, 0, 0.3)
    assert [u.ended_by for u in metrics.utterances] == ["clear", "dry"]
    assert metrics.underruns == 0
    assert metrics.discarded_ms == 300.0
    assert metrics.played_ms == 140.0


def test_nothing_at_all() -> None:
    metrics = measure(PlaybackBuffer(), 0, 1.0)
    assert metrics.utterances == () and metrics.gap_p99_ms == 0.0
