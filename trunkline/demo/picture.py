"""One call as a picture: the sound of both sides with their words, and how evenly frames came."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from trunkline.bus.sound import WIRE_RATE
from trunkline.bus.wav import Samples

from .measure import CallRecord, Speaker, Turn

INK: Final = "#22313f"
FAINT: Final = "#d7dde2"
COLOURS: Final[dict[Speaker, str]] = {"test": "#1f77b4", "agent": "#d9772b"}
NAMES: Final[dict[Speaker, str]] = {
    "test": "the test, as the far end heard it",
    "agent": "the agent, as it spoke",
}
#: Columns of a waveform. More could not be seen.
_COLUMNS: Final = 2400


def draw(record: CallRecord, title: str, path: Path) -> None:
    """Write the picture of one call as PNG."""
    figure = Figure(figsize=(13, 7.2), layout="constrained")
    test, agent, gaps = figure.subplots(3, 1, sharex=True, height_ratios=(2, 2, 1.3))
    figure.suptitle(title, fontsize=14, fontweight="bold", color=INK, x=0.012, ha="left")
    _waveform(test, record.played, "test", record)
    _waveform(agent, record.said, "agent", record)
    _gaps(gaps, record)
    _events(figure, (test, agent, gaps), record)
    times = [at for at, _ in _shown(record)]
    gaps.set_xlim(min(0.0, *times) - 0.1, max(record.seconds, *times) + 0.3)
    gaps.set_xlabel("seconds since the call was connected", color=INK)
    figure.savefig(path, dpi=130, facecolor="white")


def _plain(axes: Any) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=INK, length=3, labelsize=9)


def _waveform(axes: Any, samples: Samples, speaker: Speaker, record: CallRecord) -> None:
    _plain(axes)
    axes.set_yticks([])
    axes.set_ylim(-1.0, 1.45)
    axes.axhline(0, color=FAINT, linewidth=0.8)
    axes.set_title(NAMES[speaker], loc="left", fontsize=10, color=COLOURS[speaker])
    step = max(1, len(samples) // _COLUMNS)
    whole = samples[: len(samples) // step * step].reshape(-1, step) / 32768.0
    if len(whole):
        peak = max(0.05, float(np.abs(whole).max()))
        t = np.arange(len(whole)) * step / WIRE_RATE
        axes.fill_between(
            t,
            whole.min(axis=1) / peak * 0.95,
            whole.max(axis=1) / peak * 0.95,
            color=COLOURS[speaker],
            linewidth=0,
        )
    for turn in record.turns:
        if turn.speaker == speaker:
            _words(axes, turn, record.seconds)


def _words(axes: Any, turn: Turn, seconds: float) -> None:
    axes.axvspan(turn.start, turn.end, color=COLOURS[turn.speaker], alpha=0.08, linewidth=0)
    wide = max(14, int((turn.end - turn.start) / seconds * 150))
    axes.text(
        turn.start + 0.05,
        1.42,
        fill(turn.words or "(no words)", wide, break_long_words=False),
        va="top",
        fontsize=8,
        color=INK,
        style="italic",
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5},
    )


def _gaps(axes: Any, record: CallRecord) -> None:
    _plain(axes)
    axes.set_title(
        "ms between two frames at the carrier, while the test speaks (20 is even)",
        loc="left",
        fontsize=10,
        color=INK,
    )
    points = record.gaps_ms
    axes.axhline(20, color="#2e8b57", linewidth=1)
    axes.scatter(
        [at for at, _ in points],
        [gap for _, gap in points],
        s=5,
        color=INK,
        linewidths=0,
        alpha=0.6,
    )
    axes.set_ylim(0, max(40.0, *(gap for _, gap in points), 0.0) * 1.1)
    axes.text(
        0.995,
        0.95,
        f"set up in {record.setup_seconds * 1000:.0f} ms    drift {record.drift_ms:+.1f} ms    "
        f"gap p50 {record.gap_ms(0.5):.1f}, p99 {record.gap_ms(0.99):.1f}, "
        f"max {record.gap_ms(1.0):.1f} ms    underruns {record.metrics['underruns']}    "
        f"frames lost {record.frames_lost}",
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=8.5,
        color=INK,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": FAINT, "pad": 3},
    )


def _shown(record: CallRecord) -> list[tuple[float, str]]:
    """The events of a call, without those more than a second before or after its sound."""
    return [e for e in record.events if -1.0 <= e[0] <= record.seconds + 1.0] or [(0.0, "")]


def _events(figure: Any, all_axes: tuple[Any, ...], record: CallRecord) -> None:
    """Draw a line through all rows at each event. Its name is at the bottom of the second row, and
    above the name before it where the two events are close together."""
    level, last = 0, -10.0
    for at, what in _shown(record):
        for axes in all_axes:
            axes.axvline(at, color=INK, linewidth=0.7, linestyle=(0, (2, 3)))
        level = level + 1 if at - last < record.seconds * 0.08 else 0
        last = at
        near_end = at > record.seconds * 0.85
        all_axes[1].annotate(
            what,
            (at, -0.98 + 0.16 * level),
            xytext=(-3 if near_end else 3, 0),
            textcoords="offset points",
            ha="right" if near_end else "left",
            fontsize=8,
            color=INK,
        )
