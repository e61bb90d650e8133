"""The controller's state machine, without I/O: messages and results in, instructions out.

:data:`HEARS` is the one table of who hears what. An event (a peer's message, a result of an
operation, a tick) is heard by its row of rules, in that order. A rule tells the others a fact,
which has a row too. :meth:`Core.handle` goes on until nothing is left to be heard: everything that
a fact leads to is over before the next rule of a row hears anything.

Order inside a row is a promise. Where a session closes, for example, numbers come first::

    SessionClosing: (numbers.let_go, dials.session_closes, calls.session_closes, sessions.closes)

``now`` is the monotonic clock's reading, given with every event; nothing here reads a clock, a
socket or a file.

A whole walk, as an example. A webhook comes for a call that lost its stream when a gateway died::

    m.VoiceWebhook      legs.named              no dial in its URL: nothing
                        webhooks.answer         knows the CallSid: StreamReplaced, then LetIn
      StreamReplaced    streams.replaced        the call is reconnecting: StreamLost
        StreamLost      digits.stream_lost      no digits are on their way: Reconnecting
          Reconnecting  sessions.reconnecting   the client is told
      LetIn             webhooks.let_in         answers with a token for the next stream

The last line is right only because facts are heard depth first. If digits were on their way,
StreamLost would have led to a one-way stream that carries the call, and the same token would be
made for another state.

A rule that raises ends the handling of its event: its own facts are not heard, and the changes of
earlier rules stay. If one peer's request is to blame, it is refused by name, and so is a peer whose
Hello cannot be taken in. Both are sent again, so otherwise one of them would end this controller,
and then the next one. Any other exception is a fault of ours. It leaves :meth:`Core.handle`, and
the shell ends the controller, because half of a change cannot be trusted. That holds for a Beat as
well, though another one comes: a gateway's has us look at all of its calls, so what the rules
stumble over is our book, and the next controller has a fresh one. To refuse a gateway would end its
calls.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from trunkline.bus import messages as m
from trunkline.bus.errors import (
    ErrorInfo,
    InternalError,
    InvalidRequestError,
    StackUnavailableError,
    TimedOutError,
    TrunklineError,
)
from trunkline.bus.twilio_urls import STACK_FIELD

from . import events as ev
from . import status
from .events import Result
from .instructions import Instruction, ReplyTo
from .journal.rows import DialRow, ListeningRow, OverrideRow
from .rules import (
    asking,
    calls,
    dials,
    digits,
    legs,
    listening,
    numbers,
    reception,
    restart,
    sessions,
    streams,
    turns,
    webhooks,
)
from .rules import facts as f
from .rules.book import Book, Identity, Rules
from .rules.book.peers import MOST_WAITING
from .rules.moment import Moment
from .timeline import Timeline

log = logging.getLogger("trunkline.controller")

#: Seconds between two ticks, and between two while the book is at rest (``Book.at_rest``): then
#: there is nothing that time alone would change.
TICK_SECONDS: Final = 0.1
REST_SECONDS: Final = 0.5

_BY_ANYBODY: Final = (m.GetStatus, m.GetConsole)
_ONLY_GATEWAYS: Final = (m.VoiceWebhook, m.StatusCallback, m.StreamStart)
#: Requests that are served while the stack ends: they help it to come to its end.
_WHILE_STOPPING: Final = (*_ONLY_GATEWAYS, m.CloseSession, *_BY_ANYBODY)

Rule = Callable[[Moment, Any], None]
Event = m.ToController
AnyEvent = (
    Event | Result | ev.Tick | ev.ConnectionLost | ev.FleetSeen | ev.Shutdown | ev.Look | ev.ByHand
)


def _status(at: Moment, ask: f.Ask[m.GetStatus]) -> None:
    """Anybody may ask who holds what, whichever role it has, also while the stack ends."""
    at.reply(ask.reply_to, m.StatusReport(status=status.build(at.book, at.now)))


def _console(at: Moment, ask: f.Ask[m.GetConsole]) -> None:
    """Whoever reaches the bus may act, and so may the page that gets this token from them."""
    url, token = at.book.console, at.book.console_token
    if url is None:
        raise StackUnavailableError("the console does not listen yet")
    at.reply(ask.reply_to, m.ConsoleLink(url=url, token=token))


#: Who hears what, first to last. Where the order matters, the reason stands beside it.
HEARS: Final[dict[type, tuple[Rule, ...]]] = {
    # The clock, and peers that come and go. Whoever was unheard because we stood still is excused
    # before anybody is lost for it. Whoever waited too long for a number out of the pool is refused
    # before the next one is served. Sessions come before calls, so that numbers come first.
    ev.Tick: (
        reception.tick,
        numbers.pool_overdue,
        numbers.serve_pool,
        sessions.tick,
        numbers.held_up,
        turns.give,
        asking.serve,
        dials.watch,
        calls.tick,
        streams.watch,
        streams.place_all,
        digits.tick,
        listening.tick,
        webhooks.ask_again,
        reception.claims,
        reception.tell_gateways,
    ),
    ev.ConnectionLost: (reception.connection_lost,),
    ev.FleetSeen: (reception.fleet_seen,),
    ev.Shutdown: (reception.shut_down,),
    # The console: whoever looks at it is shown sound by the gateways, and may act on a call.
    ev.Look: (reception.look,),
    m.Levels: (reception.show,),
    m.CallSound: (reception.show,),
    ev.ByHand: (calls.by_hand,),
    m.Hello: (reception.hello,),
    m.Beat: (reception.beat,),
    m.Goodbye: (reception.goodbye,),
    m.CallHeard: (reception.call_heard,),
    # A gateway and a worker are welcomed before what they have is looked at, because they wait for
    # it. A client is welcomed behind that: its Welcome says which of its sessions it has not.
    f.ClientHere: (restart.client_here,),
    f.GatewayHere: (reception.welcome, restart.gateway_here),
    f.WorkerHere: (reception.welcome, streams.place_all, reception.tell_gateways),
    f.ClientBeat: (sessions.renew,),
    f.GatewayBeat: (streams.beat,),
    f.ClientLeft: (sessions.peer_left,),
    f.WorkerLeft: (streams.place_all,),
    f.AllClosing: (sessions.close_all, calls.leave_no_leg),
    # A restart. A session's calls come before its dials, because a dial whose call was heard is not
    # given up. Webhooks that wait are answered behind all sessions of the client, because the calls
    # of the last one may say whose the webhook is. When the claims are over, unclaimed numbers are
    # put back before unclaimed calls are hung up: numbers first.
    f.Found: (restart.recover, listening.found),
    f.SessionBack: (restart.session_calls, restart.session_dials),
    f.Announced: (reception.welcome, restart.tell_again, webhooks.ask_again),
    f.StreamFound: (restart.stream_found,),
    f.ClaimsOver: (
        restart.unclaimed_numbers,
        restart.unclaimed_dials,
        restart.unclaimed_calls,
        listening.unclaimed,
    ),
    # Sessions. Numbers are put back first, because the process may be killed in the middle. Dials
    # are given up before calls are hung up, so that none of them leads to a new call meanwhile.
    m.OpenSession: (sessions.open_,),
    m.Arm: (sessions.arm,),
    m.Disarm: (sessions.disarm,),
    m.CloseSession: (sessions.close_asked,),
    m.GetStatus: (_status,),
    m.GetConsole: (_console,),
    f.SessionLost: (sessions.lose,),
    f.SessionClosing: (
        numbers.let_go,
        dials.session_closes,
        calls.session_closes,
        sessions.closes,
    ),
    # Numbers. A number that is back goes to whoever waits for that very number, then to sessions
    # that close. If it is still free then, it goes to the pool.
    f.Sought: (numbers.seek,),
    ev.LookedUp: (numbers.found,),
    ev.LookUpFailed: (numbers.not_looked_up,),
    f.NumberFound: (sessions.number_found, dials.number_found),
    f.NumberMissing: (sessions.number_missing, dials.number_missing),
    ev.NumbersListed: (numbers.listed, numbers.serve_pool),
    f.PoolWanted: (numbers.pool_wanted, numbers.serve_pool),
    f.Wanted: (numbers.wanted,),
    f.Granted: (sessions.granted, dials.granted),
    f.Refused: (sessions.refused, dials.refused),
    ev.Applied: (numbers.applied,),
    ev.ApplyFailed: (numbers.apply_failed,),
    ev.Restored: (numbers.restored, numbers.serve_pool),
    f.NumberBack: (sessions.number_back,),
    # Dials. A leg's end is its call's end before it is its dial's, because the call has the reason.
    # Twilio's callback is answered when everything that it has led to is done.
    m.Dial: (dials.dial,),
    m.CancelDial: (dials.cancel,),
    f.TurnWanted: (turns.wait,),
    f.TurnCome: (asking.enqueue,),
    f.PlacesDue: (asking.tell_places, turns.tell_places),
    ev.AskedTwilio: (asking.asked_twilio,),
    ev.Taken: (legs.taken,),
    ev.Unsure: (dials.unsure,),
    ev.CreateFailed: (dials.not_created,),
    ev.NotFound: (dials.not_found,),
    m.StatusCallback: (legs.status_callback, legs.callback_done),
    f.SidShown: (legs.sid_shown,),
    f.SidKnown: (calls.dialled,),
    f.SidWrong: (calls.not_dialled,),
    f.LegStatus: (dials.leg_status,),
    f.Looked: (dials.looked,),
    f.Answered: (calls.answered,),
    f.AnsweredByKnown: (calls.answered_by,),
    f.LegOver: (calls.dial_over, dials.leg_over),
    f.DialOver: (calls.dial_over,),
    f.GivenUp: (dials.given_up,),
    f.NoCall: (dials.no_call,),
    f.Stray: (calls.hang_up_stray,),
    # Calls. A webhook that names its dial first shows our leg's SID, and is answered after that,
    # because the call is looked up by this SID. REST's word on a call is noted before the webhooks
    # that wait for that word are answered. When a call ends, the rules of digits hear of it first,
    # because whoever sends digits waits for an answer. The session looks last whether it is over,
    # after the legs are settled, because a leg that is still to be hung up counts as pending.
    m.VoiceWebhook: (legs.named, webhooks.answer),
    m.WebhooksRefused: (webhooks.refused,),
    ev.Vouched: (webhooks.vouched, webhooks.ask_again),
    f.LetIn: (webhooks.let_in,),
    m.HangUp: (calls.hang_up_asked,),
    f.HangUp: (calls.hang_up,),
    ev.EndTaken: (calls.ended, listening.ended),
    ev.EndFailed: (calls.end_failed,),
    ev.Fetched: (calls.fetched,),
    f.CallEnding: (digits.call_ends, listening.ends),
    f.Finished: (calls.finished,),
    f.CallOver: (
        digits.call_ends,
        listening.ends,
        listening.over,
        webhooks.over,
        streams.forget,
        sessions.call_over,
        calls.settle_legs,
        sessions.call_settled,
    ),
    f.LegsHungUp: (dials.leg_over, sessions.call_settled),
    f.CallMissed: (webhooks.missed,),
    # Streams. The dial has its call before the client hears of it. The gateway is answered last,
    # and one-way streams that wait have their turn behind that answer, which names the stream.
    m.StreamStart: (streams.start, digits.settle),
    f.StreamShown: (digits.stream_shown, streams.accept),
    f.StreamUp: (
        dials.stream_up,
        sessions.call_up,
        digits.stream_up,
        listening.stream_up,
        streams.accepted,
    ),
    m.StreamClosed: (streams.closed,),
    m.CallMoved: (streams.moved,),
    f.StreamReplaced: (streams.replaced,),
    f.StreamLost: (digits.stream_lost,),
    f.Reconnecting: (sessions.reconnecting,),
    # Listening in: rules.listening tells the whole way.
    m.Listen: (listening.ask,),
    ev.ListeningAsked: (listening.asked,),
    # Digits: rules.digits tells the whole way.
    m.SendDigits: (digits.ask,),
    ev.Instructed: (digits.instructed,),
    ev.StreamAsked: (digits.stream_asked,),
    ev.DigitsSent: (digits.sent,),
    f.ListenerShown: (digits.hears,),
    f.ListenerTaken: (streams.turn,),
    f.ListenerReplaced: (digits.close_later,),
}


class Core:
    """The state of one stack, and its rules. ``overrides``, ``dials``, ``listening``: the open rows
    of the journal at start, and the dials that were closed within a day. ``orphans``: overrides of
    other stacks' journals whose stacks are gone. ``seen``: the CallSids that were heard lately,
    each with when that was (Unix time)."""

    def __init__(
        self,
        identity: Identity,
        rules: Rules,
        overrides: Sequence[OverrideRow] = (),
        dials: Sequence[DialRow] = (),
        orphans: Sequence[OverrideRow] = (),
        seen: Sequence[tuple[str, float]] = (),
        listening: Sequence[ListeningRow] = (),
    ) -> None:
        self.book = Book(identity, rules, seen)
        self.timeline = Timeline(identity.epoch)
        self._instructions: list[Instruction] = []
        found = f.Found(overrides, dials, orphans, listening)
        self._hear(found, self._moment(identity.started))
        # The instructions of the recovery leave with those of the first event.

    def handle(self, event: AnyEvent, now: float) -> list[Instruction]:
        """Take one event; returns what is to be done, in this order. After an exception the core
        must not be used any more."""
        if isinstance(event, m.Request):
            self._request(event, now)
        elif isinstance(event, m.Hello):
            self._hello(event, now)
        elif isinstance(event, m.GatewayNotification) and not self._is_gateway(event.gateway):
            self.book.count("not a gateway")
        else:
            self._hear(event, self._moment(now))
        instructions, self._instructions = self._instructions, []
        return instructions

    def _is_gateway(self, peer: str) -> bool:
        known = self.book.peers.get(peer)
        return known is not None and known.role == "gateway"

    def _moment(self, now: float) -> Moment:
        """The first argument of every rule: the book, the time, and where to put facts and
        instructions."""
        return Moment(self.book, now, self._instructions)

    def _hear(self, heard: object, at: Moment) -> None:
        """The timeline notes an event or a fact, and then its rules hear it. What a rule tells is
        heard by all whom it concerns before the next rule hears anything. KeyError: it has no row,
        which a test forbids for all that may come."""
        rules = HEARS[type(heard.body) if isinstance(heard, f.Ask) else type(heard)]
        self.timeline.hear(heard, self.book, at.now)
        for rule in rules:
            rule(at, heard)
            for fact in at.take_told():
                self._hear(fact, at)

    # ------------------------------------------------------------------ requests

    def _request(self, request: m.Request, now: float) -> None:
        """A request is answered once. If a rule raises, the request is refused by name. The changes
        that were made until then stay."""
        at = self._moment(now)
        peer = self.book.peers.get(request.peer)
        if peer is None:
            # It has to say Hello first; it asks again then.
            at.send(request.peer, reception.pulse(self.book, known=False))
            return
        known = peer.answers.get(request.id)
        if known is not None:
            at.send(request.peer, known)
            return
        if request.id in peer.working:
            return
        reply_to = ReplyTo(request.peer, request.id)
        if len(peer.working) >= MOST_WAITING:
            at.fail(reply_to, StackUnavailableError(f"{MOST_WAITING} requests wait already"))
            return
        peer.works_on(request.id)
        at.count(f"request {type(request.body).__name__}")
        try:
            self._admit(request, peer.role)
            self._hear(f.Ask(reply_to, request.body, request.ttl, request.trace), at)
        except TrunklineError as error:
            at.fail(reply_to, error)
        except Exception as error:
            log.exception("a %s could not be handled", type(request.body).__name__)
            at.fail(reply_to, self._blamed(error))

    def _hello(self, hello: m.Hello, now: float) -> None:
        """A peer whose Hello cannot be taken in is refused: it would send it to the next controller
        too."""
        at = self._moment(now)
        try:
            self._hear(hello, at)
        except Exception as error:
            log.exception("the Hello of %s could not be handled", hello.peer)
            at.send(hello.peer, m.Refused(error=ErrorInfo.of(self._blamed(error))))

    def _blamed(self, error: Exception) -> TrunklineError:
        """The error that a peer gets when a rule failed in a way that nobody foresaw. The log has
        the whole of it."""
        self.book.count("internal errors")
        return InternalError(f"unexpected {type(error).__name__}")

    def _admit(self, request: m.Request, role: m.Role) -> None:
        """A TrunklineError if the request comes too late, from the wrong kind of peer, for another
        stack of the fleet, or while we stop.

        A gateway that does not know the fleet yet asks us for any stack. We have nothing of the
        other one's calls, and would say so as if they were over. Twilio asks again, and by then the
        gateway knows better."""
        body = request.body
        if request.ttl <= 0:
            raise TimedOutError(f"{type(body).__name__} came after its time was over")
        if not request.ttl <= m.LONGEST_WAIT:
            raise InvalidRequestError(f"ttl={request.ttl:g} is not within {m.LONGEST_WAIT} s")
        theirs = isinstance(body, _ONLY_GATEWAYS)
        if not isinstance(body, _BY_ANYBODY) and theirs != (role == "gateway"):
            raise InvalidRequestError(f"a {role} cannot ask for {type(body).__name__}")
        if isinstance(body, m.VoiceWebhook | m.StatusCallback):
            stack = body.query.get(STACK_FIELD, "")
            bus = None if stack == self.book.identity.stack else self.book.bus_of(stack)
            if bus is not None:
                raise StackUnavailableError(f"stack {stack} is at {bus}")
        if self.book.stopping and not isinstance(body, _WHILE_STOPPING):
            raise StackUnavailableError("the stack is being shut down")
