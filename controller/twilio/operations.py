"""Carries out the state machine's instructions that take time: REST and the journal.

Each operation is a coroutine that comes back with a result, which the core gets as an event.
Repeats happen here, with back-off. Three kinds of request differ in that:

- A read changes nothing, so it is repeated until a deadline.
- Hanging up is repeated until Twilio takes it, or says that the call is over: a call that nobody
  ends costs money.
- Asking for a call is repeated only where Twilio cannot have taken it (429, a refused connection).
  Repeated after a timeout, it might ring twice. Then :func:`settle` looks for the call instead.

Writes to numbers have a file of their own (:mod:`.apply_restore`).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.clock import Clock, monotonic
from trunkline.bus.errors import (
    CallFailedError,
    CarrierError,
    LimitReachedError,
    SettingsError,
    TrunklineError,
)
from trunkline.bus.redact import redact_number
from trunkline.bus.settings import Settings

from .. import events as ev
from .. import instructions as do
from ..journal.rows import DialRow, ListeningRow, OverrideRow
from ..journal.store import Journal
from .calls import LIVE_STATUSES
from .carrier import RestFailure, TwilioCarrier, backoff
from .override import UNCERTAIN_SECONDS
from .seal import SealKeys

log = logging.getLogger("trunkline.controller")

T = TypeVar("T")

#: After this long whoever asked for a hang-up hears that Twilio does not take it.
TELL_AFTER: Final = 15.0
#: As a rule a call names its dial within this time (seconds): a callback has the dial's request id
#: in its URL, and a stream has the dial's token as a parameter.
EVIDENCE_WITHIN: Final = 3.0
#: After that Twilio's list of calls is read this often (seconds).
LOOK_EVERY: Final = 2.0
#: A call that looks like a dial's may be another dial's. Dials that were asked for this long before
#: it, or less, are looked at for that (seconds): when the account's queue is full, Twilio may make
#: a call long after it was asked.
OTHERS_ASKED_BEFORE: Final = 600.0
#: Where a number bears another stack's seal, that stack is asked whether it lives: this many times,
#: with so many seconds between them, because a stack that its keeper is just starting again does
#: not answer at once.
PROBES: Final = 3
PROBE_EVERY: Final = 5.0
#: Between two tries while the stack ends (seconds). It ends within 4 s, so longer pauses would
#: leave no second try.
HURRIED_PAUSE: Final = 0.4


@dataclass
class Operations:
    """The surroundings of every operation on numbers and calls.

    ``probe(base, stack)``: does that stack live? ``wall``: Unix time, for the journal, which a
    later process reads. ``clock``: for everything else. ``sleep``: asyncio.sleep, or a fake.
    """

    stack: str
    public_url: str = field(repr=False)
    carrier: TwilioCarrier
    journal: Journal
    keys: SealKeys
    wall: Callable[[], float]
    probe: Callable[[str, str], Awaitable[bool]]
    fallback_to_prior: bool = True
    take_over_routed: bool = False
    clock: Clock = monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    #: the stack ends: only what has to succeed (a restore, a hang-up) is tried again, and after
    #: short pauses. What is not done then, the next start does
    hurried: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(
        cls,
        settings: Settings,
        stack: str,
        carrier: TwilioCarrier,
        journal: Journal,
        probe: Callable[[str, str], Awaitable[bool]],
    ) -> Operations:
        """As the settings have it, for ``stack``. SettingsError: they have no auth token."""
        return cls(
            stack=stack,
            public_url=settings.public_url or "",
            carrier=carrier,
            journal=journal,
            keys=SealKeys(settings.require("auth_token"), settings.auth_token_secondary),
            wall=time.time,
            probe=probe,
            fallback_to_prior=settings.fallback_to_prior,
            take_over_routed=settings.take_over_routed,
        )

    async def intend(self, row: OverrideRow) -> None:
        """Journal the present fields of the row's number, and those that we are going to write.
        Passwords are sealed there."""
        await self.journal.intend(row.id, *self._hidden(row), self.wall())

    async def found(self, row: OverrideRow) -> None:
        """Journal an override that its number's own seal describes. Passwords are sealed there."""
        await self.journal.found(row, *self._hidden(row), self.wall())

    def _hidden(self, row: OverrideRow) -> tuple[dict[str, str], dict[str, str]]:
        """``prior`` and ``written`` with their passwords sealed."""
        assert row.prior is not None and row.written is not None
        return self.keys.hide(row.prior, row.id), self.keys.hide(row.written, row.id)

    def opened(self, row: OverrideRow) -> OverrideRow:
        """A row of the journal, with the passwords as they were before :meth:`intend` sealed them.
        SettingsError where that was done with another token."""
        if row.prior is None or row.written is None:
            return row
        try:
            prior, written = (self.keys.show(fields, row.id) for fields in (row.prior, row.written))
        except SettingsError as error:
            raise SettingsError(f"number {redact_number(row.number)}: {error}") from None
        return replace(row, prior=prior, written=written)

    def hurry(self) -> None:
        """The stack ends: wake everyone who pauses, so that each tries once more in time."""
        self.hurried.set()

    def too_late(self, wait: float, deadline: float) -> bool:
        """There is no time for another try after ``wait`` seconds."""
        return self.hurried.is_set() or self.clock() + wait > deadline

    def until_again(self, seconds: float) -> float:
        """How many seconds a :meth:`pause` lasts that begins now, if the end does not cut it."""
        return min(seconds, HURRIED_PAUSE) if self.hurried.is_set() else seconds

    async def pause(self, seconds: float) -> None:
        """Wait between two tries; at the stack's end not longer than :data:`HURRIED_PAUSE`."""
        if self.hurried.is_set():
            await self.sleep(self.until_again(seconds))
            return
        hurry = asyncio.ensure_future(self.hurried.wait())
        sleep = asyncio.ensure_future(self.sleep(seconds))
        try:
            await asyncio.wait((hurry, sleep), return_when=asyncio.FIRST_COMPLETED)
            if sleep.done():
                sleep.result()
        finally:
            hurry.cancel()
            sleep.cancel()

    async def lives(self, base: str, stack: str) -> bool:
        """Another stack lives: it is on this machine, or answers at its public URL, now or within
        10 s. Asked before we take over a number that bears its seal: to take a live stack's number
        would end somebody's test."""
        for attempt in range(PROBES):
            if attempt:
                await self.pause(PROBE_EVERY)
            if await self.probe(base, stack):
                return True
        return False


