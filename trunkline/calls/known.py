"""Calls by their CallSid, from sources that each know a part of them.

- A running stack knows the state of its live calls, and what each has lost. It also remembers the
  last calls that ended, and the events of each (told.py).
- The journals know the calls that were dialled, also by stacks that are gone: the callee, the time
  and the duration. They are in the user's state directory, or for the account in PostgreSQL.
- A recording says itself whose call it has.

Where several sources know a call, the stack's answer counts first, then the recording's, then the
journal's.
"""

from __future__ import annotations

import asyncio
import contextlib
import wave
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from trunkline.bus.errors import InvalidRequestError, SettingsError, StackUnavailableError
from trunkline.bus.retention import NAME
from trunkline.bus.settings import Settings
from trunkline.controller.journal.database import JournalError
from trunkline.controller.journal.places import dialled
from trunkline.controller.journal.rows import DialRow
from trunkline.gateway.recording_file import read_whose

from ..stack.controller_client import controller_client, get_status
from . import told as told_by
from .told import Event, Told

#: Seconds to wait for the controller. After that no stack counts as running.
ANSWER_WITHIN: Final = 3.0


class KnownCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call. A field is None where no source knows it.

    ``state`` of a live call is that of ``trunkline status``. Otherwise it is "ended", or "unknown"
    where a stack has ended without noting the call's end.
    """

    sid: str
    state: str = "ended"
    direction: str | None = None
    caller: str | None = None
    callee: str | None = None
    #: ISO 8601, UTC
    began: str | None = None
    seconds: float | None = None
    frames_lost: int | None = None
    underruns: int | None = None
    #: the test that made or answered it
    test: str | None = None
    #: why it ended
    reason: str | None = None
    recording: str | None = None
    #: its further recordings, such as those of who listened to it
    also_recorded: list[str] = []
    #: the events that the stack remembers
    events: list[Event] | None = None

    @property
    def live(self) -> bool:
        return self.state not in ("ended", "unknown")


class Found(msgspec.Struct, frozen=True):
    """The calls: live ones first, then the newest first. ``stack``: whether a stack answers.
    ``notes``: which sources could not be read, and why."""

    stack: bool
    bus: str
    recordings_dir: str | None
    calls: list[KnownCall]
    notes: list[str] = []


async def find(settings: Settings) -> Found:
    """All calls that any source knows."""
    notes = []
    status = await _status(settings)
    told = await _told(settings, status)
    dials: list[DialRow] = []
    for read in dialled(settings):
        try:
            dials += await asyncio.to_thread(read)
        except (JournalError, SettingsError) as error:
            notes.append(str(error))
    directory = _recordings_dir(settings, status)
    recorded = [] if directory is None else of_recordings(directory)
    now = datetime.now(UTC)
    live = [] if status is None else of_status(status["calls"], now)
    over = [] if told is None else of_told(told)
    sources = (live, over, recorded, of_dials(dials))
    shown = None if directory is None else str(directory)
    calls = joined(*sources)
    if told is not None:
        calls = [replace(call, events=told.events.get(call.sid)) for call in calls]
    return Found(status is not None, settings.bus, shown, calls, notes)


def of_sid(found: Found, sid: str) -> KnownCall:
    """The call whose CallSid is ``sid``, or else the only one that begins with it.
    InvalidRequestError where there is none, or more than one."""
    if not sid:
        raise InvalidRequestError("name a call by its CallSid: `trunkline calls` lists them")
    fitting = [call for call in found.calls if call.sid.startswith(sid)]
    exact = [call for call in fitting if call.sid == sid]
    if len(exact or fitting) == 1:
        return (exact or fitting)[0]
    if fitting:
        raise InvalidRequestError(f"{len(fitting)} calls begin with {sid}: name one in full")
    recorded = "recorded" if found.recordings_dir else "recorded (TRUNKLINE_RECORDINGS_DIR is off)"
    raise InvalidRequestError(
        f"no call {sid} is live, {recorded} or in the journal: `trunkline calls` lists those that "
        "are"
    )


async def recordings_dir(settings: Settings) -> Path | None:
    """Where recordings are: TRUNKLINE_RECORDINGS_DIR, or else where the stack that runs here makes
    them. None where neither says so."""
    return _recordings_dir(settings, await _status(settings) if _asks(settings) else None)


def _recordings_dir(settings: Settings, status: dict[str, Any] | None) -> Path | None:
    if status is None or not _asks(settings):
        return settings.recordings_dir
    told = status["controller"].get("recordings_dir")
    return None if told is None else Path(told)


def _asks(settings: Settings) -> bool:
    """Whether the stack's directory of recordings counts: the user has named none, and the
    directory of a stack on another machine is not one of ours."""
    return settings.recordings_dir is None and settings.address.directory is not None


async def _status(settings: Settings) -> dict[str, Any] | None:
    """The stack's status; None where no stack answers."""
    directory = settings.address.directory
    if directory is not None and not (directory / "control").exists():
        return None
    with contextlib.suppress(StackUnavailableError):
        async with controller_client(settings, timeout=ANSWER_WITHIN) as client:
            return await get_status(client)
    return None


