"""A phone line: one number of the account, for calls to it or from it.

``Line`` needs no langwatch-scenario. It joins the stack at the bus address; the controller there
holds the number, and puts it back when the line is closed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from importlib import import_module
from typing import Literal

from trunkline.bus import settings
from trunkline.bus.clock import monotonic
from trunkline.bus.control import UNAVAILABLE_AFTER
from trunkline.bus.curve import ClientCurve
from trunkline.bus.endpoints import BusAddress
from trunkline.bus.errors import (
    NumberBusyError,
    StackUnavailableError,
    WrongModeError,
    check_direction,
)
from trunkline.bus.messages import ANY_NUMBER, LONGEST_TEST_NAME, SessionInfo
from trunkline.bus.redact import printable, redact_number

from .call import Call
from .client.call_media import CallMedia
from .client.client import BusClient, acquire, acquire_in_thread
from .client.session import ClientSession
from .client.telemetry import trace_carrier
from .dial_rules import DialPlan, callee_set, caller_set, check_e164, check_seconds, plan_dial
from .tap import Tap, Theirs
from .tap import check as check_listening
from .turns.greeting import GREETING_TIMEOUT, check_greeting, greet

log = logging.getLogger("trunkline.adapter")

#: Called with each call of this process when it comes up, and with each that it listens to. The
#: pytest plugin follows a test's calls.
followers: list[Callable[[Call | Tap], None]] = []

#: Counts the calls of this process, and may raise to refuse one. It is called before a call is
#: dialled (True) or waited for (False), with the longest time that the call may last (seconds). It
#: returns a context manager, whose value is called with the call once that is up.
Meter = Callable[[float, bool], AbstractContextManager[Callable[[Call], None]]]


def _uncounted(longest: float, dialled: bool) -> AbstractContextManager[Callable[[Call], None]]:
    return nullcontext(lambda call: None)


#: The pytest plugin puts its own meter here, which keeps a run within its caps.
meter: Meter = _uncounted

Mode = Literal["idle", "answer", "call"]

#: Arming a number may take this long (seconds), even if the user's timeout is shorter, because its
#: REST requests may be repeated. The controller gives up after 30 s and says why, so wait for that.
ARM_WITHIN = 35.0

#: These modules work on sound, and so need numpy, which takes as long to import as everything else.
#: So ``from trunkline import Line`` leaves them out. Functions that need them run during a call,
#: where the import would be too slow, so the first line that is opened imports them.
_OF_SOUND = (".dtmf", ".client.call_tape", ".turns.by_hand")


def _client(address: BusAddress, curve: Callable[[], ClientCurve | None]) -> BusClient:
    """The bus's client, with all that its calls will need. Blocks."""
    for name in _OF_SOUND:
        import_module(name, "trunkline.adapter")
    return acquire(address, curve)