async def retried(
    ops: Operations,
    doing: str,
    ask: Callable[[], Awaitable[T]],
    deadline: float,
    *,
    idempotent: bool = True,
) -> T:
    """``ask()`` until it succeeds, with back-off and Retry-After. A request that is not
    ``idempotent`` is repeated only where Twilio cannot have taken it.

    Raises the CarrierError of the last failure at ``deadline``, or at once when repeating is of no
    use. It gives up before a pause that would end after the deadline, so that whoever asked hears
    the reason in time and not only that the time is over.
    """
    attempt = 0
    while True:
        try:
            return await ask()
        except RestFailure as failure:
            attempt += 1
            wait = backoff(attempt, failure)
            again = failure.repeatable and (idempotent or not failure.uncertain)
            if not again or ops.too_late(wait, deadline):
                raise failure.error(doing) from failure
            log.warning("Twilio could not %s (%s); again in %.2g s", doing, failure.text, wait)
            await ops.pause(wait)


async def look_up(ops: Operations, asked: do.LookUp) -> ev.LookedUp | ev.LookUpFailed:
    """Whether the account has the number, and under which SID: REST names numbers by SID. A number
    that is not the account's is an answer, with no SID, and not a failure."""
    number, deadline = asked.number, asked.deadline
    doing = f"look up number {redact_number(number)}"
    try:
        found = await retried(ops, doing, lambda: ops.carrier.find_number(number), deadline)
    except TrunklineError as error:
        return ev.LookUpFailed(number, error)
    return ev.LookedUp(number, None if found is None else found.sid)


async def list_numbers(
    ops: Operations, asked: do.ListNumbers
) -> ev.NumbersListed | ev.LookUpFailed:
    """All numbers of the account, for sessions that take whichever is free."""
    try:
        found = await retried(ops, "list numbers", ops.carrier.list_numbers, asked.deadline)
    except TrunklineError as error:
        return ev.LookUpFailed(m.ANY_NUMBER, error)
    return ev.NumbersListed(tuple((n.number, n.sid) for n in found))


