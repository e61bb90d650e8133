"""The book: everything that the rules know, with its indices. Whatever affects a rule stands here.

A rule reads what it likes. It writes by the methods of the entities (:mod:`.session`,
:mod:`.lease`, :mod:`.dial`, :mod:`.call`, :mod:`.digits`) and of the book, so that each field has
one place where it changes: ``make lint`` refuses an assignment from elsewhere. For example, a call
forgets its gateway in ``Call.stream_lost`` and nowhere else, together with everything that a call
without a stream must forget.

Indices are part of the book. A call is found by its id, and by the CallSid of each of its legs,
which become known one after the other, or turn out to be another call's. ``know`` and ``unknow``
keep them, so that no webhook is ever answered for a call that its leg does not belong to.
"""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.callers import caller_key
from trunkline.bus.errors import WrongModeError
from trunkline.bus.refusals import KINDS
from trunkline.bus.twilio_urls import STACK_FIELD

from ...instructions import ReplyTo
from ...usage import Caps, Usage
from .call import Call
from .dial import OPEN, Dial
from .digits import DigitRows
from .groups import Groups, Rounds
from .lease import Lease
from .lookups import LookUps
from .measures import Measures
from .peers import GATEWAY_LOST_AFTER, Peer, Peers
from .pool import Pool
from .queues import DialQueue, TurnQueues
from .seen import Seen
from .session import Session
from .tokens import Tokens
from .workers import Workers

#: For how long after its start a controller waits for sessions to announce themselves again.
CLAIM_SECONDS: Final = 9.0
#: Sessions that are over and are remembered, at most.
ENDED_KEPT: Final = 10_000
#: Clients hear of changed places in a queue at most this often.
TELL_PLACES_EVERY: Final = 1.0


@dataclass(frozen=True)
class Identity:
    """Who this controller is. ``started_wall``, ``started``: Unix time and the monotonic clock."""

    stack: str
    epoch: int
    pid: int
    account: str
    public_url: str = field(repr=False)
    started_wall: float
    started: float
    #: it is one of a fleet, so URLs and tokens name the stack
    fleet: bool = False
    #: the directory where its calls are recorded, as an absolute path
    recordings_dir: str | None = None
    #: base URL of the stand-in carrier's REST; None: the carrier is Twilio
    stand_in: str | None = field(default=None, repr=False)

    @property
    def query(self) -> dict[str, str]:
        """What URLs of ours say of the stack."""
        return {STACK_FIELD: self.stack} if self.fleet else {}


@dataclass(frozen=True)
class Rules:
    """Settings that the rules need. ``pool``: numbers for sessions on "any"; empty: all of the
    account. ``callers``, ``callees``: who may call and be called, whatever a client allows; None:
    the client alone says."""

    lead_ms: int = 60
    calls_per_second: float = 1.0
    pool: tuple[str, ...] = ()
    callers: tuple[str, ...] | None = None
    callees: tuple[str, ...] | None = None
    caps: Caps = field(default_factory=Caps)


