"""A cassette in memory: its webhooks, REST requests and streams, each with its answers.

A replay makes a second one of what happens now, so that the two can be compared.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from trunkline.bus.cassettes import VERSION
from trunkline.bus.errors import InvalidRequestError

#: Most bytes of a line. A message of a stream is shorter.
_LONGEST: Final = 1024 * 1024
_GZIP: Final = b"\x1f\x8b"

Form = dict[str, Any]
Message = dict[str, Any]
Time = Annotated[float, Meta(ge=-1e6, le=1e6)]


class _Header(msgspec.Struct):
    trunkline_cassette: int
    call: str
    sound: bool = True


class Row(msgspec.Struct, rename={"direction": "dir"}):
    """One row of the file. Fields that rows of its ``kind`` do not have are empty."""

    at: Time
    kind: str
    direction: Literal["in", "out", ""] = ""
    id: str = ""
    method: str = "POST"
    path: str = ""
    query: str = ""
    form: Form = {}
    status: int = 0
    body: str = ""
    stream: str = ""
    message: Message = {}
    reason: str = ""
    text: str = ""


@dataclass
class Exchange:
    """A webhook with our answer, or a REST request of ours with Twilio's answer."""

    at: float
    path: str
    form: Form
    query: str = ""
    method: str = "POST"
    #: 0: there was no answer
    status: int = 0
    body: str = ""
    answer: Form = field(default_factory=dict)


@dataclass
class Stream:
    """One Media Stream: what the carrier sent (``heard``), and what it was sent (``said``). Times
    are seconds since the call's beginning."""

    sid: str
    opened: float
    heard: list[tuple[float, Message]] = field(default_factory=list)
    said: list[tuple[float, Message]] = field(default_factory=list)
    #: None: the cassette does not have its end
    closed: float | None = None
    reason: str = ""

    @property
    def signals(self) -> list[tuple[float, str]]:
        """The marks and clears that were sent to the carrier, each with its time."""
        found = [(at, str(message.get("event"))) for at, message in self.said]
        return [(at, event) for at, event in found if event in ("mark", "clear")]

    @property
    def stopped(self) -> bool:
        """Whether the carrier ended the stream."""
        return any(message.get("event") == "stop" for _, message in self.heard)


@dataclass
class Cassette:
    """A call's traffic, in order of time."""

    call: str
    #: False: the sound was left out, and the cassette has its levels instead
    sound: bool = True
    hooks: list[Exchange] = field(default_factory=list)
    rest: list[Exchange] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    #: what is missing in the file
    notes: list[str] = field(default_factory=list)

    @property
    def direction(self) -> str:
        """``inbound``, or ``outbound-api`` for a call that our side placed."""
        forms = [each.form for each in (*self.hooks, *self.rest)]
        told = next((str(form["Direction"]) for form in forms if form.get("Direction")), "")
        return told or ("outbound-api" if self.rest else "inbound")

    @property
    def by_rest(self) -> list[str]:
        """SIDs of the streams that our side started by REST. These only listen: nothing is sent
        into them."""
        asked = [each for each in self.rest if each.path.endswith("/Streams.json")]
        return [str(each.answer.get("sid")) for each in asked]

    @property
    def voice(self) -> list[Exchange]:
        """The webhooks that ask for TwiML."""
        return [hook for hook in self.hooks if not is_callback(hook)]


def is_callback(hook: Exchange) -> bool:
    """Whether a webhook is a status callback, which asks for no TwiML."""
    return hook.path.endswith("/status")


def read(path: Path) -> Cassette:
    """Read a cassette, which may be gzipped. InvalidRequestError, in one line, for anything else.

    A last line without an end is left out, because the process that wrote it died, and is noted.
    """
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequestError(f"{path} cannot be read: {reason}") from error
    return parse(data, str(path))


_read_header: Final = msgspec.json.Decoder(_Header).decode
_read_row: Final = msgspec.json.Decoder(Row).decode


def parse(data: bytes, name: str = "the file") -> Cassette:
    """The cassette in ``data``. Raises what :func:`read` raises; ``name`` is the file's in it."""
    lines = data.split(b"\n")
    cut = lines.pop() if lines else b""
    try:
        header = _read_header(lines[0] if lines else b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidRequestError(
            f"{name} is no cassette: `trunkline record` and TRUNKLINE_CASSETTES_DIR make them"
        ) from None
    if header.trunkline_cassette > VERSION:
        raise InvalidRequestError(
            f"{name} is a cassette of version {header.trunkline_cassette}, and this trunkline "
            f"reads versions up to {VERSION}: use a newer trunkline"
        )
    cassette = Cassette(header.call, header.sound)
    rows = list(_rows(lines[1:], name))
    rows.sort(key=lambda row: row.at)
    _arrange(cassette, rows)
    if cut:
        cassette.notes.append("the last row was cut off")
    return cassette


def _rows(lines: list[bytes], name: str) -> Iterator[Row]:
    for number, line in enumerate(lines, 2):
        try:
            if len(line) > _LONGEST:
                raise msgspec.ValidationError("it is too long")
            yield _read_row(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            said = " ".join(str(error).split())[:200]
            raise InvalidRequestError(f"{name}, line {number}: no row: {said}") from None


def _arrange(cassette: Cassette, rows: list[Row]) -> None:
    asked: dict[str, Exchange] = {}
    streams: dict[str, Stream] = {}
    for row in rows:
        if row.kind in ("webhook.request", "rest.request"):
            made = Exchange(row.at, row.path, row.form, row.query, row.method)
            asked[row.id] = made
            (cassette.hooks if row.kind == "webhook.request" else cassette.rest).append(made)
        elif row.kind in ("webhook.response", "rest.response") and row.id in asked:
            answered = asked[row.id]
            answered.status, answered.body, answered.answer = row.status, row.body, row.form
        elif row.kind.startswith("stream."):
            if row.stream not in streams:
                streams[row.stream] = Stream(row.stream, row.at)
                cassette.streams.append(streams[row.stream])
            _stream_row(streams[row.stream], row)
        elif row.kind == "note":
            cassette.notes.append(row.text)


def _stream_row(stream: Stream, row: Row) -> None:
    if row.kind == "stream.message":
        side = stream.heard if row.direction == "in" else stream.said
        side.append((row.at, row.message))
    elif row.kind == "stream.close":
        stream.closed, stream.reason = row.at, row.reason
