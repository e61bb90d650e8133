"""After a restart: the open rows of the journal, and the peers that announce themselves again.

Open overrides are held for their sessions, open dials for their clients. For
:data:`~.book.CLAIM_SECONDS` clients say Hello and claim their sessions, gateways list their
streams, and both together say how each call stands. Whatever is unclaimed then belongs to nobody:
numbers are put back and calls are hung up.

In which state a found thing enters is the table RESTART in :mod:`.tables`. For example, a number
whose override the journal has as *applied* enters as *unclaimed*. If its client announces itself,
it is *applied* again, without a word to Twilio. If nobody does, it is *restoring*.

The journal has overrides, dials and the streams by which clients listen in, since these must
survive everything (:mod:`.listening` takes up the streams). It does not have calls, because the
peers that carry them know them: the gateway its streams, the client its calls. They may come in
either order, and each alone is enough: a stream without a client is hung up when the claims are
over, and a call without a stream waits for one as usual.

A controller that finds a call numbers its next streams from 1,000 times the epoch on. So no ordinal
is given twice, although earlier controllers may have let streams in that nobody tells us of. For
example, a gateway dies together with the controller, after it has sent an OpenCall to a worker that
is stopped. When the worker wakes, it opens the call under the ordinal of the dead gateway's stream.
If the call's present stream had the same ordinal, the client would follow the wrong worker.

Secrets decide who may claim. The journal has hashes of the sessions' secrets, so that a client
which knows a session's id alone cannot take its number and its calls.
"""

from __future__ import annotations

import logging
from typing import Final

from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.errors import InvalidRequestError, TrunklineError, WrongModeError
from trunkline.bus.redact import redact_number

from .. import instructions as do
from ..journal.rows import DialRow, OverrideRow
from . import facts as f
from .book.call import MAY_RETURN_FOR, Call
from .book.dial import Dial, new_dial
from .book.lease import Hold, Lease, LeaseRequest
from .book.lookups import Seeker
from .book.opening import new_session
from .book.session import REST_WITHIN, Session
from .book.tokens import digest, same
from .moment import Moment

log = logging.getLogger("trunkline.controller")

#: A client that comes back hears of its calls that ended this long ago, or less (seconds).
TOLD_AGAIN_WITHIN: Final = 30.0
#: Closed dials that were asked for this long ago, or less, are known to a restarted controller, as
#: their clients may ask about them (seconds).
ASKED_ABOUT_WITHIN: Final = 3600.0


# --------------------------------------------------------------------------- what the journal has


def recover(at: Moment, found: f.Found) -> None:
    """Take up the overrides and dials that the journal has open, the overrides of other stacks that
    are gone, and the dials that were closed within a day."""
    for row in found.overrides:
        _found_override(at, row, "nothing written" if row.prior is None else row.state)
    for row in found.orphans:
        _found_override(at, row, "another stack's")
    for dial in found.dials:
        _found_dial(at, dial)


def _found_override(at: Moment, row: OverrideRow, found: str) -> None:
    """One row of a journal. ``found``: how it stood, by the words of RESTART. Nobody can claim
    another stack's override here, and one without a prior was never written."""
    lease = Lease(row, found=True)
    lease.enter(found)
    if row.number in at.book.leases:
        # Two overrides of one number: only one of them can stand there, and it is held already.
        if lease.state != "restoring":
            lease.put_back(at.now)
        at.book.set_aside(lease)
    else:
        at.book.add_lease(lease)
    if lease.state == "restoring":
        at.do(lease.begin_restore(at.now))


