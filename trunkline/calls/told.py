"""What a running stack remembers of its calls: those that have ended, and the events of each.

The console's stream of server-sent events begins with both, and is read only so far. The console
listens on the stack's own machine, so it can be asked only there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

#: Seconds to wait for the console whenever it sends nothing.
_WITHIN: Final = 3.0
#: The server-sent events that the stream begins with.
_FIRST: Final = frozenset(("over", "entries", "state"))
#: Most characters to read until all of these have come.
_LONGEST: Final = 20_000_000


class Event(msgspec.Struct, frozen=True):
    """Something that happened to a call. ``at``: Unix time."""

    at: float
    text: str


class Told(msgspec.Struct, frozen=True):
    """``over``: calls that have ended, with the fields of live calls in ``trunkline status``,
    ``reason``, and ``began_at`` and ``over_at`` (Unix time). ``events``: CallSid -> the events of
    the call."""

    over: list[dict[str, Any]]
    events: dict[str, list[Event]]


def ask(console: str) -> Told | None:
    """Ask the console at this URL. None where it cannot be asked, or answers in another way."""
    # Imported where a console is there: it takes a quarter of what `trunkline show` costs.
    import requests

    from trunkline.bus.http import Session

    try:
        with (
            Session() as session,
            session.get(f"{console}/api/live", timeout=_WITHIN, stream=True) as answer,
        ):
            if answer.status_code != 200:
                return None
            return read(line.decode() for line in answer.iter_lines() if line)
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return None  # perhaps a console of another version; other sources know of calls, too


def read(lines: Iterable[str]) -> Told:
    """Read the events that the stream begins with. KeyError, TypeError or ValueError where it does
    not have them."""
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
    """The name and the data of each server-sent event."""
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