class Line:
    """A number of the account, open from ``async with`` (or ``open()``) to its end.

    ``number`` is E.164, or "any" for one of the configured numbers: opening then waits until one is
    free, and whoever asked first gets it first (``asyncio.timeout`` ends the wait).
    ``allowed_callers``: who may call, as a carrier reports it (numbers, ``sip:…``, ``client:…``,
    ``anonymous``, …; None: everyone). ``allowed_callees``: whom an a-leg call may dial (None:
    nobody).
    ``report=False``: its calls keep none of their sound, so they have no ``report()``. That saves
    16 kB and 0.05 ms for each second of a call.
    ``bus``: address of the stack, else ``TRUNKLINE_BUS``, else the default. ``account``: SID of the
    account that the stack must belong to (None: whichever it is). ``auth_token``: for a tcp bus,
    else ``TWILIO_AUTH_TOKEN``. ValueError for a number that is not E.164.

    A line answers or calls, never both. Calling, it may hold many a-leg calls at once.
    """

    def __init__(
        self,
        number: str,
        *,
        allowed_callers: Iterable[str] | None = None,
        allowed_callees: Iterable[str] | None = None,
        bus: str | None = None,
        account: str | None = None,
        auth_token: str | None = None,
        report: bool = True,
    ) -> None:
        if number != ANY_NUMBER:
            check_e164(number)
        self.number = number
        self.allowed_callers = caller_set(allowed_callers)
        self.allowed_callees = callee_set(allowed_callees)
        self.mode: Mode = "idle"
        #: SID of the number at the carrier, once open
        self.number_sid: str | None = None
        #: account SID of the stack, once open
        self.account: str | None = None
        #: public base URL of the stack, once open
        self.public_url: str | None = None
        #: numbers (E.164) whose restore had not succeeded when the line was closed
        self.pending_restores: list[str] = []
        #: voice webhooks that came for the line (redirects of a known call are not counted), and
        #: how many of them were refused; complete once the line is closed
        self.webhooks = 0
        self.webhooks_rejected = 0
        self._asked_number = number
        self._report = report
        self._bus = bus
        self._account = None if account is None else settings.pasted(account)
        self._auth_token = auth_token
        self._client: BusClient | None = None
        self._session: ClientSession | None = None
        self._waiting = False

    @classmethod
    def any(
        cls,
        *,
        allowed_callers: Iterable[str] | None = None,
        allowed_callees: Iterable[str] | None = None,
        bus: str | None = None,
    ) -> Line:
        """A line on whichever number of the pool (``TRUNKLINE_NUMBERS``) is free."""
        return cls(
            ANY_NUMBER, allowed_callers=allowed_callers, allowed_callees=allowed_callees, bus=bus
        )

    def __repr__(self) -> str:
        return f"Line({self.number!r}, mode={self.mode!r}, open={self._session is not None})"

    # ------------------------------------------------------------------ opening and closing

    async def open(self) -> Line:
        """Join the stack and begin a session; nothing at the carrier is changed yet.

        Errors: StackUnavailableError (no controller for 10 s), NumberNotFoundError, CarrierError,
        AccountMismatchError, SettingsError. An open line stays as it is.
        """
        if self._session is not None:
            return self
        self.number = self._asked_number
        self.pending_restores = []
        self.webhooks = self.webhooks_rejected = 0
        await self._join(self._bus)
        self.mode = "idle"
        return self

    async def _join(self, bus: str | None) -> tuple[BusClient, ClientSession]:
        """Begin a session at this bus and, once that has succeeded, leave the present one. If there
        is one, the number stays the same. WrongModeError where the line is closed meanwhile."""
        was_open = self._session is not None
        found = settings.load(bus=bus, auth_token=self._auth_token)
        client = await acquire_in_thread(lambda: _client(found.address, lambda: found.client_curve))
        try:
            await client.welcome(UNAVAILABLE_AFTER)
            session = await client.open_session(self._info())
        except BaseException:
            await asyncio.shield(client.release())
            raise
        assert session.opened is not None
        session.taped = self._report
        if was_open and self._session is None:
            await asyncio.shield(self._leave(client, session))
            raise WrongModeError("the line was closed meanwhile")
        before = self._client, self._session
        self._client, self._session = client, session
        self.number = session.opened.number
        self.number_sid = session.opened.number_sid
        self.account = session.opened.account
        self.public_url = session.opened.public_url
        if before[0] is not None and before[1] is not None:
            await asyncio.shield(self._leave(before[0], before[1]))
        return client, session

    def _info(self) -> SessionInfo:
        """A new session of this line's."""
        return SessionInfo(
            session=secrets.token_hex(16),
            secret=secrets.token_hex(16),
            number=self.number,
            account=self._account,
            allowed_callers=_sorted(self.allowed_callers),
            allowed_callees=_sorted(self.allowed_callees),
            test=printable(_test())[:LONGEST_TEST_NAME],
        )

    async def allow(self, callers: set[str] | None, callees: set[str] | None) -> None:
        """Let these callers in, and dial these callees, from now on. If they are others than
        before, a new session takes the number over, and the calls of the present one are hung
        up."""
        client, session = self._opened()
        self.allowed_callers, self.allowed_callees = callers, callees
        wanted = self._info()
        lists = (session.info.allowed_callers, session.info.allowed_callees)
        if (wanted.allowed_callers, wanted.allowed_callees) != lists:
            await self._join(client.address.text)

    async def close(self) -> None:
        """Hang up, put the number back, leave the stack. A closed line may be opened again.

        A number that could not be put back yet is in ``pending_restores`` and is logged. The
        controller keeps trying.
        """
        client, session = self._client, self._session
        self._client = self._session = None
        self.mode = "idle"
        if client is None or session is None:
            return
        await asyncio.shield(self._leave(client, session))

    async def _leave(self, client: BusClient, session: ClientSession) -> None:
        try:
            await client.run(session.close())
            pending = session.pending_restores
            self.pending_restores += [n for n in pending if n not in self.pending_restores]
        finally:
            self.webhooks += session.webhooks
            self.webhooks_rejected += session.webhooks_rejected
            await client.release()

    async def __aenter__(self) -> Line:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ------------------------------------------------------------------ calls

    async def wait_for_call(
        self,
        timeout: float = 120.0,
        *,
        callee_speaks_first: bool = False,
        greeting_timeout: float = GREETING_TIMEOUT,
    ) -> Call:
        """Wait until someone calls the number and the call's stream is up.

        ``callee_speaks_first``, ``greeting_timeout``: as for ``place_call``; the far end is the
        caller here. May be repeated for the next call. Raises asyncio.TimeoutError when
        nobody calls within ``timeout`` seconds, ValueError (timeout, greeting_timeout),
        NumberBusyError, NumberRoutedElsewhereError, CarrierError, StackUnavailableError,
        LimitReachedError (a cap of this run of pytest's), WrongModeError (not open, already
        calling, or already waiting for a call). Cancelled during the greeting: the call is hung up.
        """
        client, session = self._opened()
        check_seconds(timeout)
        check_greeting(greeting_timeout)
        self._enter("answer")
        if self._waiting:
            raise WrongModeError(f"{self!r} is already waiting for a call")
        self._waiting = True
        try:
            # Nobody knows how long somebody else's call will last, so count it as one started
            # minute.
            with meter(60.0, False) as came_up:
                call = await self._called(client, session, timeout)
                came_up(call)
            if callee_speaks_first:
                await _greet(call, greeting_timeout)
            return call
        finally:
            self._waiting = False

    async def _called(self, client: BusClient, session: ClientSession, timeout: float) -> Call:
        """Wait for a call, at the stack that has the number. If that is another machine's stack,
        the line goes there, because a stack may share a number among lines that let in different
        callers."""
        began = monotonic()
        try:
            return await self._wait_for_call(client, session, timeout)
        except NumberBusyError as busy:
            if busy.bus is None:
                raise
            log.info("%r goes to the stack that has its number, at %s", self, busy.bus)
            try:
                client, session = await self._join(busy.bus)
            except StackUnavailableError as error:
                raise busy from error
        return await self._wait_for_call(client, session, max(1.0, timeout + began - monotonic()))

    async def _wait_for_call(
        self, client: BusClient, session: ClientSession, timeout: float
    ) -> Call:
        began = monotonic()
        session.missed.forget()
        try:
            await client.run(session.arm(max(timeout, ARM_WITHIN), trace_carrier()))
            arming = monotonic() - began
            box = session.incoming
            await box.bell.wait_until(box.ready, timeout)
            media = box.take()
        except asyncio.CancelledError:
            client.post_unheard(session.disarm())
            raise
        if media is not None:
            return _came_up(Call(client, session, media))
        if session.lost is not None:
            raise session.lost
        await client.run(session.disarm())
        meanwhile = str(session.missed)
        raise TimeoutError(
            f"nobody called {redact_number(self.number)} within {timeout:g} s after it was armed, "
            f"which took {arming:.1f} s" + (f"; {meanwhile}" if meanwhile else "")
        )

    async def place_call(
        self,
        to: str,
        *,
        timeout: float = 120.0,
        attach_stream: Literal["a-leg", "b-leg"] | None = None,
        attach_stream_to_self: bool | None = None,
        max_call_duration_seconds: int | None = None,
        callee_speaks_first: bool = False,
        greeting_timeout: float = GREETING_TIMEOUT,
        machine_detection: Literal["Enable", "DetectMessageEnd"] | None = None,
    ) -> Call:
        """Call ``to`` (E.164) and wait until the call's stream is up, ``timeout`` seconds from
        when the carrier was asked. A b-leg call waits its turn where another one is being set up
        on the same number, for as long as ``timeout`` too.

        ``attach_stream``: "b-leg" (or None) for a number of this account: its own leg carries the
        stream; "a-leg" for any number in ``allowed_callees``: our leg does.
        ``attach_stream_to_self=False`` dials only: a call without sound.
        ``max_call_duration_seconds``: 1 to 300, a-leg only.
        ``callee_speaks_first``: return once the far end has greeted and is silent again, 30 s of
        greeting at most; ``call.greeting`` has its sound, and ``recv_audio`` begins behind it.
        Where nobody speaks within ``greeting_timeout`` seconds of the stream's start the greeting
        is None, and a warning says so.
        ``machine_detection``: Twilio finds out who answers, in the background, and bills that apart
        (a-leg only). ``call.answered_by`` has it once it is known. "Enable" tells of a machine at
        once, "DetectMessageEnd" when its greeting is over.

        Raises ValueError (number, mode, allow-list, duration, timeout, greeting: nothing is
        dialled), LimitReachedError (a cap of the stack's, or of this run of pytest's: nothing is
        dialled), CallFailedError (busy, no-answer, failed, canceled), asyncio.TimeoutError,
        CarrierError, StackUnavailableError, WrongModeError (not open, or already answering); in
        b-leg mode also NumberBusyError and NumberRoutedElsewhereError, for the callee's number.
        Cancelled: the call is hung up.
        """
        self._opened()
        self.check_mode("call")
        plan = plan_dial(
            to,
            attach_stream=attach_stream,
            attach_stream_to_self=attach_stream_to_self,
            max_call_duration_seconds=max_call_duration_seconds,
            allowed_callees=self.allowed_callees,
            owner="Line",
            machine_detection=machine_detection,
        )
        check_greeting(greeting_timeout, wanted=callee_speaks_first, mode=plan.mode)
        call = await self.dial(plan, timeout)
        if callee_speaks_first:
            await _greet(call, greeting_timeout)
        return call

    @asynccontextmanager
    async def listen(
        self, call_sid: str, theirs: Theirs = "outbound", *, timeout: float = 30.0
    ) -> AsyncIterator[Tap]:
        """Listen to a call of the account that exists already, whoever has placed it::

            async with line.listen(call_sid, theirs="outbound") as tap:
                async for at, ours, theirs in tap: ...
            print(tap.report())

        ``theirs``: which track of the call is the agent under test. Twilio calls *inbound* what it
        hears from the other end of that leg, and *outbound* what it plays to it. Nothing is said
        into the call, and the end of the block stops listening and not the call. A line may listen
        to many calls at once, and answer or call meanwhile.

        Raises ValueError (call_sid, theirs, timeout), CarrierError (there is no such call, or it is
        not up), asyncio.TimeoutError when its stream has not come within ``timeout`` seconds (the
        stack gives up after 15), StackUnavailableError, WrongModeError (not open; or the call ends
        meanwhile).
        """
        client, session = self._opened()
        check_listening(call_sid, theirs)
        check_seconds(timeout)
        tap = await Tap.open(client, session, call_sid, theirs, timeout)
        for follow in followers:
            follow(tap)
        try:
            yield tap
        finally:
            await asyncio.shield(tap.close())

    def check_mode(self, mode: Mode, owner: str = "Line", what: str = "line") -> None:
        """WrongModeError where the line has been used in the other direction. ``owner`` is the
        class that the user knows, and ``what`` the user's word for one of it."""
        check_direction(mode, self.mode, what, owner)

    async def dial(self, plan: DialPlan, timeout: float) -> Call:
        """Place a call whose checks have been made (``place_call`` makes them), except that of
        ``timeout``."""
        client, session = self._opened()
        check_seconds(timeout)
        if not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout!r}.")
        self._enter("call")
        request = secrets.token_hex(16)
        with meter(plan.max_duration, True) as came_up:
            try:
                media: CallMedia = await client.run(
                    session.dial(plan, request, timeout, trace_carrier())
                )
            except asyncio.CancelledError:
                # Cancel the dial even if the call came up just as its caller went away.
                client.post_unheard(session.cancel_dial(request))
                raise
            detects = plan.machine_detection is not None
            call = _came_up(Call(client, session, media, detects_machines=detects))
            came_up(call)
        return call

    # ------------------------------------------------------------------ inside

    def _opened(self) -> tuple[BusClient, ClientSession]:
        if self._client is None or self._session is None:
            raise WrongModeError("Line: not connected; use `async with Line(...)` or open().")
        if self._session.lost is not None:
            raise self._session.lost
        return self._client, self._session

    def _enter(self, mode: Mode) -> None:
        self.check_mode(mode)
        self.mode = mode


def _came_up(call: Call) -> Call:
    for follow in followers:
        follow(call)
    return call


async def _greet(call: Call, timeout: float) -> None:
    try:
        await greet(call, timeout, log)
    except BaseException:
        call.abandon()
        raise


def _test() -> str:
    """The name of the test that runs, if pytest runs one. pytest says "NAME (call)"."""
    return os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]


def _sorted(numbers: set[str] | None) -> list[str] | None:
    return None if numbers is None else sorted(numbers)