def _found_dial(at: Moment, row: DialRow) -> None:
    """An open dial, or a closed one that a client may still ask about, or that only counts.

    The clock may have been set back since it was asked for. Then it would count for too long, so we
    assume that it was asked for at this start."""
    row = replace(row, asked=min(row.asked, at.book.identity.started_wall))
    if row.state == "closed":
        at.book.usage.accept(row)
        if row.asked < at.book.identity.started_wall - ASKED_ABOUT_WITHIN:
            return
    found = "closed" if row.state == "closed" else "asked" if row.sid is None else "taken"
    dial = new_dial(row, at.now)
    dial.enter(found)
    if found == "closed":
        dial.nobody_waits("failed")
        at.book.add_closed_dial(dial, at.now)
        return
    # Gateways and clients will say whether it has its stream by now.
    dial.waits_until(max(at.book.claim_until, at.book.mono(row.asked) + row.timeout))
    call = Call.of_dial(row, at.now, {}).found_in(at.book.identity.epoch, secret=False)
    at.book.add_dial(dial, call)
    if row.mode == "a-leg":
        at.book.tokens.put(row.token_hash, row.call)
    if row.sid is not None:
        at.tell(f.SidKnown(dial, row.sid))
    else:
        at.do(do.Settle(row))


# --------------------------------------------------------------------------- clients


def client_here(at: Moment, here: f.ClientHere) -> None:
    """A client says which sessions it has. Those that it cannot have are named in its Welcome."""
    hello, unknown = here.hello, []
    for info in hello.sessions:
        try:
            _announced(at, info, hello.peer)
        except TrunklineError as error:
            log.warning("session %s is not taken back: %s", info.session, error)
            unknown.append(info.session)
        else:
            at.tell(f.SessionBack(info))
    at.tell(f.Announced(hello, unknown))


def _announced(at: Moment, info: m.SessionInfo, peer: str) -> None:
    """Take one session in, or say why not. TrunklineError: its client must not believe that it has
    it."""
    session = at.book.sessions.get(info.session)
    if session is not None:
        session.must_have_secret(info)
        if session.state == "closing":
            raise WrongModeError("it is being closed")
        session.heard(peer, at.now)
        return
    if not at.book.claiming:
        raise WrongModeError("its lease is long gone")
    _check_secret(at, info)
    _reclaim(at, info, peer)


def _check_secret(at: Moment, info: m.SessionInfo) -> None:
    """InvalidRequestError where the client's secret does not fit a hash that the journal has of the
    session's. A session that the journal does not have is believed."""
    rows = [lease.row for lease in at.book.leases.values()]
    hashes = [row.holders[info.session] for row in rows if info.session in row.holders]
    dials = [dial.row for dial in at.book.dials.values() if dial.row.session == info.session]
    hashes += [dial.secret_hash for dial in dials[:1]]
    hashes += [call.holder_hash for call in at.book.calls_of(info.session) if call.holder_hash]
    if not all(same(known, digest(info.secret)) for known in hashes):
        raise InvalidRequestError("the secret is wrong")


def _reclaim(at: Moment, info: m.SessionInfo, peer: str) -> None:
    """Its client has a session that this controller does not know yet: it is taken back, with the
    numbers that the journal has for it."""
    session = new_session(at.book, info, peer, at.now)
    session.waits_until(at.now + REST_WITHIN)
    leases = [
        lease
        for lease in at.book.leases.values()
        if session.id in lease.row.holders and lease.state != "restoring"
    ]
    own = [x for x in leases if x.number == session.number and info.mode == "answer"]
    session.enter(_found_session(info, own[0] if own else None))
    at.book.add_session(session)
    for lease in leases:
        if lease in own:
            session.take_number_sid(lease.row.number_sid)
            lease.hold(session.id, Hold(session.allowed_callers))
            if session.state == "arming":
                request = LeaseRequest(session.id, session.allowed_callers, None, session.deadline)
                lease.wait(request, first=True)
        else:
            lease.hold(session.id, Hold(frozenset((session.number,)), dials=True))
        _claim(at, lease, session)
    if session.state == "arming" and not own:
        # The journal does not have its hold, or the number is being put back: it is armed again.
        at.tell(f.Sought(session.number, Seeker(session.id), session.deadline))
    log.info("session %s is back on %s", session.id, redact_number(session.number))


def _found_session(info: m.SessionInfo, own: Lease | None) -> str:
    """How the session was found, by the words of RESTART. ``own``: the lease on the number on which
    it answers."""
    found: str = info.mode
    if info.armed and found == "answer":
        is_on = own is not None and own.state in ("unclaimed", "applied")
        return found + (", its override on" if is_on else ", its override not on")
    return found


