"""Reports as one HTML file that opens without a network: figures, waveforms, turns, and the sound.

The slowest answers of a call come first, and a click on one plays it.
"""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Iterable
from html import escape
from typing import Final

import numpy as np

from trunkline.bus.wav import Samples
from trunkline.ear.figures import Report
from trunkline.ear.levels import RATE

from . import picture
from .recordings import Heard
from .text import spread_text

#: Seconds before the place of a row from which on a click on it plays.
BEFORE: Final = 1.0

_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; color: #22313f; max-width: 1040px; margin: 2em auto;
       padding: 0 1em }
section { border-top: 1px solid #d7dde2; margin-top: 2em }
.bad { color: #b00020; font-weight: 600 }
audio { width: 100% }
table { border-collapse: collapse; margin: .6em 0 }
td, th { padding: .15em 1em .15em 0; text-align: left; font-variant-numeric: tabular-nums }
tr[data-at] { cursor: pointer }
tr[data-at]:hover { background: #eef2f5 }
pre { white-space: pre-wrap; background: #f6f8fa; padding: .6em }
"""
_SCRIPT: Final = """
document.addEventListener("click", event => {
  const row = event.target.closest("[data-at]");
  if (!row) return;
  const sound = row.closest("section").querySelector("audio");
  sound.currentTime = row.dataset.at;
  sound.play();
});
"""


def page(title: str, calls: Iterable[str]) -> str:
    """The whole page. ``calls``: their HTML, as :func:`section` makes it."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>\n"
        f"{''.join(calls)}<script>{_SCRIPT}</script></body></html>\n"
    )


def section(call: Heard, verdict: str = "", title: str | None = None, again: str = "") -> str:
    """The HTML of one call. ``verdict``: how its test failed. ``title``: in place of the call's
    own. ``again``: the command that plays the call again."""
    report = call.report
    bad = "".join(
        f'<p class="bad">Unreliable: {escape(reason)}.</p>' for reason in report.unreliable_because
    )
    said = f'<pre class="bad">{escape(verdict)}</pre>' if verdict else ""
    if again:
        said += (
            "<p>Play it again. This tests trunkline. With "
            "<code>--against ws://… --play ours</code> it tests the agent that was called:</p>"
            f"<pre>{escape(again)}</pre>"
        )
    return (
        f"<section><h2>{escape(title or call.title)}</h2>{bad}{said}"
        f"{picture.svg(call)}"
        f'<audio controls preload="none" src="{_sound(call.ours, call.theirs)}"></audio>'
        f"{_figures(report)}{_answers(report)}{_overlaps(report)}</section>\n"
    )


def without_sound(title: str, verdict: str, again: str) -> str:
    """The HTML of a failed test without a call, or without the sound of one. ``again``: how to meet
    the same again."""
    return (
        f'<section><h2>{escape(title)}</h2><pre class="bad">{escape(verdict)}</pre>'
        f"<p>No sound was kept of a call.</p><pre>{escape(again)}</pre></section>\n"
    )


def _sound(ours: Samples, theirs: Samples) -> str:
    """Both sides as the data URL of a WAV file: theirs left and ours right, as in a recording."""
    both = np.zeros((max(len(ours), len(theirs)), 2), "<i2")
    both[: len(theirs), 0], both[: len(ours), 1] = theirs, ours
    whole = io.BytesIO()
    with wave.open(whole, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(both.tobytes())
    return "data:audio/wav;base64," + base64.b64encode(whole.getvalue()).decode()


def _figures(report: Report) -> str:
    jitter = "not known" if report.jitter_ms is None else f"{report.jitter_ms} ms"
    rows = (
        ("latency", spread_text(report.latency)),
        ("time to yield", spread_text(report.time_to_yield)),
        ("both spoke", f"{report.talk_over_seconds:.2f} s"),
        ("frames lost", str(report.frames_lost)),
        ("jitter", jitter),
        ("keys", " ".join(f"{digit.digit} ({digit.side})" for digit in report.digits) or "none"),
    )
    return _table((), ((None, cells) for cells in rows))


def _answers(report: Report) -> str:
    worst = sorted(report.answers, key=lambda answer: -answer.latency)
    if not worst:
        return ""
    rows = (
        (
            each.after - BEFORE,
            (f"{each.latency:.2f} s", f"{each.after:.2f} s", f"{each.start:.2f} s"),
        )
        for each in worst
    )
    return "<h3>Answers, the worst first</h3>" + _table(("latency", "after", "begins at"), rows)


def _overlaps(report: Report) -> str:
    rows: list[tuple[float | None, tuple[str, ...]]] = []
    for each in report.yields:
        took = "they did not yield" if each.seconds is None else f"yielded in {each.seconds:.2f} s"
        rows.append((each.at - BEFORE, (f"{each.at:.2f} s", took)))
    for false in report.false_yields:
        rows.append((false.at - BEFORE, (f"{false.at:.2f} s", "stopped for a backchannel")))
    for begun in report.interruptions_by_them:
        what = f"interrupted us for {begun.seconds:.2f} s"
        rows.append((begun.at - BEFORE, (f"{begun.at:.2f} s", what)))
    for silence in report.silences:
        what = f"nobody spoke for {silence.end - silence.start:.1f} s"
        rows.append((silence.start - BEFORE, (f"{silence.start:.2f} s", what)))
    rows.sort(key=lambda row: row[0] or 0.0)
    return "<h3>What else happened</h3>" + _table(("at", ""), rows) if rows else ""


def _table(head: tuple[str, ...], rows: Iterable[tuple[float | None, tuple[str, ...]]]) -> str:
    """A table. Each row has the time from which a click plays, or None, and its cells."""
    out = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        ("<tr>" if at is None else f'<tr data-at="{max(0.0, at):.2f}">')
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for at, cells in rows
    )
    return f"<table><tr>{out}</tr>{body}</table>" if head else f"<table>{body}</table>"