async def create(
    ops: Operations,
    asked: do.Create,
    wanted: Callable[[], bool],
    tell: Callable[[ev.AskedTwilio], None],
) -> ev.Taken | ev.CreateFailed | ev.Unsure:
    """Ask Twilio for a call: again only where it cannot have taken it, while it is ``wanted``.

    The dial is in the journal before Twilio is asked, and its SID after. If we die in between, the
    next controller knows that a call may be ringing which nobody will answer. ``wanted``: whoever
    asked still waits for the call. ``tell``: called when Twilio is asked, because the dial's
    timeout begins then and not while it waits with us.

    Unsure says that Twilio may have made the call and its answer was lost; :func:`settle` is next.
    """
    row = asked.row
    shown = redact_number(row.callee)
    given_up = CallFailedError(f"the dial to {shown} was given up", status="canceled")
    wait = await ops.journal.turn()
    if wait > 0.0:  # other machines ask, too
        await ops.pause(wait)
        if not wanted():
            return ev.CreateFailed(row.request, given_up)
        row = replace(row, asked=ops.wall())
    try:
        new = await ops.journal.dial_asked(row)
    except LimitReachedError as limit:
        return ev.CreateFailed(row.request, limit)
    if not new:
        # Asked by an earlier controller, whose answer the client has not got.
        gone = CallFailedError(f"the dial to {shown} is over", status="canceled")
        return ev.CreateFailed(row.request, gone)
    if not wanted():
        # The journal was away for so long that whoever asked has given up.
        await ops.journal.dial_closed(row.request, 0.0)
        return ev.CreateFailed(row.request, given_up)
    tell(ev.AskedTwilio(row.request, row.asked if wait > 0.0 else None))
    attempt = 0
    while True:
        try:
            call = await ops.carrier.create_call(asked.order)
            break
        except RestFailure as failure:
            error = failure.error(f"call {shown}")
            if failure.uncertain:
                return ev.Unsure(row.request, error)
            attempt += 1
            wait = backoff(attempt, failure)
            again = failure.repeatable and wanted() and not ops.too_late(wait, asked.deadline)
            if again:
                log.warning(
                    "call to %s not placed (%s); again in %.2g s", shown, failure.text, wait
                )
                await ops.pause(wait)
            # Whoever asked may have given up during the pause.
            if not again or not wanted():
                await ops.journal.dial_closed(row.request, 0.0)
                return ev.CreateFailed(row.request, error)
    await ops.journal.dial_taken(row.request, call.sid)
    return ev.Taken(row.request, call.sid, call.status)


async def settle(
    ops: Operations,
    row: DialRow,
    unsettled: Callable[[], bool],
    belongs: Callable[[str], bool],
) -> ev.Taken | ev.NotFound | None:
    """Look for the call that the dial of ``row`` may have led to, until there can be none any more.

    ``unsettled()``: nobody else has found it. ``belongs(sid)``: that call is another's. A call in
    the list is a guess, because two calls from one number to another look alike there. Callback
    and stream name the dial, so they are given :data:`EVIDENCE_WITHIN` first, and the guess is not
    journalled: a restarted controller would take it for knowledge.
    """
    asked = row.asked
    if asked > ops.wall():  # the clock was set back since
        asked = ops.wall() - row.timeout
    last = asked + row.timeout + UNCERTAIN_SECONDS  # no call of this dial is younger
    until = min(ops.wall() + UNCERTAIN_SECONDS, last)
    attempt = 0
    await ops.pause(EVIDENCE_WITHIN)
    while unsettled():
        try:
            found = await ops.carrier.list_calls(row.callee, row.caller, asked)
        except RestFailure as failure:
            attempt += 1
            log.warning("calls could not be listed (%s)", failure.text)
            await ops.pause(backoff(attempt, failure))
            continue
        # A callback may have named the call while the list was on its way.
        if not unsettled():
            return None
        ours = [
            call
            for call in found
            if not belongs(call.sid)
            and call.direction in ("", "outbound-api")
            and (call.created is None or call.created <= last)
        ]
        if ours:
            # The oldest: a younger one is rather a later dial's whose SID we do not know yet.
            call = min(ours, key=lambda c: c.created or 0.0)
            return ev.Taken(row.request, call.sid, call.status, guessed=True)
        if ops.wall() >= until:
            await ops.journal.dial_closed(row.request, 0.0)
            return ev.NotFound(row.request)
        await ops.pause(LOOK_EVERY)
    return None