def _claim(at: Moment, lease: Lease, session: Session) -> None:
    """A session that held the number is back. Where the write was in doubt it is made once more,
    under the same id, so that a late effect of the first one changes nothing. Whoever wanted the
    number meanwhile asks once more: now it has a holder."""
    if not lease.unclaimed:
        return
    lease.claim()
    if lease.state == "applying":
        at.do(do.Apply(lease.row, session.deadline))
    for request in lease.take_waiting():
        if request.session in lease.holders:
            lease.wait(request)
        else:
            at.tell(f.Wanted(request, lease.number, lease.row.number_sid))


def session_calls(at: Moment, returned: f.SessionBack) -> None:
    """A client's calls, as it has them."""
    session = at.book.sessions.get(returned.info.session)
    for info in returned.info.calls:
        call = at.book.calls.get(info.call)
        if not _is_of(at, returned.info.session, call, info):
            log.warning("session %s has no call %s", returned.info.session, info.call)
            continue
        if call is None:
            call = Call.of_info(info, at.now).found_in(at.book.identity.epoch)
            at.book.add_call(call, info.sid, info.dialled_sid)
            if info.mode == "originate":
                call.step("silent")
                _started(at, call)
            else:
                _had_stream(at, call, info)
        elif call.state == "expected" and info.ordinal > 0:
            # A dial found in the journal, whose stream had been up.
            call.leg_known(call.sid or info.sid)
            at.book.know(call, info.sid)
            _had_stream(at, call, info)
        else:
            call.known_already(info, at.now)
            if call.state == "ended" and session is not None:
                # It ended before its client was back, which has not heard of it.
                _tell_end(at, session, call)
        if info.answered_by is not None:
            call.answered_by_known(info.answered_by)
        in_doubt = at.book.claiming and at.book.digits.of(call.id) is None
        if info.digits and in_doubt and not call.over:
            # Its client waits for digits that an earlier controller was asked for.
            call.doubt_digits(at.now + MAY_RETURN_FOR)


def _is_of(at: Moment, session: str, call: Call | None, info: m.CallInfo) -> bool:
    """Whether the client of this session may speak of this call and of its leg. It may not if
    either is another session's."""
    by_sid = at.book.by_sid.get(info.sid) if info.theirs is None else None
    known = [x for x in (call, by_sid) if x is not None]
    return info.session == session and all(x.session == session for x in known)


def _had_stream(at: Moment, call: Call, info: m.CallInfo) -> None:
    """Nothing lets its first stream in any more; the next one gets a token by a webhook."""
    at.book.tokens.void(call.id)
    call.had_stream(info, at.now)
    _started(at, call)


def _started(at: Moment, call: Call) -> None:
    """The call's dial, if it has one, is over: it has become this call."""
    dial = at.book.dial_of(call)
    if dial is not None:
        dial.stream_up(at.book.wall(at.now))


def session_dials(at: Moment, returned: f.SessionBack) -> None:
    """A session that is back says which dials it waits for; others are not wanted any more."""
    wanted = {dial.request for dial in returned.info.dials}
    for dial in list(at.book.dials.values()):
        if dial.row.session != returned.info.session:
            continue
        if dial.request in wanted and dial.outcome is not None:
            at.send_session(dial.row.session, dial.failed())  # it may have missed that
        if dial.state == "closed":
            continue
        if dial.request in wanted or dial.started or dial.row.mode == "originate":
            if dial.sid is not None and not dial.started:
                # Callbacks may have come while no controller was there.
                at.do(do.Fetch(dial.row.call, dial.sid))
            continue
        call = at.book.calls.get(dial.row.call)
        if call is None or call.state == "expected":
            _nobody_wants(at, dial)


def tell_again(at: Moment, announced: f.Announced) -> None:
    """Tell a client that is back what it may have missed of its calls: who answered, the newest
    placement of those that go on, and the ends of those that ended lately."""
    known = {call.call for info in announced.hello.sessions for call in info.calls}
    for session in at.book.sessions.values():
        if session.peer != announced.hello.peer:
            continue
        for call in at.book.calls_of(session.id):
            if call.answered_by is not None:
                at.send(session.peer, m.AnsweredBy(call=call.id, answered_by=call.answered_by))
            if call.started is None and call.mode != "originate":
                continue
            if call.state in ("live", "reconnecting"):
                _tell_started(at, session, call, new=call.id not in known)
            elif call.state == "ended" and at.now - call.ended_at < TOLD_AGAIN_WITHIN:
                _tell_end(at, session, call)


