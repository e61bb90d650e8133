"""Reading the journal's rows. If one cannot be read it is named, and all others are read."""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

import msgspec

from trunkline.bus.redact import redact_number

from .database import Connection, Dialect
from .rows import DialRow, ListeningRow, OverrideRow

_OVERRIDE: Final = "id, number, number_sid, session, state, prior, written, uncertain_until, since"
#: Seconds, in the year 5138.
_NO_TIME: Final = 1e11
OVERRIDES_OPEN: Final = "state NOT IN ('restored', 'left_alone')"
DIALS_OPEN: Final = "state != 'closed'"


class Unreadable(NamedTuple):
    """A row that cannot be read, by its id; ``why`` names what is wrong with it."""

    table: Literal["override", "dial", "listening"]
    id: str
    number: str
    why: str

    def text(self, journal: object) -> str:
        """The line for the log, with advice. ``journal``: its name."""
        if self.table == "listening":
            return (
                f"{journal}: the row of {self.number}, which was listened to, cannot be read "
                f"({self.why}). It was left as it is: a stream of that call ends with the call"
            )
        which = f"{journal}: {self.table} {self.id} ({redact_number(self.number)})"
        if self.table == "dial":
            return (
                f"{which} cannot be read ({self.why}). It was left as it is: if a call of it is "
                "still on, its time limit ends it, or Twilio's console"
            )
        return (
            f"{which} cannot be read ({self.why}). It was left as it is: `trunkline restore "
            "--account` puts the number back by what it says itself"
        )


class OpenRows(NamedTuple):
    """The open rows of a journal."""

    overrides: list[OverrideRow]
    dials: list[DialRow]
    unreadable: list[Unreadable]
    listening: list[ListeningRow]


def open_rows(db: Connection, dialect: Dialect, has_listening: bool = True) -> OpenRows:
    """Overrides that may stand on a number, dials that may still lead to a call, and calls that may
    still be listened to. ``has_listening``: the journal is no earlier version's, which has none."""
    overrides, unreadable = read_overrides(db, dialect, OVERRIDES_OPEN)
    dials, more = read_dials(db, dialect, DIALS_OPEN)
    listening, most = read_listening(db, dialect) if has_listening else ([], [])
    return OpenRows(overrides, dials, unreadable + more + most, listening)


def read_listening(db: Connection, dialect: Dialect) -> tuple[list[ListeningRow], list[Unreadable]]:
    """All rows, the oldest first: one that is over is removed."""
    names = ListeningRow.__struct_fields__
    where, values = dialect.where("TRUE")
    select = f"SELECT {', '.join(names)} FROM listening WHERE {where} ORDER BY since, call"
    rows, unreadable = [], []
    for row in db.execute(select, values).fetchall():
        known = dict(zip(names, row, strict=True))
        try:
            listening = msgspec.convert(known, ListeningRow)
            _check_times(since=listening.since)
        except (msgspec.MsgspecError, ValueError) as error:
            why = Unreadable("listening", str(known["call"]), str(known["sid"]), str(error))
            unreadable.append(why)
        else:
            rows.append(listening)
    return rows, unreadable


def read_dials(
    db: Connection, dialect: Dialect, condition: str, *values: Any
) -> tuple[list[DialRow], list[Unreadable]]:
    """Rows whose columns carry the names of the fields. A journal that is only looked at may be an
    earlier version's, and have fewer of them."""
    where, values = dialect.where(condition, *values)
    found = db.execute(f"SELECT * FROM dials WHERE {where}", values)
    names = [column[0] for column in found.description]
    rows, unreadable = [], []
    for row in found:
        known = dict(zip(names, row, strict=True))
        try:
            rows.append(_dial(known))
        except (msgspec.MsgspecError, ValueError) as error:
            why = Unreadable("dial", str(known["request"]), str(known["callee"]), str(error))
            unreadable.append(why)
    return rows, unreadable


def read_overrides(
    db: Connection, dialect: Dialect, condition: str, *values: Any
) -> tuple[list[OverrideRow], list[Unreadable]]:
    """The oldest first. Holders stand in a table of their own, because they come one by one."""
    where, values = dialect.where(condition, *values)
    select = f"SELECT {_OVERRIDE} FROM overrides WHERE {where} ORDER BY since, id"
    rows, unreadable = [], []
    for row in db.execute(select, values).fetchall():
        known = dict(zip(_OVERRIDE.split(", "), row, strict=True))
        where, of_it = dialect.where("override = ?", known["id"])
        holders = f"SELECT session, secret_hash FROM holders WHERE {where}"
        known["holders"] = dict(db.execute(holders, of_it).fetchall())
        try:
            rows.append(_override(known))
        except (msgspec.MsgspecError, ValueError) as error:
            why = Unreadable("override", str(known["id"]), str(known["number"]), str(error))
            unreadable.append(why)
    return rows, unreadable


def _dial(known: dict[str, Any]) -> DialRow:
    """A row of its columns. ValueError, or msgspec's error, says what is wrong with them."""
    row = msgspec.convert(known, DialRow)
    _check_times(asked=row.asked, timeout=row.timeout, max_duration=row.max_duration)
    _check_times(seconds=row.seconds or 0.0)
    return row


def _check_times(**times: float) -> None:
    """ValueError if one of these is no time: it would overflow where it is shown."""
    for name, seconds in times.items():
        if not 0.0 <= seconds < _NO_TIME:
            raise ValueError(f"{name}: {seconds:g} is no time")


def _override(known: dict[str, Any]) -> OverrideRow:
    """A row of its columns. ValueError, or msgspec's error, says what is wrong with them."""
    for name in ("prior", "written"):
        try:
            known[name] = _fields(known[name])
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError) as error:
            raise ValueError(f"{name}: {error}") from error
    row = msgspec.convert(known, OverrideRow)
    _check_times(since=row.since, uncertain_until=row.uncertain_until)
    if (row.prior is None) != (row.written is None):
        missing = "prior" if row.prior is None else "written"
        raise ValueError(f"{missing} is not there, and the other one of prior and written is")
    if row.prior is not None and row.written is not None:
        unknown = {"voice_url", *row.written} - row.prior.keys()
        if unknown or "voice_url" not in row.written:
            raise ValueError(f"prior or written lacks {', '.join(sorted(unknown)) or 'voice_url'}")
    return row


def _fields(text: str | None) -> dict[str, str] | None:
    return None if text is None else msgspec.json.decode(text, type=dict[str, str])
