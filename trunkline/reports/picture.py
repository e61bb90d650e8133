"""Both sides of a call as SVG: waveforms, segments, and the waits for answers between them."""

from __future__ import annotations

from html import escape
from typing import Final

import numpy as np

from trunkline.bus.wav import Samples
from trunkline.ear.figures import Segment
from trunkline.ear.levels import RATE

from .recordings import Heard

#: Size of the picture of a call in pixels. Each side is twice HALF high.
WIDTH: Final = 1000
HALF: Final = 45
HEIGHT: Final = 4 * HALF + 40
COLOURS: Final = {"ours": "#1f77b4", "theirs": "#d9772b"}


def svg(call: Heard) -> str:
    """The picture as an element of a page."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img" '
        f'aria-label="Both sides of the call">{_drawn(call)}</svg>'
    )


def whole(call: Heard) -> str:
    """The picture as a file of its own, with the call's title."""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" font-family="system-ui, sans-serif" '
        f'viewBox="0 -24 {WIDTH} {HEIGHT + 24}" width="{WIDTH}" height="{HEIGHT + 24}">'
        f'<title>{escape(call.title)}</title><rect y="-24" width="100%" height="100%" fill="#fff"/>'
        f'<text x="2" y="-8" font-size="13">{escape(call.title)}</text>{_drawn(call)}</svg>\n'
    )


def _drawn(call: Heard) -> str:
    seconds = max(call.report.seconds, 0.1)
    scale = WIDTH / seconds
    sides = call.report.sides
    parts = [
        _side("ours", call.ours, sides.ours.segments, HALF, scale),
        _side("theirs", call.theirs, sides.theirs.segments, 3 * HALF + 20, scale),
    ]
    for answer in call.report.answers:
        begin, end = answer.after * scale, answer.start * scale
        parts.append(
            f'<line x1="{begin:.1f}" x2="{end:.1f}" y1="{2 * HALF + 10}" y2="{2 * HALF + 10}" '
            f'stroke="#22313f"/><text x="{begin:.1f}" y="{2 * HALF + 7}" font-size="10">'
            f"{answer.latency:.2f}</text>"
        )
    step = max(1, round(seconds / 15))
    parts += [
        f'<text x="{at * scale:.1f}" y="{4 * HALF + 34}" font-size="10" fill="#788">{at} s</text>'
        for at in range(0, int(seconds) + 1, step)
    ]
    return "".join(parts)


def _side(name: str, samples: Samples, segments: list[Segment], middle: int, scale: float) -> str:
    colour = COLOURS[name]
    boxes = "".join(
        f'<rect x="{each.start * scale:.1f}" width="{(each.end - each.start) * scale:.1f}" '
        f'y="{middle - HALF}" height="{2 * HALF}" fill="{colour}" opacity=".13"/>'
        for each in segments
    )
    wave_points = ""
    if len(samples):
        columns = min(WIDTH, len(samples))
        cut = np.linspace(0, len(samples), columns, endpoint=False).astype(int)
        peak = max(1000.0, float(np.abs(samples.astype(np.int32)).max()))
        top = np.maximum.reduceat(samples, cut) / peak
        bottom = np.minimum.reduceat(samples, cut) / peak
        x = cut / RATE * scale
        wave_points = " ".join(
            f"{at:.1f},{middle - HALF * value:.1f}"
            for xs, values in ((x, top), (x[::-1], bottom[::-1]))
            for at, value in zip(xs.tolist(), values.tolist(), strict=True)
        )
    return (
        f'{boxes}<polygon points="{wave_points}" fill="{colour}"/>'
        f'<text x="2" y="{middle - HALF + 11}" font-size="11" fill="{colour}">{name}</text>'
    )