class Book:
    """The state of one stack, without I/O. ``seen``: CallSids of the journal, each with when it was
    heard first (Unix time)."""

    def __init__(
        self, identity: Identity, rules: Rules, seen: Iterable[tuple[str, float]] = ()
    ) -> None:
        self.identity = identity
        self.rules = rules
        callers = rules.callers
        self._callers = None if callers is None else frozenset(map(caller_key, callers))
        self.peers = Peers()
        self.workers = Workers(identity.epoch, self.peers)
        self.sessions: dict[str, Session] = {}
        #: sessions that ended in this epoch, with their tests: they do not come back
        self.ended: dict[str, str] = {}
        #: by number
        self.leases: dict[str, Lease] = {}
        #: by override: leases that are put back while another lease has their number, because a
        #: journal had two overrides of it
        self.aside: dict[str, Lease] = {}
        self.look_ups = LookUps()
        self.pool = Pool(rules.pool)
        #: by request id: the open ones, and those that were closed lately (forget_dials)
        self.dials: dict[str, Dial] = {}
        #: those whose call is neither up nor over, and perhaps some that were so a moment ago
        self._coming: dict[str, Dial] = {}
        #: those whose SID is a guess, and perhaps some whose SID was one
        self._guesses: dict[str, Dial] = {}
        self._dials_of: Groups[Dial] = Groups()
        self.queue = DialQueue(rules.calls_per_second)
        self.usage = Usage(rules.caps)
        self.turns = TurnQueues()
        self.calls: dict[str, Call] = {}
        #: what a tick looks at of the calls, and of the sessions
        self.call_rounds = Rounds(self.calls)
        self.session_rounds = Rounds(self.sessions)
        self._calls_of: Groups[Call] = Groups()
        #: by gateway, as it was when this was first asked for in this round of all calls
        self._streams_of: dict[str | None, list[Call]] | None = None
        #: by the CallSid of each of their legs
        self.by_sid: dict[str, Call] = {}
        # A webhook that came while no controller was there was answered by its gateway, and noted
        # by nobody. So all are known since this start, and some from before.
        self.seen = Seen(((sid, self.mono(wall)) for sid, wall in seen), identity.started)
        self.tokens = Tokens(identity.stack if identity.fleet else None)
        self._held_webhooks: list[tuple[ReplyTo, m.VoiceWebhook, float]] = []
        self.digits = DigitRows()
        #: things that happened, for /metrics: requests by name, refusals, calls by direction, …
        self.counts: Counter[str] = Counter()
        self.measures = Measures()
        #: how much all gateways have refused, by kind
        self.refused: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
        #: the controllers that share our database and public URL, this one too
        self.fleet: list[m.ControllerRef] = []
        #: URL of the local console, once it listens
        self.console: str | None = None
        #: lets a page of the console act
        self.console_token = secrets.token_urlsafe(32)
        self.claim_until = identity.started + CLAIM_SECONDS
        self.claiming = True
        self.stopping = False
        self._last_tick = identity.started
        self._workers_told = 0
        self._places_sent_at = float("-inf")
        self._closed_dials: deque[tuple[float, str]] = deque()

    def console_at(self, url: str) -> None:
        """The console listens there."""
        self.console = url

    def set_fleet(self, controllers: list[m.ControllerRef]) -> bool:
        """These are the controllers of the fleet. True: they were others before."""
        was, self.fleet = self.fleet, controllers
        return was != controllers

    def bus_of(self, stack: str) -> str | None:
        """The address of the bus at which this stack of the fleet is served; None: the stack is
        over, or is not of our fleet."""
        return next((each.bus for each in self.fleet if each.stack == stack), None)

    def count(self, what: str) -> None:
        """One more of these."""
        self.counts[what] += 1

    def count_refused(self, refused: dict[str, int]) -> None:
        """So much more was refused, by kind."""
        self.refused.update(refused)

    def hold(self, reply_to: ReplyTo, webhook: m.VoiceWebhook, until: float) -> None:
        """A voice webhook waits for a client to announce itself, until then at most."""
        self._held_webhooks.append((reply_to, webhook, until))

    def take_held(self) -> list[tuple[ReplyTo, m.VoiceWebhook, float]]:
        """The webhooks that wait; they wait no longer."""
        held = self._held_webhooks.copy()
        self._held_webhooks.clear()
        return held

    # ------------------------------------------------------------------ time

    def wall(self, now: float) -> float:
        """Unix time: for the journal, which another process reads after a restart."""
        return self.identity.started_wall + now - self.identity.started

    def mono(self, wall: float) -> float:
        """The monotonic clock's reading at that Unix time, which may lie before our start."""
        return self.identity.started + wall - self.identity.started_wall

    def tick(self, now: float) -> float:
        """Time passes; returns the seconds since the last tick."""
        gap, self._last_tick = now - self._last_tick, now
        self.session_rounds.step()
        if self.call_rounds.step():
            self._streams_of = None
            self.workers.look_again()
        return gap

    def excuse(self, seconds: float) -> None:
        """The controller itself did not run for this long: nobody is late because of it."""
        self.peers.excuse(seconds)
        for session in self.sessions.values():
            session.excuse(seconds)
        self.claim_until += seconds if self.claiming else 0.0

    def places_due(self, now: float) -> bool:
        """It is time to tell those who wait in a queue their places."""
        due = now - self._places_sent_at >= TELL_PLACES_EVERY
        if due:
            self._places_sent_at = now
        return due

    def end_claims(self) -> bool:
        """No session announces itself any more; False: that was so before."""
        was, self.claiming = self.claiming, False
        return was

    def stop(self) -> None:
        """The stack ends: nobody new is let in."""
        self.stopping = True

    @property
    def busy(self) -> bool:
        """An override of ours is still on a number, or a hang-up is under way. A stack that ends
        waits for both."""
        under_way = any(call.end_under_way for call in self.calls.values())
        return bool(self.leases or self.aside) or under_way

    @property
    def at_rest(self) -> bool:
        """Nobody has a session, a number or a call, and nothing is still to be put back or hung
        up. Time alone then changes nothing but which peers have been silent for too long."""
        return not (self.stopping or self.calls) and self.nothing_left

    @property
    def nothing_left(self) -> bool:
        """No session, number, open dial or live call is left, and none can be claimed any more.
        The book may still keep calls that have ended, for late webhooks. :attr:`at_rest` is true
        only when these are gone too."""
        held = self.claiming or self.sessions or self.leases or self.aside or self.open_dials()
        return not held and not any(c.live or c.end_under_way for c in self.calls.values())

    # ------------------------------------------------------------------ peers

    def workers_told(self, count: int) -> bool:
        """``count`` workers are healthy. True: gateways were last told another number."""
        was, self._workers_told = self._workers_told, count
        return was != count

    def carries_calls(self, peer: str) -> bool:
        """A call has its stream at this gateway, or is placed on this worker."""
        for call in self.calls.values():
            placed = call.placement
            both = () if placed is None else (placed.primary, placed.standby)
            if call.gateway == peer or any(ref is not None and ref.id == peer for ref in both):
                return True
        return False

    def gateways(self) -> list[Peer]:
        """Those that have said Hello and are not forgotten."""
        return [peer for peer in self.peers.by_id.values() if peer.role == "gateway"]

    def present(self, peer: Peer, now: float) -> bool:
        """The peer beats, and has not said Goodbye."""
        return not peer.leaving and now - peer.heard < GATEWAY_LOST_AFTER

    # ------------------------------------------------------------------ sessions

    def add_session(self, session: Session) -> None:
        """From now on its client can ask for it."""
        self.sessions[session.id] = session

    def session_of(self, peer: str, session_id: str) -> Session:
        """The peer's session. WrongModeError where it has none of that id (any more)."""
        session = self.sessions.get(session_id)
        if session is None or session.peer != peer:
            raise WrongModeError(
                f"session {session_id} is not known here: it was closed, or its lease ran out"
            )
        return session

    def test_of(self, session_id: str) -> str:
        """The test that the session serves, or served before it ended. "" where it names none."""
        session = self.sessions.get(session_id)
        return self.ended.get(session_id, "") if session is None else session.test

    def drop_session(self, session: Session) -> None:
        """It never opened."""
        self.sessions.pop(session.id, None)

    def end_session(self, session: Session) -> None:
        """It is over, and does not come back."""
        self.sessions.pop(session.id, None)
        self.ended[session.id] = session.test
        if len(self.ended) > ENDED_KEPT:
            del self.ended[next(iter(self.ended))]

    def unclaimed(self, session: str) -> bool:
        """After a restart: the session may still announce itself, and tell more."""
        return self.claiming and session not in self.sessions

    def admits(self, caller: str) -> bool:
        """The stack lets this caller in, if a session does."""
        return self._callers is None or caller_key(caller) in self._callers

    # ------------------------------------------------------------------ numbers

    def add_lease(self, lease: Lease) -> None:
        """From now on whoever wants the number finds it."""
        self.leases[lease.number] = lease

    def set_aside(self, lease: Lease) -> None:
        """Another override of ours is on its number, so this one can only be put back."""
        self.aside[lease.row.id] = lease

    def lease_of(self, override: str) -> Lease | None:
        """The lease by that override, on its number or set aside."""
        on_numbers = (lease for lease in self.leases.values() if lease.row.id == override)
        return next(on_numbers, self.aside.get(override))

    def drop_lease(self, lease: Lease) -> None:
        """The number is as it was, or somebody else has changed it."""
        if self.leases.get(lease.number) is lease:
            del self.leases[lease.number]
        self.aside.pop(lease.row.id, None)

    def oldest_restore(self, now: float) -> float:
        """For how many seconds the oldest restore has been under way; 0: none is."""
        begun = [x.restoring_since for x in (*self.leases.values(), *self.aside.values())]
        return now - min((since for since in begun if since is not None), default=now)

    def pending(self, session: str) -> list[str]:
        """The numbers that are being put back because the session closes."""
        return [lease.number for lease in self.leases.values() if session in lease.leaving]

    # ------------------------------------------------------------------ dials

    def add_dial(self, dial: Dial, call: Call) -> None:
        """A dial, and the call that it is to become."""
        self._know_dial(dial)
        self._coming[dial.request] = dial
        self.add_call(call)
        self.usage.accept(dial.row)

    def _know_dial(self, dial: Dial) -> None:
        self.dials[dial.request] = dial
        self._dials_of.add(dial.row.session, dial.request, dial)

    def add_closed_dial(self, dial: Dial, now: float) -> None:
        """After a restart: a client may still ask about it."""
        self._know_dial(dial)
        self._closed_dials.append((now, dial.request))

    def close_dial(self, dial: Dial, now: float) -> None:
        """The dial is over. It is kept for a while, so that late callbacks and streams are
        known."""
        self.usage.over(dial.request, dial.row.seconds)
        self._closed_dials.append((now, dial.request))

    def forget_dials(self, before: float) -> None:
        """Forget those that were closed before then."""
        while self._closed_dials and self._closed_dials[0][0] < before:
            dial = self.dials.pop(self._closed_dials.popleft()[1], None)
            if dial is not None:
                self._dials_of.drop(dial.row.session, dial.request)

    def coming(self) -> list[Dial]:
        """The dials whose call is neither up nor over. Those that are up are by far the most."""
        for dial in tuple(self._coming.values()):
            if dial.started or dial.state == "closed":
                del self._coming[dial.request]
        return list(self._coming.values())

    def dials_of(self, session: str) -> Iterator[Dial]:
        """The session's dials, those that are over included."""
        return self._dials_of.of(session)

    def guess(self, dial: Dial) -> None:
        """The dial's SID may be another one's."""
        self._guesses[dial.request] = dial

    def guesses(self) -> list[Dial]:
        """The dials whose SID is a guess."""
        self._guesses = {request: dial for request, dial in self._guesses.items() if dial.guessed}
        return list(self._guesses.values())

    def dial_of(self, call: Call) -> Dial | None:
        """The dial that led to the call."""
        return self.dials.get(call.dial_request or "")

    def dial_with_sid(self, sid: str) -> Dial | None:
        """The dial whose leg this is: for a callback that came without its query."""
        return next((d for d in self.dials.values() if sid and d.sid == sid), None)

    def came_of_a_dial(self, sid: str, *, but: str) -> bool:
        """Another dial of ours than ``but`` has led to the call; it may be over."""
        return any(d.sid == sid and d.request != but for d in self.dials.values())

    def open_dials(self) -> bool:
        """A dial may still lead to a call."""
        return any(dial.state in OPEN for dial in self.dials.values())

    def open_b_legs(self, number: str) -> list[Dial]:
        """The b-leg dials to the number that may still lead to a call. Those that Twilio has taken
        come first."""
        found = [
            dial
            for dial in self.dials.values()
            if dial.row.mode == "b-leg" and dial.row.callee == number and dial.state in OPEN
        ]
        return sorted(found, key=lambda dial: dial.state != "taken")

    def why_no_turn(self, dial: Dial, now: float) -> str:
        """Why the dial's turn on its callee's number has not come, in words."""
        text = "its turn on the callee's number has not come"
        for other in self.coming():
            if other.may_ring and other.row.callee == dial.row.callee:
                return (
                    f"{text}: the call of session {other.row.session} is being set up there "
                    f"({other.known.leg(now)})"
                )
        return text

    # ------------------------------------------------------------------ calls

    def add_call(self, call: Call, *sids: str | None) -> None:
        """A call, known by these legs."""
        self.calls[call.id] = call
        self._calls_of.add(call.session, call.id, call)
        for sid in sids:
            self.know(call, sid)

    def know(self, call: Call, sid: str | None) -> None:
        """This leg is the call's. (A call that is listened to is somebody else's.)"""
        if sid and call.theirs is None:
            self.by_sid[sid] = call

    def unknow(self, call: Call, sid: str | None) -> None:
        """This leg is not the call's any more."""
        if sid is not None and self.by_sid.get(sid) is call:
            del self.by_sid[sid]

    def info(self, call: Call, now: float) -> m.CallInfo:
        """The call, for a gateway: with the test, for its recording, and with the stack to which
        the gateway has to announce it."""
        info = replace(call.info(now), test=self.test_of(call.session))
        return replace(info, stack=self.identity.stack) if self.identity.fleet else info

    def query(self, call: Call) -> dict[str, str]:
        """The query of the redirect back to us: which call it is, and whose."""
        return call.query | self.identity.query

    def forget_call(self, call: Call) -> None:
        """Late webhooks of it are strangers from now on."""
        del self.calls[call.id]
        self._calls_of.drop(call.session, call.id)
        self.unknow(call, call.sid)
        self.unknow(call, call.dialled_sid)

    def call_of(self, reply_to: ReplyTo, session: str, call_id: str) -> Call | None:
        """The session's call, which the peer asks for; None: there is none of that id."""
        self.session_of(reply_to.peer, session)
        call = self.calls.get(call_id)
        return call if call is not None and call.session == session else None

    def calls_of(self, session: str) -> Iterator[Call]:
        """The session's calls, those that are over included."""
        return self._calls_of.of(session)

    def streams_of(self, gateway: str) -> list[Call]:
        """The calls whose stream was at this gateway when somebody first asked in this round of
        all calls (:class:`Rounds`). Each may be elsewhere by now, and those that have come since
        are missing. All gateways beat twice a second, so they share one look at all calls."""
        if self._streams_of is None:
            found: dict[str | None, list[Call]] = defaultdict(list)
            for call in self.calls.values():
                found[call.gateway].append(call)
            self._streams_of = found
        return self._streams_of.get(gateway, [])

    def is_live(self, call: str) -> bool:
        """There is a call of this id, and it has not ended."""
        return call in self.calls and self.calls[call].live

    def has_live_calls(self, session: str) -> bool:
        """Calls of the session that are not over, or whose hang-up REST has not taken."""
        return any(call.live or call.end_under_way for call in self.calls_of(session))

    def may_return(self, call: Call, now: float) -> bool:
        """A document may take the call's stream away now."""
        row = self.digits.of(call.id)
        return (row is not None and row.replaces_stream) or now < call.may_return_until
