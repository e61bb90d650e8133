"""Reading the journal's rows. If one cannot be read it is named, and all others are read.

A row comes from a disk, and from whatever release of ours wrote it, so it is input. It may be cut,
edited by hand, or of a kind that SQLite took and we cannot use: "yesterday" as a time, bytes that
are no UTF-8, settings that are no JSON. One such row must not keep a start from putting back the
other numbers, so nothing here raises for it.

The store reads its own journal by this, a start those of others (:func:`.store.peek`), and
``trunkline restore`` both, in SQLite and in PostgreSQL.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final, Literal, NamedTuple

import msgspec

from trunkline.bus.redact import redact_number

from .database import Connection, Dialect
from .rows import DialRow, ListeningRow, OverrideRow

_OVERRIDE: Final = "id, number, number_sid, session, state, prior, written, uncertain_until, since"
#: Unix times from here on (the year 5138) are no times. Python's datetime ends with the year 9999:
#: a later one could not be shown.
_NO_TIME: Final = 1e11
#: Rows with something still to do. The condition names the closed states, and not the open ones. So
#: a row whose state is spoilt counts as open, and is named, instead of being forgotten.
OVERRIDES_OPEN: Final = "state NOT IN ('restored', 'left_alone')"
DIALS_OPEN: Final = "state != 'closed'"


class Unreadable(NamedTuple):
    """A row that cannot be read. ``number``: the number of an override, the callee of a dial, or
    the CallSid of a call that is listened to. ``why`` names what is wrong, for example "since:
    1e+300 is no time"."""

    table: Literal["override", "dial", "listening"]
    id: str
    number: str
    why: str

    def text(self, journal: object) -> str:
        """The line for the log, with advice. ``journal``: the journal's name, or its path. The
        advice differs: a number answers nobody until it is put back, while a call and a stream end
        by themselves."""
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
    """The open rows of a journal: all that the next start has to put back, hang up or stop."""

    overrides: list[OverrideRow]
    dials: list[DialRow]
    unreadable: list[Unreadable]
    listening: list[ListeningRow]


def open_rows(db: Connection, dialect: Dialect, has_listening: bool = True) -> OpenRows:
    """Overrides that may stand on a number, dials that may still lead to a call, and calls that may
    still be listened to. ``has_listening``: the journal is no earlier version's, which has none. Of
    a journal that is only looked at nothing is migrated, so its tables may be older than we are."""
    overrides, unreadable = read_overrides(db, dialect, OVERRIDES_OPEN)
    dials, more = read_dials(db, dialect, DIALS_OPEN)
    listening, most = read_listening(db, dialect) if has_listening else ([], [])
    return OpenRows(overrides, dials, unreadable + more + most, listening)


def read_listening(db: Connection, dialect: Dialect) -> tuple[list[ListeningRow], list[Unreadable]]:
    """All rows, the oldest first. There are no closed ones, because nobody asks about a listening
    that is over: its row is removed."""
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
    """The oldest first. Holders stand in a table of their own, because they come one by one: a
    second line on the same number joins an override that is on already."""
    where, values = dialect.where(condition, *values)
    select = f"SELECT {_OVERRIDE} FROM overrides WHERE {where} ORDER BY since, id"
    found = db.execute(select, values).fetchall()
    where, values = dialect.where(f"override IN (SELECT id FROM overrides WHERE {where})", *values)
    select = f"SELECT override, session, secret_hash FROM holders WHERE {where}"
    holders: defaultdict[Any, dict[str, str]] = defaultdict(dict)
    for override, session, secret_hash in db.execute(select, values).fetchall():
        holders[override][session] = secret_hash
    rows, unreadable = [], []
    for row in found:
        known = dict(zip(_OVERRIDE.split(", "), row, strict=True))
        known["holders"] = holders[known["id"]]
        try:
            rows.append(_override(known))
        except (msgspec.MsgspecError, ValueError) as error:
            why = Unreadable("override", str(known["id"]), str(known["number"]), str(error))
            unreadable.append(why)
    return rows, unreadable


def _dial(known: dict[str, Any]) -> DialRow:
    """A row of its columns. ValueError, or msgspec's error, says what is wrong with them. msgspec
    leaves columns out that the row does not have, such as PostgreSQL's ``stack``."""
    row = msgspec.convert(known, DialRow)
    _check_times(asked=row.asked, timeout=row.timeout, max_duration=row.max_duration)
    _check_times(seconds=row.seconds or 0.0)
    return row


def _check_times(**times: float) -> None:
    """ValueError if one of these is no time: it would overflow where it is shown. NaN and infinity
    are none either; no comparison with NaN is true."""
    for name, seconds in times.items():
        if not 0.0 <= seconds < _NO_TIME:
            raise ValueError(f"{name}: {seconds:g} is no time")


def _override(known: dict[str, Any]) -> OverrideRow:
    """A row of its columns. ValueError, or msgspec's error, says what is wrong with them.

    Prior and written have to fit together, because a restore writes each field of ``written`` with
    its value in ``prior``: with one missing it would put back half of the settings. Both are
    missing only while nothing has been written.
    """
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
