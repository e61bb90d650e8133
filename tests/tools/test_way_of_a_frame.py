"""The way of a frame, as docs/architecture.md tells it: each file is there, has what the row names,
and is given the frame by one above it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from definitions import defined

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\d+) \| `([\w/]+\.py)` \| (?:`(\w+)` )?\| (.+) \|$", re.MULTILINE)
#: An identifier of ours: ``Pace``, ``Links.flush``, ``recv_audio``.
NAME = re.compile(r"`([A-Za-z_]\w*(?:\.[a-z]\w*)?)`")


class Hop(NamedTuple):
    number: int
    file: Path
    by: str
    what: str


def ways() -> list[list[Hop]]:
    """In, out, and the acknowledgement: a table begins anew at 1."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    section = text[text.index("\n## The way of a frame\n") :].split("\n## ")[1]
    found: list[list[Hop]] = []
    for number, file, by, what in ROW.findall(section):
        if number == "1":
            found.append([])
        found[-1].append(Hop(int(number), ROOT / file, by, what))
    return found


HOPS = [
    pytest.param(way, hop, id=f"{which}-{hop.number}")
    for which, way in zip(("in", "out", "acknowledged"), ways(), strict=True)
    for hop in way
]


@cache
def says(path: Path) -> set[str]:
    """The names in a file's code, comments and texts apart."""
    found = {*defined(path), path.stem}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
    return found


def test_each_way_is_counted_through_and_ends_where_it_is_to() -> None:
    for way in ways():
        assert [hop.number for hop in way] == list(range(1, len(way) + 1))
    there, back, told = ([hop.file.relative_to(ROOT).parts[0] for hop in way] for way in ways())
    rooms = ["gateway", "codec_worker", "adapter"]
    assert [*dict.fromkeys(there)] == [*dict.fromkeys(told)] == rooms
    assert [*dict.fromkeys(back)] == rooms[::-1]


@pytest.mark.parametrize(("way", "hop"), HOPS)
def test_what_a_row_names_stands_in_its_file(way: list[Hop], hop: Hop) -> None:
    """Or it is a message of the bus, and a file of this way speaks of it."""
    messages = defined(ROOT / "bus" / "media_messages.py")
    for name in set(NAME.findall(hop.what)) - defined(hop.file):
        assert name in messages, f"{hop.file.name} has no {name}"
        assert any(name in says(other.file) for other in way), f"nobody says {name}"


@pytest.mark.parametrize(("way", "hop"), HOPS)
def test_a_file_is_given_the_frame_by_one_above_it(way: list[Hop], hop: Hop) -> None:
    above = way[: hop.number - 1]
    assert bool(hop.by) == bool(above)
    if above:
        assert hop.by in says(hop.file), f"{hop.file.name} does not say {hop.by}"
        assert any(hop.by in says(other.file) for other in above), f"nobody says {hop.by}"