async def end(
    ops: Operations, call: str, sids: tuple[str, ...], tell: Callable[[ev.EndFailed], None]
) -> ev.EndTaken:
    """Hang all legs up; goes on until Twilio takes it, or until they are over.

    Refused credentials are no reason to stop: a token that is being rotated, or an account that is
    suspended for a minute, may work again while the call still runs. ``tell``: called once, if it
    takes long or is refused, because whoever asked waits for an answer.
    """
    hang_ups = [
        (f"hang up {sid}", sid, functools.partial(ops.carrier.end_call, sid)) for sid in sids
    ]
    await _until_taken(ops, call, hang_ups, tell)
    return ev.EndTaken(call, sids)


async def stop_listening(
    ops: Operations, asked: do.StopListening, tell: Callable[[ev.EndFailed], None]
) -> ev.EndTaken:
    """Stop the stream of a call that is listened to; goes on as long as a hang-up does."""
    stop = functools.partial(ops.carrier.stop_stream, asked.sid, asked.name)
    stops = [(f"stop a stream of call {asked.sid}", asked.sid, stop)]
    await _until_taken(ops, asked.call, stops, tell)
    return ev.EndTaken(asked.call, (asked.sid,))


async def _until_taken(
    ops: Operations,
    call: str,
    requests: Sequence[tuple[str, str, Callable[[], Awaitable[None]]]],
    tell: Callable[[ev.EndFailed], None],
) -> None:
    """Make each of the ``requests`` (what it does, for messages, the call's SID, and the request)
    until Twilio takes it, or until the call is over.

    Where Twilio refuses a request, and not for its credentials, it will hardly take the next one.
    Its call goes on all the same, at most until its time limit. Until then it is not settled, so
    that its row in the journal stays open. The other requests are made meanwhile."""
    began = ops.clock()
    told = False
    left = deque(requests)
    attempt = 0
    while left:
        doing, sid, ask = left[0]
        try:
            await ask()
        except RestFailure as failure:
            attempt += 1
            error = failure.error(doing)
            refused = not failure.repeatable and not failure.refused_credentials
            if not (refused and await _is_over(ops, sid)):
                if not told and (refused or ops.clock() - began >= TELL_AFTER):
                    told = True
                    tell(ev.EndFailed(call, error))
                wait = ops.until_again(backoff(attempt, failure))
                log.warning("Twilio did not %s (%s); again in %.2g s", doing, failure.text, wait)
                await ops.pause(wait)
                left.rotate(-1 if refused else 0)
                continue
        left.popleft()
        attempt = 0


async def _is_over(ops: Operations, sid: str) -> bool:
    """The call is over, or Twilio refuses this question too, so that nothing will be known of it:
    its time limit ends it then."""
    try:
        return (await ops.carrier.fetch_call(sid)).ended
    except RestFailure as failure:
        refused = not (failure.repeatable or failure.refused_credentials)
        if refused and not failure.gone:
            log.error("%s", failure.error(f"say how call {sid} stands"))
        return refused


async def hang_up_left(ops: Operations, row: DialRow) -> None:
    """The controller and the client of this dial are gone: hang up its call, if it has led to one,
    and close its row.

    Otherwise the far end would talk to nobody, until the call's time limit ends it.
    """
    sid = row.sid
    if sid is None:
        # Calls of other dials, those that are over among them, look like its own.
        others = await ops.journal.open_dials()
        others += await ops.journal.closed_dials(row.asked - OTHERS_ASKED_BEFORE)
        known = {other.sid for other in others}
        found = await settle(ops, row, lambda: True, lambda sid: sid in known)
        if not isinstance(found, ev.Taken):
            return  # there is none, and the row is closed
        sid = found.sid
    log.warning("call %s: nobody claims it; it is hung up", sid)
    await end(ops, row.call, (sid,), lambda failed: log.error("%s", failed.error))
    await ops.journal.dial_closed(row.request)


