"""A menu as a picture (SVG) and as lines of text, with the way that a call took through it.

No I/O. Steps stand in columns, by how many ways they are from the start. Those that no way leads to
stand in the last column.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from ..mulaw import RATE
from .steps import Menu, Step, Visit

#: Sizes in pixels: a step, and the room between columns and rows.
WIDTH: Final = 200
HEIGHT: Final = 64
BETWEEN_COLUMNS: Final = 120
BETWEEN_ROWS: Final = 34
MARGIN: Final = 30

_INK, _PALE, _TAKEN = "#22313f", "#9aa8b3", "#d9772b"
_STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#22313f}"
    ".name{font-weight:600;font-size:14px}.pale{fill:#5f6f7c}.taken{fill:#d9772b;font-weight:600}"
)


def lines(menu: Menu, way: Sequence[Visit] = ()) -> Iterator[str]:
    """The menu as text, a line for each step and each way out of it, and then the call's way."""
    yield f"{menu.name}: {len(menu.steps)} steps, begins at {menu.start}"
    for name, step in menu.steps.items():
        yield f"  {name}: {_does(step)}"
        for how, target in step.leads_to():
            yield f"    {how} -> {target}"
    unreached = [name for name in menu.steps if name not in _columns(menu)]
    if unreached:
        yield f"  no way leads to {', '.join(unreached)}"
    for visit in way:
        yield f"  {visit.at:6.2f} s  {visit.step}" + (f"  ({visit.how})" if visit.how else "")


def svg(menu: Menu, way: Sequence[Visit] = ()) -> str:
    """The menu as an SVG document. The steps and ways that the call took stand out."""
    at = _places(menu)
    taken = {(one.step, two.step) for one, two in itertools.pairwise(way)}
    width = max(x for x, _ in at.values()) + WIDTH + MARGIN
    parts = [_step_box(menu, name, x, y, way) for name, (x, y) in at.items()]
    lowest = max(y for _, y in at.values()) + HEIGHT
    for name, step in menu.steps.items():
        by_target: dict[str, list[str]] = {}
        for how, target in step.leads_to():
            by_target.setdefault(target, []).append(how)
        for n, (target, hows) in enumerate(by_target.items()):
            here = (name, target)
            parts.append(_arrow(at[name], at[target], ", ".join(hows), n, here in taken))
    title = escape(menu.name)
    tip = (
        '<marker id="{}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="9" markerHeight="9" '
        'markerUnits="userSpaceOnUse" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="{}"/></marker>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{lowest + MARGIN + 40}" '
        f'role="img" aria-label="{title}"><title>{title}</title><style>{_STYLE}</style><defs>'
        f"{tip.format('free', _PALE)}{tip.format('taken', _TAKEN)}</defs>"
        f'<rect width="100%" height="100%" fill="white"/>\n{chr(10).join(parts)}\n</svg>\n'
    )


def _columns(menu: Menu) -> dict[str, int]:
    """How many steps each reachable step is away from the start."""
    column = {menu.start: 0}
    waiting = [menu.start]
    for name in waiting:
        for _, target in menu.steps[name].leads_to():
            if target not in column:
                column[target] = column[name] + 1
                waiting.append(target)
    return column


def _places(menu: Menu) -> dict[str, tuple[int, int]]:
    """The upper left corner of each step."""
    column = _columns(menu)
    last = max(column.values()) + 1
    rows = [0] * (last + 1)
    at: dict[str, tuple[int, int]] = {}
    for name in [*column, *(name for name in menu.steps if name not in column)]:
        where = column.get(name, last)
        x = MARGIN + where * (WIDTH + BETWEEN_COLUMNS)
        at[name] = x, MARGIN + rows[where] * (HEIGHT + BETWEEN_ROWS)
        rows[where] += 1
    return at


def _step_box(menu: Menu, name: str, x: int, y: int, way: Sequence[Visit]) -> str:
    step = menu.steps[name]
    visits = [f"{visit.at:.1f} s" for visit in way if visit.step == name]
    stroke, thick = (_TAKEN, 2.5) if visits else (_INK if name == menu.start else _PALE, 1.2)
    texts = [
        f'<text class="name" x="{x + 10}" y="{y + 19}">{escape(_short(name, 24))}</text>',
        f'<text class="pale" x="{x + 10}" y="{y + 37}">{escape(_short(_says(step), 31))}</text>',
        f'<text class="pale" x="{x + 10}" y="{y + 54}">{escape(_short(_then(step), 31))}</text>',
    ]
    if visits:
        shown = escape(_short(", ".join(visits), 32))
        texts.append(f'<text class="taken" x="{x + 2}" y="{y - 5}">{shown}</text>')
    box = (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="7" fill="#f6f8fa" '
        f'stroke="{stroke}" stroke-width="{thick}"><title>{escape(_does(step))}</title></rect>'
    )
    return box + "".join(texts)


def _arrow(one: tuple[int, int], two: tuple[int, int], label: str, n: int, taken: bool) -> str:
    """An arrow to the right runs from the right side of a step to the left side of the other. One
    back, or within a column, runs below both."""
    x1, y1 = one[0] + WIDTH, one[1] + 14 + n * 13 % (HEIGHT - 20)
    if two[0] > one[0]:
        x2, y2 = two[0], two[1] + HEIGHT // 2
        bend = (x2 - x1) // 2
        path = f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
    else:
        x1, y1 = one[0] + WIDTH - 24 - 14 * n, one[1] + HEIGHT
        x2, y2 = two[0] + 24, two[1] + HEIGHT
        low = max(y1, y2) + 24 + 5 * n
        path = f"M{x1} {y1}C{x1} {low} {x2} {low} {x2} {y2}"
    kind, stroke, thick = ("taken", _TAKEN, 2.5) if taken else ("free", _PALE, 1.2)
    down = 0 if two[0] > one[0] else 13
    shown = escape(_short(label, 16))
    return (
        f'<path d="{path}" fill="none" stroke="{stroke}" stroke-width="{thick}" '
        f'marker-end="url(#{kind})"/><text class="{kind}" x="{x1 + 4}" y="{y1 - 3 + down}">'
        f"{shown}</text>"
    )


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _says(step: Step) -> str:
    if not step.sound:
        return "says nothing"
    return f"{len(step.sound) / RATE:.1f} s: {' + '.join(step.said) or 'a recording'}"


def _then(step: Step) -> str:
    if step.listen:
        return f"listens for {step.listen:g} s at most"
    if step.digits:
        return f"waits {step.timeout:g} s for keys, {1 + step.repeats} times"
    if step.bot is not None:
        return f"passes the call on to {step.bot.get('kind', 'a bot')}"
    if step.then:
        return f"goes on to {step.then}"
    return "hangs up" if step.end == "hang-up" else "the line is dead"


def _does(step: Step) -> str:
    return f"{_says(step)}; {_then(step)}"
