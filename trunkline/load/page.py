"""A load test as one HTML file, which opens without a network: picture, table, slowest calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from ..reports import page as reports
from ..reports.recordings import Heard
from .figures import Load, Row, Step

#: The picture's width, and the heights of its parts in pixels: latency above, failures below.
WIDTH: Final = 1000
LATENCY: Final = 300
FAILED: Final = 70
_LEFT: Final = 60
_GAP: Final = 46
_FLOOR: Final = 24 + LATENCY + _GAP + FAILED
_HEIGHT: Final = _FLOOR + 42
_INK: Final = "#22313f"
_FAINT: Final = "#d7dde2"
_BAD: Final = "#b00020"
#: The lines of the picture: the name of a figure of the latency, and its colour.
_LINES: Final = (("max", "#d9772b"), ("p90", "#8a63b3"), ("p50", "#1f77b4"))

#: The table's columns, here and on the terminal.
COLUMNS: Final = ("at a time", "answered", "failed", "answers", "p50", "p90", "max", "reliable")


def page(load: Load, steps: Sequence[Step], worst: Iterable[Heard]) -> str:
    """The whole page."""
    notes = [*load.broken, *filter(None, [load.stopped])]
    bad = "".join(f'<p class="bad">{escape(note)}</p>' for note in notes)
    head = (
        f"<section><p>Asked from {escape(load.caller)}. A dot is an answer.</p>{bad}"
        f"{picture(load.steps, [step.latencies for step in steps])}{_table(load.steps)}</section>"
    )
    calls = [reports.section(heard) for heard in worst]
    if calls:
        head += "<h2>The calls with the slowest answers</h2>"
    return reports.page(f"trunkline load: {load.to}", [head, *calls])


def picture(rows: Sequence[Row], latencies: Sequence[Sequence[float]]) -> str:
    """Latency and failures by calls at a time, as SVG."""
    top = max([1.0, *(seconds for each in latencies for seconds in each)])
    bottom = 24 + LATENCY
    parts = [_scale(top, bottom)]
    for name, colour in _LINES:
        parts.append(_line(rows, name, colour, top, bottom))
    for at, (row, seconds) in enumerate(zip(rows, latencies, strict=True)):
        x = _x(at, len(rows))
        parts += [
            f'<circle cx="{x:.1f}" cy="{_y(each, top, bottom):.1f}" r="3" fill="{_INK}" '
            'opacity=".25"/>'
            for each in seconds
        ]
        parts += [_failures(row, x), _text(x, _FLOOR + 16, str(row.concurrency), "middle")]
    parts.append(_text(_LEFT, bottom + _GAP - 8, "failed calls", colour=_BAD))
    parts.append(f'<line x1="{_LEFT}" x2="{WIDTH}" y1="{_FLOOR}" y2="{_FLOOR}" stroke="{_FAINT}"/>')
    parts.append(_text((_LEFT + WIDTH) / 2, _HEIGHT - 8, "calls at a time", "middle"))
    return (
        f'<svg viewBox="0 0 {WIDTH} {_HEIGHT}" width="100%" role="img" '
        f'aria-label="Latency and failures by calls at a time">{"".join(parts)}</svg>'
    )


def _x(at: int, count: int) -> float:
    return _LEFT + (WIDTH - _LEFT) * (at + 0.5) / max(1, count)


def _y(seconds: float, top: float, bottom: int) -> float:
    return bottom - LATENCY * 0.94 * seconds / top


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = _INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(text)}</text>"
    )


def _scale(top: float, bottom: int) -> str:
    """Horizontal lines with their times: one a second, or about six where the scale is longer."""
    step = max(1, round(top / 6))
    marks = []
    for second in range(0, int(top) + 1, step):
        y = _y(second, top, bottom)
        marks.append(
            f'<line x1="{_LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_FAINT}"/>'
        )
        marks.append(_text(_LEFT - 8, y + 4, f"{second} s", "end"))
    return "".join(marks)


def _line(rows: Sequence[Row], name: str, colour: str, top: float, bottom: int) -> str:
    """One figure of the latency, through all steps that have it, with its name at the end."""
    known = [(_x(at, len(rows)), getattr(row.latency, name)) for at, row in enumerate(rows)]
    points = [(x, _y(value, top, bottom)) for x, value in known if value is not None]
    if not points:
        return ""
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    return f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>' + _text(
        x + 8, y + 4, name, colour=colour
    )


def _failures(row: Row, x: float) -> str:
    """A bar for the share of a step's calls that failed, with their number."""
    failed = sum(row.failures.values())
    height = FAILED * min(1.0, failed / row.concurrency)
    y = _FLOOR - height
    said = _text(x, y - 3, str(failed), "middle", _BAD) if failed else ""
    return (
        f'<rect x="{x - 16:.1f}" y="{y:.1f}" width="32" height="{height:.1f}" fill="{_BAD}"/>{said}'
    )


def _table(rows: Iterable[Row]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(row)) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def cells(row: Row) -> tuple[str, ...]:
    """The cells of a step's row in the table, in the order of :data:`COLUMNS`."""
    failed = ", ".join(f"{count} {kind}" for kind, count in row.failures.items())
    seconds = (row.latency.p50, row.latency.p90, row.latency.max)
    return (
        str(row.concurrency),
        str(row.answered),
        failed or "0",
        str(row.latency.n),
        *("-" if each is None else f"{each:.2f} s" for each in seconds),
        "yes" if row.reliable else "no",
    )
