"""The account's numbers: looked up, handed out of the pool, leased, and put back.

An override of ours goes on a number when the first session wants it, and is put back when the last
one leaves. These rules only say that this has to be done. ``twilio/override.py`` says how, also
when Twilio's answer never comes. :mod:`.book.lease` says who may share a number.

For example: a session wants to wait for calls on a number that another one is leaving. The lease is
*restoring*, so the request waits. Once Twilio has the number as it was, a new override is planned
for it. It never inherits the old one, because the settings to put back must be read afresh.
"""

from __future__ import annotations

import secrets
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.errors import (
    NumberBusyError,
    NumberNotFoundError,
    TimedOutError,
    TrunklineError,
)
from trunkline.bus.redact import redact_number

from .. import events as ev
from .. import instructions as do
from ..journal.rows import OverrideRow
from . import facts as f
from .book.lease import Lease
from .book.lookups import LOOKUP_KEPT, Seeker
from .book.pool import SETTLES_WITHIN
from .book.session import REST_WITHIN
from .moment import Moment

#: A request that has not got its number by its deadline is refused in these states. In the others
#: an answer of Twilio's is on its way, which grants or refuses it.
_HELD_UP: Final = ("planned", "unclaimed", "restoring")


# --------------------------------------------------------------------------- looking numbers up


def seek(at: Moment, sought: f.Sought) -> None:
    """Find a number's SID, which may be known. Many who ask at once are one request to Twilio."""
    number, seeker, deadline = sought.number, sought.seeker, sought.deadline
    sid = at.book.look_ups.sid(number, at.now)
    if sid is not None:
        at.tell(f.NumberFound(seeker, number, sid))
    elif at.book.look_ups.ask(number, seeker):
        at.do(do.ListNumbers(deadline) if number == m.ANY_NUMBER else do.LookUp(number, deadline))


def found(at: Moment, result: ev.LookedUp) -> None:
    """REST has looked the number up."""
    seekers = at.book.look_ups.take_seekers(result.number)
    if result.sid is not None:
        at.book.look_ups.note([(result.number, result.sid)], at.now)
        for seeker in seekers:
            at.tell(f.NumberFound(seeker, result.number, result.sid))
        return
    missing = NumberNotFoundError(
        "No incoming phone number found on this Twilio account matching "
        f"'{redact_number(result.number)}'. Check that the number is purchased and in E.164 "
        "(`trunkline doctor` lists the account's). A number of somebody else's is called with "
        'attach_stream="a-leg".',
        number=result.number,
    )
    for seeker in seekers:
        at.tell(f.NumberMissing(seeker, missing))


def not_looked_up(at: Moment, result: ev.LookUpFailed) -> None:
    """Twilio did not tell. Nobody waits for a second try: each has a deadline of its own, and may
    ask again."""
    for seeker in at.book.look_ups.take_seekers(result.number):
        at.tell(f.NumberMissing(seeker, result.error))


# --------------------------------------------------------------------------- the pool


def listed(at: Moment, result: ev.NumbersListed) -> None:
    """The account's numbers: those who asked for any of them wait in the pool from now on."""
    at.book.look_ups.note(result.numbers, at.now)
    at.book.pool.listed([number for number, _ in result.numbers], at.now + LOOKUP_KEPT)
    for seeker in at.book.look_ups.take_seekers(m.ANY_NUMBER):
        session = at.book.sessions.get(seeker.session)
        if session is not None and session.state == "opening":
            _queue(at, seeker)


def pool_wanted(at: Moment, wanted: f.PoolWanted) -> None:
    """The account was listed not long ago, so nobody has to ask Twilio."""
    _queue(at, Seeker(wanted.session))


def _queue(at: Moment, seeker: Seeker) -> None:
    """First come, first served; an account without a number serves nobody."""
    if at.book.pool.size:
        at.book.pool.add(seeker.session)
    else:
        missing = NumberNotFoundError("the account has no phone number", number=m.ANY_NUMBER)
        at.tell(f.NumberMissing(seeker, missing))


def serve_pool(at: Moment, heard: object) -> None:
    """Give free numbers to those who wait for one, first come first. A number that is still being
    put back is not free: our own URL, which stands there now, would be taken for the prior one."""
    book = at.book
    if not book.pool:
        return
    if book.identity.epoch > 1 and at.now - book.identity.started < SETTLES_WITHIN:
        return  # sessions of before have not said yet which numbers they are on
    while True:
        used = {session.number for session in book.sessions.values()} | set(book.leases)
        found = book.pool.hand_out(used)
        if found is None:
            break
        session = book.sessions[found[0]]
        session.gets(found[1], at.now + REST_WITHIN)
        at.tell(f.Sought(session.number, Seeker(session.id), session.deadline))
    for session_id, place in book.pool.new_places():
        at.send_session(session_id, m.PoolQueued(session=session_id, place=place))