async def _told(settings: Settings, status: dict[str, Any] | None) -> Told | None:
    """What the stack remembers. None where it runs on another machine, because its console can only
    be asked there."""
    if status is None or settings.address.directory is None:
        return None
    console = status["controller"].get("console")
    return None if console is None else await asyncio.to_thread(told_by.ask, console)


# --------------------------------------------------------------------------- the sources


def of_told(found: Told) -> list[KnownCall]:
    """Calls of the running stack that have ended."""
    return [
        replace(
            call,
            state="ended",
            reason=row.get("reason"),
            began=_at(row.get("began_at")) or call.began,
        )
        for row in found.over
        for call in of_status([row], datetime.fromtimestamp(row["over_at"], UTC))
    ]


def of_status(rows: list[dict[str, Any]], now: datetime) -> list[KnownCall]:
    """The calls in the rows of a stack's status, whose ``seconds`` count up to ``now``."""
    return [
        KnownCall(
            sid=row["sid"],
            state=row["state"],
            direction=row["direction"],
            caller=row["caller"],
            callee=row["callee"],
            began=_iso(now - timedelta(seconds=row["seconds"])) if row["seconds"] else None,
            seconds=row["seconds"],
            frames_lost=row["frames_lost"],
            underruns=row["underruns"],
            test=row.get("test"),
        )
        for row in rows
        if row["sid"]
    ]


def of_dials(rows: Iterable[DialRow]) -> list[KnownCall]:
    """Calls that were dialled, from rows of a journal."""
    return [
        KnownCall(
            sid=row.sid,
            state="ended" if row.state == "closed" else "unknown",
            direction="outbound",
            caller=row.caller,
            callee=row.callee,
            began=_at(row.asked),
            seconds=row.seconds,
        )
        for row in rows
        if row.sid
    ]


def of_recordings(directory: Path) -> list[KnownCall]:
    """The calls whose recordings are in a directory, which may be missing. Of one call, those that
    its own streams have made come before those of who listened to it, and then the older ones."""
    if not directory.is_dir():
        return []
    paths = [path for path in directory.iterdir() if NAME.match(path.name)]
    paths.sort(key=lambda path: ("_" in path.name, path.name))
    return [call for call in map(of_recording, paths) if call is not None]


def of_recording(path: Path) -> KnownCall | None:
    """The call of a recording, by the file's name and by what the file says itself. None where it
    has just been deleted, or is not a WAV file."""
    try:
        whose = read_whose(path)
        with wave.open(str(path)) as file:
            seconds = file.getnframes() / file.getframerate()
    except (OSError, wave.Error, EOFError, ZeroDivisionError):
        return None  # a command that is given this very file says what is wrong with it
    began, sid = None, path.stem
    if NAME.match(path.name):
        named, _, sid = path.stem.partition("-")
        with contextlib.suppress(ValueError):  # digits, but not those of a date
            began = _iso(datetime.strptime(named + "Z", "%Y%m%dT%H%M%S%z"))
    return KnownCall(
        sid=whose.sid or sid,
        direction=whose.direction or None,
        caller=whose.caller or None,
        callee=whose.callee or None,
        began=whose.began or began,
        seconds=round(seconds, 3),
        test=whose.test or None,
        recording=str(path),
    )


def joined(*sources: list[KnownCall]) -> list[KnownCall]:
    """One call for each CallSid, in the order of :class:`Found`. A field that one source does not
    know is taken from the next source. Its recordings after the first are all listed."""
    found: dict[str, KnownCall] = {}
    for call in (call for source in sources for call in source):
        known = found.get(call.sid)
        if known is None:
            found[call.sid] = call
            continue
        missing = {
            name: value
            for name in call.__struct_fields__
            if getattr(known, name) is None and (value := getattr(call, name)) is not None
        }
        if call.recording is not None and "recording" not in missing:
            missing["also_recorded"] = [*known.also_recorded, call.recording]
        found[call.sid] = replace(known, **missing)
    return sorted(found.values(), key=lambda call: (call.live, call.began or ""), reverse=True)


def _at(seconds: float | None) -> str | None:
    """Unix time as ISO 8601; None where it is not known, as an older controller does not say it."""
    return _iso(datetime.fromtimestamp(seconds, UTC)) if seconds else None


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
