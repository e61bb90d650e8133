"""The controller's state machine, without I/O: messages and results in, instructions out.

:class:`Core` holds the peers, the workers and the sets of rules (sessions and leases, dials, calls,
their streams, webhooks) and hands each event to the one that it is for. ``now`` is the monotonic
clock's reading, given with every event; nothing here reads a clock, a socket or a file.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.errors import (
    AccountMismatchError,
    ErrorInfo,
    InvalidRequestError,
    ProtocolMismatchError,
    StackUnavailableError,
    TimedOutError,
    TrunklineError,
    WrongModeError,
)

from . import instructions as do
from . import status
from .calls import CallRules
from .dials import DialRules
from .digits import DigitRules
from .instructions import Asked, Instruction, Result
from .journal import DialRow, OverrideRow
from .peers import GATEWAY_LOST_AFTER, Peer, Peers
from .placement import Workers
from .sessions import SessionRules
from .streams import StreamRules
from .tables import IllegalTransition
from .webhooks import WebhookRules

log = logging.getLogger("trunkline.controller")

TICK_SECONDS: Final = 0.1
#: A longer gap between two ticks is time in which the controller itself did not run.
STALLED_AFTER: Final = 1.0
#: For how long after its start a controller waits for sessions to announce themselves again.
CLAIM_SECONDS: Final = 9.0

_ONLY_GATEWAYS = (m.VoiceWebhook, m.StatusCallback, m.StreamStart)


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


@dataclass(frozen=True)
class Rules:
    """Settings that the state machine needs. ``pool``: numbers for sessions on "any"; empty: all
    of the account."""

    lead_ms: int = 60
    calls_per_second: float = 1.0
    pool: tuple[str, ...] = ()


Event = m.ToController
AnyEvent = Event | Result | do.Tick | do.Shutdown


class Core:
    """The state of one stack. ``overrides``, ``dials``: the open rows of the journal at start;
    ``orphans``: those of other stacks' journals whose stacks are gone."""

    def __init__(
        self,
        identity: Identity,
        rules: Rules,
        overrides: Sequence[OverrideRow] = (),
        dials: Sequence[DialRow] = (),
        orphans: Sequence[OverrideRow] = (),
    ) -> None:
        self.identity = identity
        self.rules = rules
        self.peers = Peers()
        self.workers = Workers(identity.epoch)
        self.claim_until = identity.started + CLAIM_SECONDS
        self.claiming = True
        self.sessions = SessionRules(self)
        self.dials = DialRules(self)
        self.calls = CallRules(self)
        self.streams = StreamRules(self)
        self.digits = DigitRules(self)
        self.webhooks = WebhookRules(self)
        self.stopping = False
        #: URL of the local console, once it listens
        self.console: str | None = None
        #: things that happened, for /metrics: requests by name, refusals, calls by direction, …
        self.counts: Counter[str] = Counter()
        self._out: list[Instruction] = []
        self._last_tick = identity.started
        self.sessions.claims.recover(overrides, orphans)
        self.dials.recover(dials, identity.started)
        # What recovery says to do leaves with the first event.

    # ------------------------------------------------------------------ in and out

    def handle(self, event: AnyEvent, now: float) -> list[Instruction]:
        """Take one event; returns what is to be done, in this order."""
        if isinstance(event, do.Tick):
            self._tick(now)
        elif isinstance(event, m.Request):
            self._request(event, now)
        elif isinstance(event, m.Beat):
            self._beat(event, now)
        elif isinstance(event, m.Hello):
            self._hello(event, now)
        elif isinstance(event, m.Goodbye):
            self._goodbye(event, now)
        elif isinstance(event, m.StreamClosed):
            self.streams.closed(event, now)
        elif isinstance(event, m.Switched):
            self.streams.switched(event, now)
        elif isinstance(event, m.WebhooksRefused):
            self.webhooks.refused(event)
        elif isinstance(event, do.Shutdown):
            self._shut_down(now)
        else:
            self._result(event, now)
        return self.take()

    def take(self) -> list[Instruction]:
        """The instructions that have not been handed out."""
        out, self._out = self._out, []
        return out

    def do(self, instruction: Instruction) -> None:
        self._out.append(instruction)

    def send(self, peer: str | None, message: m.FromController) -> None:
        if peer is not None:
            self._out.append(do.Send(peer, message))

    def reply(self, asked: Asked, body: m.ReplyBody) -> None:
        self._answer(asked, m.Reply(id=asked.id, body=body))

    def fail(self, asked: Asked, error: TrunklineError) -> None:
        if isinstance(error, IllegalTransition):
            error = WrongModeError(str(error))
        self.counts[f"failed {type(error).__name__}"] += 1
        self._answer(asked, m.Reply(id=asked.id, error=ErrorInfo.of(error)))

    def _answer(self, asked: Asked, reply: m.Reply) -> None:
        peer = self.peers.get(asked.peer)
        if peer is not None:
            peer.answered(reply)
            self.send(asked.peer, reply)

    def iso(self, wall: float) -> str:
        """A Unix time as ISO 8601, UTC."""
        return datetime.fromtimestamp(wall, UTC).isoformat(timespec="seconds")

    def wall(self, now: float) -> float:
        return self.identity.started_wall + now - self.identity.started

    def mono(self, wall: float) -> float:
        return self.identity.started + wall - self.identity.started_wall

    @property
    def busy(self) -> bool:
        """Something is still to be put back or hung up."""
        sessions = self.sessions
        return bool(sessions.leases.by_number or sessions.beside) or self.calls.ends_under_way

    # ------------------------------------------------------------------ peers

    def _hello(self, hello: m.Hello, now: float) -> None:
        ours, account = m.PROTOCOL, self.identity.account
        if hello.version[0] != ours[0]:
            error: TrunklineError = ProtocolMismatchError(
                f"{hello.peer} speaks version {hello.version[0]}.{hello.version[1]} of the bus "
                f"protocol, this controller {ours[0]}.{ours[1]}: use the same release of trunkline"
            )
        elif hello.account is not None and hello.account != account:
            error = AccountMismatchError(
                f"this stack belongs to Twilio account {account}, {hello.peer} to {hello.account}"
            )
        elif hello.role == "codec_worker" and hello.endpoint is None:
            error = InvalidRequestError(f"codec worker {hello.peer} named no media endpoint")
        else:
            self._welcome(hello, now)
            return
        self.counts["refused peers"] += 1
        self.send(hello.peer, m.Refused(error=ErrorInfo.of(error)))

    def _welcome(self, hello: m.Hello, now: float) -> None:
        new = self.peers.get(hello.peer) is None
        peer = self.peers.hello(hello, now)
        if new:
            log.info("%s %s is here (pid %d)", hello.role, hello.peer, hello.pid)
        unknown: list[str] = []
        if hello.role == "adapter":
            unknown = self.sessions.claims.announced(hello, now)
        self.send(
            hello.peer,
            m.Welcome(
                epoch=self.identity.epoch,
                controller=self.identity.stack,
                pid=self.identity.pid,
                account=self.identity.account,
                public_url=self.identity.public_url,
                lead_ms=self.rules.lead_ms,
                unknown_sessions=unknown,
            ),
        )
        if hello.role == "gateway":
            peer.streams = len(hello.streams)
            self.streams.announced(hello, now)
        elif hello.role == "codec_worker":
            self.workers.hello(hello, now)
            self.streams.worked_on(hello.calls)
            self.streams.place_all(now)
        else:
            for session in self.sessions.by_id.values():
                if session.peer == hello.peer:
                    self.calls.tell_again(session, now)

    def _beat(self, beat: m.Beat, now: float) -> None:
        peer = self.peers.get(beat.peer)
        self.send(
            beat.peer,
            m.Pulse(
                epoch=self.identity.epoch,
                controller=self.identity.stack,
                known=peer is not None,
            ),
        )
        if peer is None:
            return
        peer.heard = now
        if peer.role == "adapter":
            self.sessions.renew(beat, now)
        elif peer.role == "codec_worker":
            self.workers.beat(beat, now)
            self.streams.worked_on(beat.calls)
        else:
            peer.streams, peer.refused = len(beat.streams), beat.refused
            self.streams.beat(beat, now)

    def _goodbye(self, goodbye: m.Goodbye, now: float) -> None:
        peer = self.peers.get(goodbye.peer)
        if peer is None:
            return
        log.info("%s %s leaves", peer.role, peer.id)
        peer.leaving = True
        if peer.role == "codec_worker":
            self.workers.goodbye(peer.id)
            self.streams.place_all(now)
        elif peer.role == "adapter":
            self.sessions.peer_left(peer.id, now)

    def gateways(self) -> list[Peer]:
        return [p for p in self.peers.by_id.values() if p.role == "gateway"]

    def present(self, peer: Peer, now: float) -> bool:
        """The peer beats, and has not said Goodbye."""
        return not peer.leaving and now - peer.heard < GATEWAY_LOST_AFTER

    # ------------------------------------------------------------------ requests

    def _request(self, request: m.Request, now: float) -> None:
        peer = self.peers.get(request.peer)
        if peer is None:
            # It has to say Hello first; it asks again then.
            pulse = m.Pulse(epoch=self.identity.epoch, controller=self.identity.stack, known=False)
            self.send(request.peer, pulse)
            return
        known = peer.answers.get(request.id)
        if known is not None:
            self.send(request.peer, known)
            return
        if request.id in peer.working:
            return
        peer.working.add(request.id)
        asked = Asked(request.peer, request.id)
        self.counts[f"request {type(request.body).__name__}"] += 1
        try:
            if request.ttl <= 0:
                raise TimedOutError(f"{type(request.body).__name__} came after its time was over")
            anyone = isinstance(request.body, m.GetStatus)
            theirs = isinstance(request.body, _ONLY_GATEWAYS)
            if not anyone and theirs != (peer.role == "gateway"):
                raise InvalidRequestError(
                    f"a {peer.role} cannot ask for {type(request.body).__name__}"
                )
            self._dispatch(asked, request, now)
        except TrunklineError as error:
            self.fail(asked, error)

    def _dispatch(self, asked: Asked, request: m.Request, now: float) -> None:
        body = request.body
        if isinstance(body, m.VoiceWebhook):
            self.reply(asked, self.webhooks.answer(body, now))
        elif isinstance(body, m.StreamStart):
            self.reply(asked, self.streams.start(body, now))
            self.digits.settle(now)  # behind the answer, which names the stream
        elif isinstance(body, m.StatusCallback):
            self.calls.status_callback(body, now)
            self.reply(asked, m.Done())
        elif isinstance(body, m.CloseSession):
            self.sessions.close_asked(asked, body.session, now)
        elif isinstance(body, m.GetStatus):
            self.reply(asked, m.StatusReport(status=status.build(self, now)))
        elif self.stopping:
            raise StackUnavailableError("the stack is being shut down")
        elif isinstance(body, m.OpenSession):
            self.sessions.opening.open(asked, body.info, request.ttl, now)
        elif isinstance(body, m.Arm):
            self.sessions.arm(asked, body.session, request.ttl, now, trace=request.trace)
        elif isinstance(body, m.Disarm):
            self.sessions.disarm(asked, body.session, now)
        elif isinstance(body, m.Dial):
            self.dials.dial(asked, body, request.ttl, now)
        elif isinstance(body, m.CancelDial):
            self.dials.cancel(asked, body, now)
        elif isinstance(body, m.HangUp):
            self.calls.hang_up(asked, body, now)
        else:
            self.calls.send_digits(asked, body, now)

    # ------------------------------------------------------------------ results

    def _result(self, result: Result, now: float) -> None:
        if isinstance(result, do.NumberFound | do.NumbersListed | do.LookUpFailed):
            self.sessions.opening.looked_up(result, now)
        elif isinstance(result, do.Applied):
            self.sessions.applied(result.row, now)
        elif isinstance(result, do.ApplyFailed):
            self.sessions.apply_failed(result, now)
        elif isinstance(result, do.Restored):
            self.sessions.restored(result, now)
        elif isinstance(result, do.Ended):
            self.calls.ended(result.call, now)
        elif isinstance(result, do.EndFailed):
            self.calls.end_failed(result, now)
        elif isinstance(result, do.Fetched):
            self.calls.fetched(result, now)
        elif isinstance(result, do.StreamAsked):
            self.digits.stream_asked(result)
        elif isinstance(result, do.DigitsTold):
            self.digits.told(result, now)
        elif isinstance(result, do.Instructed):
            if result.error is None:
                self.reply(result.asked, m.Done())
            else:
                self.fail(result.asked, result.error)
        else:
            self.dials.result(result, now)

    # ------------------------------------------------------------------ time

    def _tick(self, now: float) -> None:
        gap = now - self._last_tick
        self._last_tick = now
        if gap > STALLED_AFTER:
            # Beats that came meanwhile are still unread: nobody is late because of it.
            log.warning("the controller did not run for %.1f s", gap)
            self.peers.shift(gap)
            self.workers.shift(gap)
            self.sessions.shift(gap)
            self.claim_until += gap if self.claiming else 0.0
        self.peers.forget_lost(now)
        self.workers.forget_lost(now)
        self.sessions.tick(now)
        self.dials.tick(now)
        self.calls.tick(now)
        self.streams.tick(now)
        self.digits.tick(now)
        if now >= self.claim_until or self.stopping:
            self._claims_over(now)

    def _claims_over(self, now: float) -> None:
        if self.claiming:
            self.claiming = False
            self.sessions.claims.over()
            self.dials.claims_over(now)
            self.calls.claims_over(now)

    def _shut_down(self, now: float) -> None:
        if self.stopping:
            return
        self.stopping = True
        self._claims_over(now)
        self.sessions.close_all("the stack is being shut down", now)