def pool_overdue(at: Moment, tick: ev.Tick) -> None:
    """Refuse the sessions that have waited for a free number until their deadline."""
    pool = at.book.pool
    for session in at.book.sessions.values() if pool else ():
        if (
            session.number == m.ANY_NUMBER
            and session.state == "opening"
            and at.now > session.deadline
        ):
            busy = NumberBusyError(
                f"all {pool.size} numbers of the pool are in use",
                number=m.ANY_NUMBER,
                holder="the pool",
            )
            at.tell(f.NumberMissing(Seeker(session.id), busy))


# --------------------------------------------------------------------------- leases


def wanted(at: Moment, wanted: f.Wanted) -> None:
    """Take the number for the request, in one of four ways.

    - Nobody has the number: a new override is planned.
    - Its holders can share it with this session: the request is granted once the override is on.
    - A holder could mean the same calls: the request is refused, and the error names the holder.
    - The number is being put back, or is held for a session from before a restart: the request
      waits.
    """
    request = wanted.request
    session = at.book.sessions.get(request.session)
    if session is None:
        return  # it closed while its request waited for the number
    lease = at.book.leases.get(wanted.number)
    if lease is None:
        row = OverrideRow(
            id=secrets.token_hex(8),
            number=wanted.number,
            number_sid=wanted.sid,
            session=request.session,
            state="planned",
            since=at.book.wall(at.now),
            holders={request.session: session.secret_hash},
        )
        lease = Lease(row, holders={request.session: request.hold}, waiting=[request])
        at.book.add_lease(lease)
        at.do(do.Apply(row, request.deadline))
        return
    new = request.session not in lease.holders
    try:
        if not lease.take(request):
            return
    except NumberBusyError as error:
        at.tell(f.Refused(request, error))
        return
    if new:
        at.do(do.KeepHolder(lease.row.id, lease.number, session.id, session.secret_hash))
    if lease.state == "applied":
        at.tell(f.Granted(request))
    else:
        lease.wait(request)


def let_go(at: Moment, closing: f.SessionClosing) -> None:
    """A closing session holds nothing: a number that was its alone is put back (``Restore``). If
    its override is still being put on, :func:`applied` has it put back afterwards, because a write
    under way cannot be called off."""
    for lease in at.book.leases.values():
        if lease.leave(closing.session) and lease.state == "applied":
            at.do(lease.put_back(at.now))


def held_up(at: Moment, tick: ev.Tick) -> None:
    """Refuse whoever has waited too long for a number to become free, and say what holds it up."""
    for lease in list(at.book.leases.values()):
        for request in [request for request in lease.waiting if at.now > request.deadline]:
            if lease.state in _HELD_UP:
                lease.give_up(request)
                at.tell(f.Refused(request, _still(lease)))


def _still(lease: Lease) -> TrunklineError:
    """Why the number is not free yet, in words that tell the user where to look."""
    shown = redact_number(lease.number)
    if lease.unclaimed:
        return TimedOutError(
            f"number {shown} is held for session {lease.row.session}, which has it since "
            f"{lease.since} and has not announced itself since this controller started"
        )
    return TimedOutError(
        f"number {shown} is still being put back after its last use by session "
        f"{lease.row.session} since {lease.since}; Twilio has not taken it yet (the controller's "
        "log says why)"
    )


# --------------------------------------------------------------------------- what Twilio says


def applied(at: Moment, result: ev.Applied) -> None:
    """Twilio has confirmed the override. If nobody holds the number any more, because its session
    closed while Twilio was being asked, the number goes back."""
    lease = at.book.lease_of(result.row.id)
    assert lease is not None, "an override was applied that nobody holds"
    lease.applied(result.row)
    if not lease.holders:
        at.do(lease.put_back(at.now))
        return
    for request in lease.take_waiting():
        if request.session in lease.holders:
            at.tell(f.Granted(request))


def apply_failed(at: Moment, result: ev.ApplyFailed) -> None:
    """The override is not on. It has to be put back all the same if a write may have landed.
    Whoever waits for the number gets Twilio's error, or the reason why Twilio was not asked."""
    lease = at.book.lease_of(result.row.id)
    assert lease is not None, "an override failed that nobody holds"
    waiting = lease.take_waiting()
    lease.drop_holders()
    if result.open:
        at.do(lease.put_back(at.now))
    else:
        lease.step("failed")
        at.book.drop_lease(lease)
        at.tell(f.NumberBack(tuple(lease.leaving)))
    for request in waiting:
        at.tell(f.Refused(request, result.error))


def restored(at: Moment, result: ev.Restored) -> None:
    """The number is as it was, or was left as somebody else has set it: whoever waits for it may
    take it now."""
    at.count(f"overrides {result.outcome}")
    lease = at.book.lease_of(result.override)
    if lease is None:
        return
    at.book.measures.count("restore", lease.restored(at.now))
    at.book.drop_lease(lease)
    for request in lease.take_waiting():
        at.tell(f.Wanted(request, lease.number, lease.row.number_sid))
    at.tell(f.NumberBack(tuple(lease.leaving)))
