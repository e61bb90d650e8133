"""Where the answers in two runs of a call differ. No I/O.

No agent speaks in the same way twice, so only these are compared:

1. *TwiML and REST*: the order of requests, the status, and a document's verbs with their attributes
   and texts. A URL's scheme and host, the values in its query, tokens and phone numbers are not
   compared, because they differ from stack to stack.
2. *Marks and clears* of a stream: how many come, and in which order. Their names are not compared.
3. *Sound*: how many segments of speech there are (a pause of 0.3 s divides them), and for each when
   it begins, how long it lasts and how loud it is, within the tolerance. When a cassette is played
   as fast as possible, times mean nothing. Then the length and the level of all sound together are
   compared. The words are never compared.
4. *The stream's end*: who ended it, and when, within the tolerance.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final
from urllib.parse import urlsplit

from .cassette import Cassette, Exchange, Stream
from .sound import Segment, spoken

#: Seconds and decibels by which sound may differ, unless the user says otherwise.
TOLERANCE: Final = 0.5
LEVEL: Final = 6.0
#: The share by which the length of all sound together may differ where times mean nothing.
PART: Final = 0.2

_NOTHING: Final = "nothing"
_NUMBER: Final = re.compile(r"\+?[0-9]{7,15}\Z")
_SID: Final = re.compile(r"\b(AC|CA|MZ)[0-9a-f]{32}\b")


@dataclass(frozen=True)
class Difference:
    """One difference. ``at``: seconds since the call's beginning, on the cassette's clock.
    ``where``: the webhook, request or stream. ``was``, ``now``: then and in the replay."""

    at: float
    where: str
    was: str
    now: str


@dataclass(frozen=True)
class Tolerance:
    """How far answers may differ. ``timed`` False: the cassette was played as fast as possible, so
    times are not compared. ``signals`` False: the cassette has no marks and clears to compare,
    because the agent was its far end."""

    seconds: float = TOLERANCE
    level: float = LEVEL
    timed: bool = True
    signals: bool = True


def differences(was: Cassette, now: Cassette, tolerance: Tolerance) -> list[Difference]:
    """All differences between the two runs, in order of time."""
    hooks = _exchanges(was.hooks, now.hooks, lambda n, hook: f"webhook {n} ({hook.path})", _answer)
    rest = _exchanges(_orders(was), _orders(now), lambda n, _: f"REST {n}", _order)
    found = [*hooks, *rest]
    for n, (before, after) in enumerate(zip_longest(was.streams, now.streams), 1):
        where = f"stream {n}"
        if before is None or after is None:
            at = (before or after or Stream("", 0.0)).opened
            told = ["a stream" if each else "no stream" for each in (before, after)]
            found.append(Difference(at, where, *told))
        else:
            found += streams(where, before, after, tolerance)
            if not _taken_over(before, was.streams):
                found += _end(where, before, after, tolerance)
    return sorted(found, key=lambda each: each.at)


# --------------------------------------------------------------------------- documents


def _exchanges(
    was: Sequence[Exchange],
    now: Sequence[Exchange],
    where: Callable[[int, Exchange], str],
    what: Callable[[Exchange], str],
) -> Iterator[Difference]:
    """``where`` names an exchange, the first of which is number 1, and ``what`` is compared."""
    for n, (before, after) in enumerate(zip_longest(was, now), 1):
        either = before or after
        assert either is not None
        told = [_NOTHING if each is None else what(each) for each in (before, after)]
        if told[0] != told[1]:
            yield Difference(either.at, where(n, either), *told)


def _answer(hook: Exchange) -> str:
    if not hook.status:
        return "no answer"
    return f"{hook.status} {document(hook.body)}".strip()


def _orders(cassette: Cassette) -> list[Exchange]:
    """The requests that change something. Reads are not compared, because they are polls."""
    return [request for request in cassette.rest if request.method != "GET"]


def _order(request: Exchange) -> str:
    form = dict(request.form)
    parts = [request.method, _SID.sub(r"\1…", request.path)]
    for name in sorted(form):
        value = form[name]
        if name == "Twiml":
            parts.append(document(str(value)))
        elif name in ("Status", "Track", "MachineDetection", "TimeLimit"):
            parts.append(f"{name}={value}")
    return " ".join(parts)


def document(text: str) -> str:
    """The verbs of a TwiML document in one line, without what differs from stack to stack."""
    if not text.strip():
        return ""
    try:
        if "<!" in text:
            raise ValueError("a declaration may define entities, which may be huge")
        root = ET.fromstring(text.strip())  # noqa: S314  # without a declaration it is harmless
        return "".join(_verb(child) for child in root) if root.tag == "Response" else _verb(root)
    except (ET.ParseError, ValueError, LookupError, RecursionError):
        return f"no TwiML: {' '.join(text.split())[:60]!r}"


def _verb(element: ET.Element) -> str:
    secret = element.tag == "Parameter"
    attributes = "".join(
        f' {name}="{"…" if secret and name == "value" else _plain(value)}"'
        for name, value in sorted(element.attrib.items())
    )
    inside = _plain((element.text or "").strip()) + "".join(map(_verb, element))
    if not inside:
        return f"<{element.tag}{attributes}/>"
    return f"<{element.tag}{attributes}>{inside}</{element.tag}>"


def _plain(text: str) -> str:
    if re.match(r"(https?|wss?)://", text):
        try:
            parts = urlsplit(text)
        except ValueError:
            return "…"
        asked = sorted(pair.partition("=")[0] for pair in parts.query.split("&") if pair)
        return f"…{parts.path}" + (f"?{'&'.join(asked)}" if asked else "")
    return "+…" if _NUMBER.match(text) else " ".join(text.split())


# --------------------------------------------------------------------------- streams


def streams(where: str, was: Stream, now: Stream, tolerance: Tolerance) -> Iterator[Difference]:
    """The differences between two streams, but for their ends."""
    if tolerance.signals:
        yield from _signals(where, was, now)
    before, after = (spoken(each.said, each.opened) for each in (was, now))
    compare = _timed if tolerance.timed else _untimed
    for at, name, *told in compare(before, after, tolerance):
        yield Difference(was.opened + at, f"{where}, {name}", *told)


def _signals(where: str, was: Stream, now: Stream) -> Iterator[Difference]:
    before, after = was.signals, now.signals
    if [kind for _, kind in before] == [kind for _, kind in after]:
        return
    for n, (one, other) in enumerate(zip_longest(before, after), 1):
        kinds = [_NOTHING if each is None else f"a {each[1]}" for each in (one, other)]
        if kinds[0] != kinds[1]:
            at = one[0] if one else was.opened + (other[0] - now.opened if other else 0.0)
            yield Difference(at, f"{where}, mark or clear {n}", *kinds)
            return  # the rest is only shifted by this one


_Found = tuple[float, str, str, str]


def _timed(was: list[Segment], now: list[Segment], tolerance: Tolerance) -> Iterator[_Found]:
    for n, (before, after) in enumerate(zip_longest(was, now), 1):
        either = before or after
        assert either is not None
        if before is None or after is None or not _alike(before, after, tolerance):
            told = [_NOTHING if each is None else _segment(each) for each in (before, after)]
            yield either.start, f"sound {n}", told[0], told[1]


def _alike(was: Segment, now: Segment, tolerance: Tolerance) -> bool:
    return (
        abs(was.start - now.start) <= tolerance.seconds
        and abs(was.seconds - now.seconds) <= tolerance.seconds
        and abs(was.level - now.level) <= tolerance.level
    )


def _segment(segment: Segment) -> str:
    return f"{segment.seconds:.2f} s at {segment.start:.2f} s, {round(segment.level)} dB"


def _untimed(was: list[Segment], now: list[Segment], tolerance: Tolerance) -> Iterator[_Found]:
    before, after = (sum(each.seconds for each in segments) for segments in (was, now))
    loud = [_level(segments) for segments in (was, now)]
    longest = max(tolerance.seconds, PART * before)
    louder = before and after and abs(loud[0] - loud[1]) > tolerance.level
    if abs(before - after) > longest or louder:
        told = [
            f"{seconds:.2f} s, {round(level)} dB" if seconds else _NOTHING
            for seconds, level in zip((before, after), loud, strict=True)
        ]
        yield was[0].start if was else 0.0, "all sound", told[0], told[1]


def _level(segments: list[Segment]) -> float:
    seconds = sum(each.seconds for each in segments)
    power = sum(each.seconds * 10 ** (each.level / 10) for each in segments)
    return 10 * math.log10(power / seconds) if seconds else -math.inf


def _taken_over(stream: Stream, others: Sequence[Stream]) -> bool:
    """Whether a later stream had superseded this one when it ended. Such an end is not compared:
    how soon our side drops the older stream depends on whether both came to one gateway, and the
    call may end before that."""
    end = math.inf if stream.closed is None else stream.closed
    return any(stream.opened < other.opened < end for other in others)


def _end(where: str, was: Stream, now: Stream, tolerance: Tolerance) -> Iterator[Difference]:
    if was.closed is None:
        return  # the cassette does not have the end
    told: list[Any] = []
    for each in (was, now):
        lasted = (each.closed if each.closed is not None else each.opened) - each.opened
        who = "the agent" if each.reason == "close" else "nobody"
        told.append(("the carrier" if each.stopped else who, lasted))
    late = tolerance.timed and abs(told[0][1] - told[1][1]) > tolerance.seconds
    if told[0][0] != told[1][0] or late:
        shown = [f"{who} ended it after {lasted:.2f} s" for who, lasted in told]
        yield Difference(was.closed, f"{where}, end", *shown)
