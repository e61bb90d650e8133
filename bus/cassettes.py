"""Cassettes: one file for each call, with its wire traffic, written by all processes that see it.

A cassette is lines of JSON, in a file named by its CallSid. The first line is the header; every
other line is a row. :data:`VERSION` counts what a reader of older files would misread::

    {"trunkline_cassette":1,"call":"CA…","began":"2026-11-27T09:30:00.125+00:00",
     "monotonic":8123.51,"sound":true}
    {"at":0.0,"dir":"in","kind":"webhook.request","id":"5e0f…","path":"/twilio/voice","query":"",
     "form":{…}}
    {"at":0.01,"dir":"out","kind":"webhook.response","id":"5e0f…","status":200,"body":"<?xml …"}
    {"at":0.3,"dir":"in","kind":"stream.open","stream":"MZ…"}
    {"at":0.3,"dir":"in","kind":"stream.message","stream":"MZ…","message":{"event":"media",…}}
    {"at":9.9,"dir":"in","kind":"stream.close","stream":"MZ…","reason":"stop"}

``at`` is in seconds since ``began``, where the monotonic clock of the machine stood at
``monotonic``. It is below zero where another process had begun the file before an earlier row came.
``dir`` is ``in`` for what the carrier said, ``out`` for what we said. ``rest.request`` and
``rest.response`` are as the webhooks' rows, with their directions swapped. A ``note`` says what the
file lacks. :mod:`.cassette_masks` says what is left out of it.

Rows wait in memory, and a thread writes them twice a second, so a slow disk delays no call. A file
is locked while it is written to, and is whole after each write. Whoever finds a line without an
end takes it away, because its writer has died. Rows that the disk refuses are lost, and noted.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from . import cassette_masks
from .cassette_masks import Masks
from .clock import Clock, monotonic
from .errors import SettingsError
from .retention import Retention
from .settings import Settings

log = logging.getLogger("trunkline.bus")

VERSION: Final = 1
SUFFIX: Final = ".cassette"
#: How cassettes are named: the CallSid, and something more where a SID has come again.
NAME: Final = re.compile(r"CA[0-9A-Za-z]+(-[0-9a-f]{8})?\.cassette\Z", re.ASCII)
#: Seconds between two writes.
WRITE_EVERY: Final = 0.5
#: Rows that may wait for the disk: some 50 MB, or 100 calls for 10 s.
MOST_WAITING: Final = 100_000
#: At most this many messages of a socket are kept until it is let in. The oldest go first.
MOST_EARLY: Final = 2_000
#: After a death the last whole line is looked for in so many bytes at the end of the file.
_BLOCK: Final = 1024 * 1024

Direction = Literal["in", "out"]


class _Row(msgspec.Struct, frozen=True, gc=False):
    """``at``: the time by the monotonic clock. ``text``: a stream's message as it was on the wire,
    which is decoded when the row is written. ``begins``: no row of its call comes before it."""

    call: str
    at: float
    fields: dict[str, Any]
    text: bytes | None = None
    begins: bool = False


class Cassettes:
    """Writes the cassettes of this process's calls into a directory, from a thread of its own;
    ``close()`` ends it. ``key``: the auth token, for masks. Raises SettingsError where the
    directory cannot be made.
    """

    def __init__(
        self,
        directory: Path,
        key: str,
        *,
        sound: bool = True,
        retention: Retention | None = None,
        clock: Clock = monotonic,
    ) -> None:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"TRUNKLINE_CASSETTES_DIR={directory}: it cannot be made: {error.strerror}"
            ) from error
        self._directory = directory
        self._masks = Masks(key)
        self._sound = sound
        self._retention = retention or Retention()
        self.clock = clock
        #: rows that were lost, by call, and are not noted in its file yet
        self._lost: Counter[str] = Counter()
        #: errors (errno) that the log has been told of
        self._told: set[int | None] = set()
        self._waiting: deque[_Row] = deque()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cassettes", daemon=True)
        self._thread.start()

    @classmethod
    def of(cls, settings: Settings) -> Cassettes | None:
        """As the settings ask for them; None where they do not."""
        if settings.cassettes_dir is None:
            return None
        key = settings.require("auth_token")
        days, megabytes = settings.cassettes_keep_days, settings.cassettes_max_mb
        retention = Retention(days, megabytes, "cassettes", NAME)
        sound = settings.cassettes_sound
        return cls(settings.cassettes_dir, key, sound=sound, retention=retention)

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._ending.set()
        self._thread.join()

    # ------------------------------------------------------------------ rows

    def webhook(
        self,
        path: str,
        query: str,
        form: Mapping[str, str],
        *,
        asked: float,
        status: int,
        body: str,
        begins: bool,
    ) -> None:
        """A webhook that came at ``asked``, and has just been answered. ``begins``: no webhook of
        its call comes before it."""
        call, exchange = form.get("CallSid", ""), secrets.token_hex(4)
        request: dict[str, Any] = {"dir": "in", "kind": "webhook.request", "id": exchange}
        request |= {"path": path, "query": query, "form": dict(form)}
        self._put(_Row(call, asked, request, begins=begins))
        response = {"dir": "out", "kind": "webhook.response", "id": exchange, "status": status}
        self._put(_Row(call, self.clock(), response | {"body": body}))

    def rest(
        self,
        method: str,
        path: str,
        form: Mapping[str, Any],
        *,
        asked: float,
        status: int,
        answer: str,
    ) -> None:
        """A REST request, and its answer. It is left out if it neither names nor makes a call."""
        try:
            found = msgspec.json.decode(answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            found = None
        body = found if isinstance(found, dict) else {}
        begins = method == "POST" and path.endswith("/Calls.json")
        named = re.search(r"/Calls/(CA[0-9a-f]{32})", path)
        call = str(body.get("sid", "")) if begins else named[1] if named else ""
        if not re.fullmatch(r"CA[0-9a-f]{32}", call):
            return
        exchange = secrets.token_hex(4)
        request = {"dir": "out", "kind": "rest.request", "id": exchange, "method": method}
        self._put(_Row(call, asked, request | {"path": path, "form": dict(form)}, begins=begins))
        response = {"dir": "in", "kind": "rest.response", "id": exchange, "status": status}
        self._put(_Row(call, self.clock(), response | {"form": body}))

    def tape(self) -> Tape:
        """For a socket that has just been opened."""
        return Tape(self._put, self.clock)

    def _put(self, row: _Row) -> None:
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(row)
            return
        if not self._lost:
            log.error("the disk does not keep up: cassettes have holes from now on")
        self._lost[row.call] += 1

    # ------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        while not self._ending.wait(WRITE_EVERY):
            self._write()
        self._write()

    def _write(self) -> None:
        calls: dict[str, list[_Row]] = {}
        for _ in range(len(self._waiting)):
            row = self._waiting.popleft()
            calls.setdefault(row.call, []).append(row)
        for call, rows in calls.items():
            try:
                self._append(call, rows)
                continue
            except OSError as error:
                if error.errno not in self._told:  # a full disk is told once, and not by each call
                    self._told.add(error.errno)
                    log.error("cassettes have holes from now on: %s", error)
            self._lost[call] += len(rows)
        if calls:
            self._retention.apply(self._directory)

    def _append(self, call: str, rows: list[_Row]) -> None:
        path = self._directory / f"{re.sub('[^A-Za-z0-9]', '_', call)}{SUFFIX}"
        first = next((row for row in rows if row.begins), None)
        with _locked(path, None if first is None else first.at) as file:
            head, began = file.header(), min(row.at for row in rows)
            whole = bytearray()
            if head is None:
                whole += _line(self._header(call, began))
            else:
                began = head
            if lost := self._lost[call]:
                text = f"{lost} rows are missing before this one"
                whole += _line(_placed(rows[0].at - began, {"kind": "note", "text": text}))
            for row in rows:
                whole += _line(_placed(row.at - began, self._shown(row)))
            file.append(whole)
        del self._lost[call]

    def _header(self, call: str, began: float) -> dict[str, Any]:
        wall = datetime.fromtimestamp(time.time() - (self.clock() - began), UTC)
        return {
            "trunkline_cassette": VERSION,
            "call": call,
            "began": wall.isoformat(timespec="milliseconds"),
            "monotonic": began,
            "sound": self._sound,
        }

    def _shown(self, row: _Row) -> dict[str, Any]:
        """The row as others may read it."""
        masks, fields = self._masks, row.fields
        if row.text is not None:
            return fields | {"message": masks.message(row.text, sound=self._sound)}
        shown = dict(fields)
        for name, mask in (
            ("form", masks.form),
            ("body", masks.text),
            ("path", masks.text),
            ("query", cassette_masks.query),
        ):
            if name in shown:
                shown[name] = mask(shown[name])
        return shown


class Tape:
    """The messages of one Media Streams socket, as they come and go. They are kept back until the
    stream is let in: what a stranger says belongs to no call."""

    def __init__(self, put: Callable[[_Row], None], clock: Clock) -> None:
        self._put = put
        self._clock = clock
        self._opened = clock()
        self._early: deque[tuple[float, Direction, bytes]] = deque(maxlen=MOST_EARLY)
        self._call: str | None = None
        self._fields: dict[Direction, dict[str, Any]] = {}

    def heard(self, text: bytes) -> None:
        """The carrier sent this."""
        self._add(self._clock(), "in", text)

    def said(self, text: bytes) -> None:
        """We sent this."""
        self._add(self._clock(), "out", text)

    def _add(self, at: float, direction: Direction, text: bytes) -> None:
        if self._call is None:
            self._early.append((at, direction, text))
        else:
            self._put(_Row(self._call, at, self._fields[direction], text))

    def let_in(self, call: str, stream: str) -> None:
        """The socket was let in, and brings this stream of this call."""
        self._call = call
        message = {"kind": "stream.message", "stream": stream}
        self._fields = {"in": {"dir": "in", **message}, "out": {"dir": "out", **message}}
        opened = {"dir": "in", "kind": "stream.open", "stream": stream}
        self._put(_Row(call, self._opened, opened))
        for at, direction, text in self._early:
            self._add(at, direction, text)
        self._early.clear()

    def over(self, reason: str) -> None:
        """The stream is over, for this reason. What comes later is not kept."""
        if self._call is not None:
            closed = {"dir": "in", "kind": "stream.close", "stream": self._fields["in"]["stream"]}
            self._put(_Row(self._call, self._clock(), closed | {"reason": reason}))
            self._call = None
            self._early = deque(maxlen=0)


# --------------------------------------------------------------------------- files


def _placed(at: float, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"at": round(at, 4), **fields}


def _line(row: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(row) + b"\n"


class _File:
    """A cassette that this process has locked."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            begin = max(0, size - _BLOCK)
            whole = os.pread(descriptor, size - begin, begin).rfind(b"\n") + 1
            size = begin + whole
            os.ftruncate(descriptor, size)
        self._size = size

    def header(self) -> float | None:
        """Where the machine's clock stood when the call began; None: the file is empty."""
        if not self._size:
            return None
        line = os.pread(self._descriptor, 4096, 0).partition(b"\n")[0]
        try:
            return float(msgspec.json.decode(line)["monotonic"])
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, ValueError):
            raise OSError("a cassette has a header that cannot be read") from None

    def has_stream(self) -> bool:
        """The call has got further than its first webhooks."""
        return b'"kind":"stream.' in os.pread(self._descriptor, self._size, 0)

    def append(self, data: bytes | bytearray) -> None:
        """All of it, or nothing (OSError)."""
        try:
            written = os.pwrite(self._descriptor, data, self._size)
            if written < len(data):
                written += os.pwrite(self._descriptor, data[written:], self._size + written)
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise


@contextlib.contextmanager
def _locked(path: Path, begins: float | None) -> Iterator[_File]:
    """The call's file, locked. ``begins``: when a call of this SID began. Where there is an earlier
    one of the same SID (a stand-in carrier's SIDs may repeat), its file gets another name."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is_at(path, descriptor):  # renamed while we waited for the lock
                continue
            file = _File(descriptor)
            began = file.header()
            if began is not None and begins is not None and began < begins and file.has_stream():
                path.rename(path.with_name(f"{path.stem}-{secrets.token_hex(4)}{SUFFIX}"))
                continue
            yield file
            return
        finally:
            os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False
