"""What a running stack remembers of its calls: those that are over, and the events of each.

The console's stream of events begins with both. It is read as far as that, from this machine alone,
where the console listens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
import requests

from trunkline.bus.http import Session

#: Seconds for each answer of the console's.
_WITHIN: Final = 3.0
#: The events that the stream begins with.
_FIRST: Final = frozenset(("over", "entries", "state"))
_LONGEST: Final = 20_000_000


class Event(msgspec.Struct, frozen=True):
    """Something that happened to a call. ``at``: Unix time."""

    at: float
    text: str


class Told(msgspec.Struct, frozen=True):
    """``over``: calls that are over, as ``trunkline status`` has live ones, each with ``over_at``.
    ``events``: by CallSid."""

    over: list[dict[str, Any]]
    events: dict[str, list[Event]]


def ask(console: str) -> Told | None:
    """Ask the console at this URL; None where it does not tell."""
    try:
        with (
            Session() as session,
            session.get(f"{console}/api/live", timeout=_WITHIN, stream=True) as answer,
        ):
            if answer.status_code != 200:
                return None
            return read(line.decode() for line in answer.iter_lines() if line)
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return None  # another version's console; the journal and the recordings tell the rest


def read(lines: Iterable[str]) -> Told:
    """The first events of the stream. KeyError, TypeError and ValueError where it has others."""
    found: dict[str, Any] = {}
    for name, data in _events(lines):
        found[name] = data
        if found.keys() >= _FIRST:
            break
    calls = [*found["over"], *found["state"]["calls"]]
    sids = {call["id"]: call["sid"] for call in calls if call["sid"]}
    events: dict[str, list[Event]] = {}
    for entry in found["entries"]:
        sid = sids.get(entry.get("call"))
        if sid is not None:
            events.setdefault(sid, []).append(Event(float(entry["at"]), str(entry["text"])))
    return Told(found["over"], events)


def _events(lines: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Names and data of server-sent events."""
    name, read = "", 0
    for line in lines:
        read += len(line)
        if read > _LONGEST:
            raise ValueError("the console tells more than it can remember")
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)