async def stop_left(ops: Operations, row: ListeningRow) -> None:
    """The controller and the client of this listening are gone: stop its stream, and close its row.
    The stream would go on for as long as the call."""
    log.warning("call %s: nobody listens to it any more; its stream is stopped", row.sid)
    order = do.StopListening(row.call, row.sid, row.name)
    await stop_listening(ops, order, lambda failed: log.error("%s", failed.error))
    await ops.journal.listening_closed(row.call)


async def fetch(ops: Operations, asked: do.Fetch) -> ev.Fetched:
    """A call's status, asked once: who needs it asks again. A call that is gone is over."""
    call, sid = asked.call, asked.sid
    try:
        return ev.Fetched(call, sid, (await ops.carrier.fetch_call(sid)).status)
    except RestFailure as failure:
        if failure.gone:
            return ev.Fetched(call, sid, "completed")
        log.warning("the status of call %s could not be fetched (%s)", sid, failure.text)
        return ev.Fetched(call, sid, None)


async def vouch(ops: Operations, asked: do.Vouch) -> ev.Vouched:
    """Whether a call lives, asked once. One that Twilio does not know may be too new to be shown,
    so that is no answer."""
    try:
        status = (await ops.carrier.fetch_call(asked.sid)).status
    except RestFailure as failure:
        log.warning("whether call %s lives is not known (%s)", asked.sid, failure.text)
        return ev.Vouched(asked.sid, None)
    return ev.Vouched(asked.sid, status in LIVE_STATUSES)


async def instruct(ops: Operations, asked: do.Instruct) -> ev.Instructed:
    """Have a leg that carries no stream of ours run other TwiML, which plays digits."""
    try:
        # Digits are not idempotent, so they are sent once: "1" twice is "11" to a phone menu.
        await ops.carrier.instruct_call(asked.sid, asked.twiml)
    except RestFailure as failure:
        return ev.Instructed(asked.reply_to, failure.error("send the digits"))
    return ev.Instructed(asked.reply_to, None)


async def start_stream(ops: Operations, asked: do.StartStream) -> ev.StreamAsked:
    """Ask for a one-way stream of the far end's sound while digits play (docs/architecture.md,
    "Digits"). It is asked for once: without it the digits are sent all the same, and some of the
    far end is lost."""
    error = None
    try:
        await ops.carrier.start_stream(asked.sid, asked.url, asked.token)
    except RestFailure as failure:
        error = failure.error("open a one-way stream")
        log.warning("call %s: %s", asked.sid, error)
    return ev.StreamAsked(asked.call, asked.serial, error)


async def open_listening(ops: Operations, asked: do.OpenListening) -> ev.ListeningAsked:
    """Journal the stream, then ask Twilio for both tracks. If we die in between, the next
    controller stops the stream by its name, which Twilio would otherwise bill until the call ends.
    A repeat does no harm, because the token lets one stream in."""
    row = asked.row
    await ops.journal.listening_asked(row)
    if asked.former:
        try:
            await ops.carrier.stop_stream(row.sid, asked.former)
        except RestFailure as failure:
            log.warning("call %s: a former stream was not stopped (%s)", row.sid, failure.text)
    start = functools.partial(ops.carrier.listen, row.sid, asked.url, asked.token, row.name)
    try:
        await retried(ops, f"open a stream of call {row.sid}", start, asked.deadline)
    except CarrierError as error:
        log.warning("call %s cannot be listened to: %s", row.sid, error)
        return ev.ListeningAsked(row.call, row.name, error)
    return ev.ListeningAsked(row.call, row.name, None)


async def play_digits(ops: Operations, asked: do.PlayDigits) -> ev.DigitsSent:
    """Have the leg that carries our stream play digits. They are not idempotent, so they are sent
    again only where Twilio cannot have taken them. ``unsure`` in the result: it may have."""
    call, serial = asked.call, asked.serial
    play = functools.partial(ops.carrier.instruct_call, asked.sid, asked.twiml)
    try:
        await retried(ops, "send the digits", play, asked.deadline, idempotent=False)
    except CarrierError as error:
        failure = error.__cause__
        unsure = isinstance(failure, RestFailure) and failure.uncertain
        return ev.DigitsSent(call, serial, error, unsure=unsure)
    return ev.DigitsSent(call, serial, None)