def _tell_started(at: Moment, session: Session, call: Call, *, new: bool) -> None:
    """``new``: its client has not heard of it. If it waits for a call, this is that call."""
    if call.placement is None:
        return
    if new and call.direction == "inbound" and session.state == "armed":
        session.ring(call.id)
        session.step("started")
    at.send(session.peer, m.CallStarted(info=call.info(at.now)))


def _tell_end(at: Moment, session: Session, call: Call) -> None:
    """It ended while its client was away."""
    at.send(session.peer, call.ended_message(at.now))


# --------------------------------------------------------------------------- gateways


def gateway_here(at: Moment, here: f.GatewayHere) -> None:
    """A gateway's streams, as it has them."""
    for stream in here.hello.streams:
        at.tell(f.StreamFound(here.hello.peer, stream))


def stream_found(at: Moment, found: f.StreamFound) -> None:
    """The call of a stream that is up, whether or not its client has announced it by now.

    The client may have said Hello before, and not have heard of the call: the last controller may
    have died just after it had answered the gateway. So we tell the client. It ignores a call that
    it knows.
    """
    info, book = found.stream.info, at.book
    call = book.calls.get(info.call)
    new = call is None
    if call is None:
        call = Call.of_info(info, at.now).found_in(at.book.identity.epoch)
        book.add_call(call, info.sid, info.dialled_sid)
    try:
        call.must_have_secret(info)
    except InvalidRequestError as error:
        log.warning("a stream at %s is closed: %s", found.gateway, error)
        at.send(found.gateway, m.CloseStream(call=call.id))
        return
    if call.over or info.ordinal < call.ordinal:
        at.send(found.gateway, m.CloseStream(call=call.id))
        return
    if call.state == "expected":
        book.tokens.void(call.id)  # it was used before the restart
    book.know(call, info.sid)
    call.leg_known(info.sid)
    call.found(found.gateway, found.stream, at.now)
    if call.placement is not None and call.placement != info.placement:
        # We told the gateway of it while its connection was broken.
        at.send(found.gateway, m.CallPlaced(call=call.id, placement=call.placement))
    _started(at, call)
    session = book.sessions.get(call.session)
    if session is not None:
        _tell_started(at, session, call, new=new)
    elif not book.claiming:
        _nobody_claims(at, call)


# --------------------------------------------------------------------------- what nobody claims


def unclaimed_numbers(at: Moment, over: f.ClaimsOver) -> None:
    """Numbers that no session has claimed, or whose sessions have left again since: they would go
    on calling us, and every caller would be told that we are busy."""
    for lease in at.book.leases.values():
        if lease.unclaimed or (lease.state == "applied" and not lease.holders):
            at.do(lease.put_back(at.now))


def unclaimed_dials(at: Moment, over: f.ClaimsOver) -> None:
    """Dials whose sessions have not come back."""
    for dial in list(at.book.dials.values()):
        if dial.state != "closed" and dial.row.session not in at.book.sessions:
            if dial.outcome is None:
                log.warning("dial %s: nobody claims it; its call is hung up", dial.request)
            _nobody_wants(at, dial)


def unclaimed_calls(at: Moment, over: f.ClaimsOver) -> None:
    """Calls whose sessions have not come back, and which nobody hears."""
    for call in list(at.book.calls.values()):
        if call.live and call.session not in at.book.sessions:
            _nobody_claims(at, call)


def _nobody_wants(at: Moment, dial: Dial) -> None:
    """The dial is given up. If it still leads to a call, that is hung up once its SID is known."""
    at.tell(f.GivenUp(dial))
    at.tell(f.HangUp(dial.row.call, "hang_up"))


def _nobody_claims(at: Moment, call: Call) -> None:
    """A call costs money for as long as it lasts."""
    log.warning("call %s: nobody claims it; it is hung up", call.sid)
    at.tell(f.HangUp(call.id, "hang_up"))
