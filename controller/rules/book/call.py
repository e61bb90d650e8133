"""A call, as the controller keeps it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from trunkline.bus import messages as m
from trunkline.bus.errors import InvalidRequestError, TrunklineError
from trunkline.bus.twilio_urls import CALL_FIELD, DIAL_FIELD

from ...instructions import End, ReplyTo, StopListening
from ...journal.rows import DialRow, ListeningRow
from ..tables import CALL, Subject
from .tokens import same

#: The far end's TimeLimit and our watchdog may differ by this much.
TIME_LIMIT_SLACK: Final = 1.5
#: How long a document may still reach the call when nobody knows whether Twilio took it.
MAY_RETURN_FOR: Final = 60.0
#: How many ordinals each controller has for the streams of one call: more than it can need, though
#: a call may last for hours, and each row of digits takes two streams.
STREAMS_AN_EPOCH: Final = 1_000


@dataclass
class Call(Subject):
    """A call. ``sid``: the leg that carries (or will carry) our stream, ``dialled_sid``: the leg
    that we dialled. Times are monotonic."""

    TABLE = CALL

    id: str
    session: str
    direction: m.Direction
    caller: str
    callee: str
    secret: str = field(repr=False)
    created: float
    sid: str | None = None
    dialled_sid: str | None = None
    dial_request: str | None = None
    mode: m.DialMode | None = None
    max_duration: float | None = None
    trace: dict[str, str] = field(default_factory=dict)
    #: the carrier reported another caller than the number that we dialled from
    caller_rewritten: bool = False
    #: who has answered, where the dial asked for that; None: it is not known yet
    answered_by: m.Answerer | None = None
    state: str = field(default="expected", kw_only=True)
    ordinal: int = 0
    #: the ordinal of its earliest stream that is known; 0: no stream is known
    first: int = 0
    #: its next stream has this ordinal at least: lower ones belong to earlier controllers, and
    #: perhaps nobody tells of the streams that have them
    least_ordinal: int = 1
    #: False: an earlier controller made another secret, which peers will show
    secret_known: bool = True
    placement: m.Placement | None = None
    active: str | None = None
    gateway: str | None = None
    #: which gateway had its newest stream last: only this gateway may report on that stream
    witness: str | None = None
    #: its present stream brings the far end's sound and takes none of ours
    one_way: bool = False
    #: until then a ``stop`` of its stream need not be the call's end: a document that moves the
    #: call to another stream may still reach it
    may_return_until: float = 0.0
    #: an earlier controller was asked for digits of it, and never answered
    digits_in_doubt: bool = False
    #: digits that the far end has heard, until the gateway of the next stream is told
    keys: m.Keys | None = None
    accepted: float = 0.0
    #: when the first stream came up; None before
    started: float | None = None
    #: since when there should be a stream and is none
    missing: float | None = None
    #: how often it was asked about since then
    checked: int = 0
    reason: m.EndedReason | None = None
    stream_reason: Literal["stop", "close", "error"] | None = None
    #: HangUp and CancelDial requests that wait for REST
    ending: list[ReplyTo] = field(default_factory=list)
    #: the legs that REST was told to hang up, and whether it has taken that
    hang_ups: dict[str, bool] = field(default_factory=dict)
    #: why REST has not taken it yet; None: it has, or nothing speaks against it
    end_error: TrunklineError | None = None
    #: when REST took the last of them
    hung_up: float | None = None
    #: once it is hung up, its client hears that the dial has timed out
    tell_timeout: bool = False
    ended_at: float = 0.0
    #: when to look whether the leg that we dialled is over too
    leg_check: float | None = None
    #: which track of a call that we listen to is the agent under test; None: it is a call of ours
    theirs: m.Direction | None = None
    #: the name by which REST stops its stream, once REST was asked for one; "": it was not
    stream_name: str = ""
    #: how often REST was asked
    streams_asked: int = 0
    #: Listen requests that wait for its stream
    listening: list[ReplyTo] = field(default_factory=list)
    #: the hash of its session's secret, for the journal
    holder_hash: str = ""

    @classmethod
    def of_dial(cls, row: DialRow, now: float, trace: dict[str, str]) -> Call:
        """The call that a dial is to become."""
        return cls(
            id=row.call,
            session=row.session,
            direction="outbound",
            caller=row.caller,
            callee=row.callee,
            secret=secrets.token_hex(16),
            created=now,
            dial_request=row.request,
            mode=row.mode,  # type: ignore[arg-type]  # the journal keeps DialMode as text
            max_duration=row.max_duration,
            trace=trace,
        )

    @classmethod
    def of_info(cls, info: m.CallInfo, now: float) -> Call:
        """After a restart: a call that a peer has."""
        return cls(
            id=info.call,
            session=info.session,
            direction=info.direction,
            caller=info.caller,
            callee=info.callee,
            secret=info.secret,
            created=now,
            sid=info.sid,
            dialled_sid=info.dialled_sid,
            dial_request=info.dial_request,
            mode=info.mode,
            max_duration=info.max_duration,
            trace=info.trace,
            caller_rewritten=info.caller_rewritten,
            answered_by=info.answered_by,
            theirs=info.theirs,
        )

    @classmethod
    def listened(cls, asked: m.Listen, secret_hash: str, now: float) -> Call:
        """A call of somebody else's, to be listened to."""
        return cls(
            id=asked.call,
            session=asked.session,
            direction="outbound",
            caller="",
            callee="",
            secret=secrets.token_hex(16),
            created=now,
            sid=asked.sid,
            trace=asked.trace,
            theirs=asked.theirs,
            holder_hash=secret_hash,
        )

    @classmethod
    def found_listening(cls, row: ListeningRow, now: float) -> Call:
        """After a restart: a listening that the journal has open."""
        asked = m.Listen(session=row.session, call=row.call, sid=row.sid, theirs=row.theirs)
        return replace(cls.listened(asked, row.secret_hash, now), stream_name=row.name)

    def found_in(self, epoch: int, *, secret: bool = True) -> Call:
        """After a restart: the call is older than the controller of this epoch. ``secret`` False:
        the journal, which has no secrets of calls, found it."""
        self.least_ordinal = epoch * STREAMS_AN_EPOCH
        self.secret_known = secret
        return self

    def must_have_secret(self, info: m.CallInfo) -> None:
        """InvalidRequestError where somebody speaks of the call who cannot know it."""
        if self.secret_known and not same(self.secret, info.secret):
            raise InvalidRequestError(f"call {self.id} is known, with another secret")

    def __str__(self) -> str:
        return f"call {self.id}"

    @property
    def live(self) -> bool:
        """It has not ended. It may be on its way to its end."""
        return self.state != "ended"

    @property
    def over(self) -> bool:
        """It is being hung up, or ended."""
        return self.state in ("ending", "ended")

    @property
    def end_sent(self) -> bool:
        """REST was told to hang up a leg of it."""
        return bool(self.hang_ups)

    @property
    def end_under_way(self) -> bool:
        """REST has not taken all that it was told to hang up."""
        return not all(self.hang_ups.values())

    @property
    def lacks_b_leg(self) -> bool:
        """Its dial still waits for its other leg to come to the callee's number."""
        return self.mode == "b-leg" and self.sid is None and self.state == "expected"

    @property
    def query(self) -> dict[str, str]:
        """The query of the redirect back to us, which says which call it is."""
        if self.mode == "a-leg" and self.dial_request is not None:
            return {DIAL_FIELD: self.dial_request}
        return {CALL_FIELD: self.id}

    def info(self, now: float) -> m.CallInfo:
        """The call as its client, its gateways and its workers have to know it. They announce it to
        a controller that is started again."""
        return m.CallInfo(
            call=self.id,
            session=self.session,
            sid=self.sid or self.dialled_sid or "",
            direction=self.direction,
            caller=self.caller,
            callee=self.callee,
            secret=self.secret,
            ordinal=self.ordinal,
            first=self.first,
            dialled_sid=self.dialled_sid,
            dial_request=self.dial_request,
            mode=self.mode,
            placement=self.placement,
            max_duration=self.max_duration,
            age=None if self.started is None else now - self.started,
            trace=self.trace,
            caller_rewritten=self.caller_rewritten,
            answered_by=self.answered_by,
            theirs=self.theirs,
        )

    # ------------------------------------------------------------------ its legs

    def dialled(self, sid: str) -> None:
        """Twilio took its dial under this SID. Only a b-leg call has its stream on another leg."""
        self.dialled_sid = sid
        if self.mode != "b-leg":
            self.sid = sid
        if self.mode == "originate" and self.state == "expected":
            self.step("silent")

    def not_dialled(self, sid: str) -> None:
        """This SID was a guess, and is another dial's."""
        self.dialled_sid = None
        if self.mode != "b-leg":
            self.sid = None
        if self.sid is None:  # what is missed is that call's stream
            self.missing, self.checked = None, 0
        if self.mode == "originate":
            self.started = None
        self.hang_ups.pop(sid, None)
        if not self.end_under_way:
            self.end_error = None

    def join(self, sid: str, caller: str, now: float, *, rewritten: bool) -> None:
        """This is the other leg of its dial: its stream should come now."""
        self.caller, self.caller_rewritten = caller, rewritten
        self.sid, self.missing = sid, now

    def part(self, caller: str, missing: float | None) -> None:
        """The leg that had been taken for the other one is over, and another may come."""
        self.sid, self.caller, self.caller_rewritten = None, caller, False
        self.missing, self.checked = missing, 0

    def leg_known(self, sid: str) -> None:
        """After a restart: the leg that carries its stream, as a peer has it."""
        self.sid = sid

    def answered(self, now: float) -> None:
        """The far end picked up. A call without sound begins; another's stream should come now."""
        if self.mode == "originate":
            if self.started is None:
                self.started = now
        elif self.state == "expected" and self.missing is None:
            self.missing = now

    def answered_by_known(self, answered_by: m.Answerer) -> bool:
        """Who has answered. False: that was known; the first word on it stays."""
        if self.answered_by is not None:
            return False
        self.answered_by = answered_by
        return True

    # ------------------------------------------------------------------ listening to it

    def wants_listening(self, reply_to: ReplyTo, now: float) -> None:
        """A client waits for its stream, which is missed from now on."""
        self.listening.append(reply_to)
        if self.state == "expected" and self.missing is None:
            self.missing = now

    def take_listening(self) -> list[ReplyTo]:
        """Those who wait for its stream; whoever takes them answers them."""
        waiting, self.listening = self.listening, []
        return waiting

    def stream_asked(self, name: str) -> str:
        """REST is asked for a stream of this name; returns the name of the former one, or ""."""
        former, self.stream_name = self.stream_name, name
        self.streams_asked += 1
        return former

    # ------------------------------------------------------------------ its streams

    def stream_up(
        self, gateway: str, placement: m.Placement | None, now: float, *, one_way: bool = False
    ) -> None:
        """The stream at ``gateway`` is the call's from now on, with a later ordinal. Reports on an
        earlier stream do not concern this one. So what was missing or counted for the earlier one
        is cleared."""
        self.step("start")
        self._has_secret(self.secret)
        self.ordinal = max(self.ordinal + 1, self.least_ordinal)
        self.first = self.first or self.ordinal
        self.placement, self.gateway, self.one_way = placement, gateway, one_way
        self.witness = gateway
        self.active = None if placement is None else placement.primary.id
        self.accepted, self.missing, self.checked = now, None, 0
        self.stream_reason = None

    def begin(self, now: float) -> None:
        """Its first stream is up."""
        self.started = now

    def stream_lost(self, reason: m.StreamEndReason, now: float) -> None:
        """Its stream is gone, and another may come. From now on it is missed: REST is asked about
        the call, and after a while it is hung up."""
        self.step("stream_over")
        self.gateway, self.missing, self.checked, self.one_way = None, now, 0, False
        # The gateway cut the stream off, because too much came. For the call, it broke.
        self.stream_reason = "error" if reason == "too_fast" else reason

    def stream_over(self) -> None:
        """Its stream is gone while it is being hung up."""
        self.step("stream_over")
        self.gateway = None

    def seen_again(self, gateway: str) -> None:
        """Its stream had only been out of sight."""
        self.step("start")
        self.gateway, self.missing = gateway, None

    def stream_missing(self, now: float) -> None:
        """The stream that takes our sound has to come from now on."""
        self.missing, self.checked = now, 0

    def check(self) -> None:
        """REST is asked about it, because no stream comes."""
        self.checked += 1

    def let_in(self) -> None:
        """It has a token for its next stream."""
        self.step("token")

    def placed(self, placement: m.Placement) -> None:
        """These workers carry it from now on."""
        self.placement = placement

    def moved(self, worker: str) -> None:
        """Its gateway says which worker is heard now."""
        self.active = worker

    def expect_document(self, until: float) -> None:
        """Twilio was given a document that ends the present stream and may bring another one. Until
        then, a stream that stops is not the end of the call."""
        self.may_return_until = until

    def doubt_digits(self, until: float) -> None:
        """Whether an earlier controller's digits reach it is not known."""
        self.digits_in_doubt = True
        self.may_return_until = until

    def doubt_no_more(self) -> None:
        """The client knows it, or the call is over."""
        self.digits_in_doubt = False

    def press(self, digits: str, began: float) -> float:
        """The far end has heard these. Returns the call's age when the first one began."""
        assert self.started is not None, "digits follow the call's first stream"
        age = max(0.0, began - self.started)
        self.keys = m.Keys(digits=digits, age=age)
        return age

    def take_keys(self) -> m.Keys | None:
        """The keys that its recording has not got yet; it gets them now."""
        keys, self.keys = self.keys, None
        return keys

    # ------------------------------------------------------------------ after a restart

    def found(self, gateway: str, stream: m.StreamInfo, now: float) -> None:
        """Its gateway has this stream of it."""
        info = stream.info
        self.caller, self.caller_rewritten = info.caller, info.caller_rewritten
        self._has_secret(info.secret)
        self.ordinal = info.ordinal
        self._began_with(info.first)
        self.step("start")
        self.gateway = self.witness = gateway
        self.missing, self.accepted = None, now
        self.active = stream.active
        self.one_way = stream.one_way and self.theirs is None
        if self.one_way:
            self.missing = now  # the stream that takes our sound is still to come
        if info.placement is not None:
            self.placement = _newer(self.placement, info.placement)
        if self.started is None:
            self.started = now - (info.age or 0.0)

    def had_stream(self, info: m.CallInfo, now: float) -> None:
        """Its client has heard it. Its gateway has not said so yet, or is gone."""
        self.ordinal = max(self.ordinal, info.ordinal, 1)
        self._began_with(info.first)
        self.caller, self.caller_rewritten = info.caller, info.caller_rewritten
        self._has_secret(info.secret)
        self.placement = info.placement
        self.step("had_stream")
        self.missing = now
        self.started = now - (info.age or 0.0)

    def known_already(self, info: m.CallInfo, now: float) -> None:
        """Its client has it too."""
        self.ordinal = max(self.ordinal, info.ordinal)
        self._began_with(info.first)
        if self.started is None and info.ordinal > 0:
            self.started = now - (info.age or 0.0)

    def _has_secret(self, secret: str) -> None:
        """A peer has shown it, or a stream was let in with the one that we have made."""
        self.secret, self.secret_known = secret, True

    def _began_with(self, first: int) -> None:
        """Somebody knows of this stream of it, and of none before (0: of none)."""
        if first:
            self.first = min(first, self.first or first)

    # ------------------------------------------------------------------ its end

    def end(
        self, reason: m.EndedReason, reply_to: ReplyTo | None = None, *, tell_timeout: bool = False
    ) -> None:
        """It is to be hung up. If there are several reasons, the first one counts."""
        self.reason = self.reason or reason
        self.tell_timeout = self.tell_timeout or tell_timeout
        if reply_to is not None:
            self.ending.append(reply_to)
        self.step("end")

    def send_end(self, *sids: str | None) -> End | StopListening | None:
        """Hang up these legs of it, as far as they are known; None: there is none. A call that we
        only listen to goes on, and its stream is stopped."""
        if self.theirs is not None:
            if not self.stream_name:
                return None
            sid = self.sid or ""
            self.hang_ups[sid] = False
            return StopListening(self.id, sid, self.stream_name)
        known = tuple(dict.fromkeys(sid for sid in sids if sid is not None))
        if not known:
            return None
        self.hang_ups |= dict.fromkeys(known, False)
        return End(self.id, known)

    def end_taken(self, sids: Sequence[str], now: float) -> bool:
        """REST took the hang-up of these legs. True: it has taken all that it was told to hang up.
        If the call's stream is still there somewhat later, we close it."""
        for sid in sids:
            if sid in self.hang_ups:  # otherwise it was a guess, and is another dial's call
                self.hang_ups[sid] = True
        if self.end_under_way or not self.end_sent:
            return False
        self.hung_up, self.end_error = now, None
        return True

    def end_failed(self, error: TrunklineError) -> None:
        """REST has not taken the hang-up for a while, or refuses it. It is tried again."""
        self.end_error = error

    def take_ending(self) -> list[ReplyTo]:
        """Those who wait for its end; whoever takes them answers them."""
        waiting, self.ending = self.ending, []
        return waiting

    def timeout_told(self) -> None:
        """It is told once."""
        self.tell_timeout = False

    def conclude(self, reason: m.EndedReason, now: float) -> None:
        """It is over. The first reason that was given stays."""
        self.reason = self.reason or reason
        self.step("over")
        self.ended_at = now

    def ended_message(self, now: float, *, by_far_end: bool = False) -> m.CallEnded:
        """Its end, for its client. The client hears it late if the gateway has not told that the
        stream is gone, or if the client was away."""
        assert self.reason is not None, "a call that is over has a reason"
        ended = self.ended_at if self.hung_up is None else min(self.hung_up, self.ended_at)
        return m.CallEnded(call=self.id, reason=self.reason, by_far_end=by_far_end, ago=now - ended)

    def check_leg(self, at: float | None) -> None:
        """The leg that we dialled should be over too by then; None: that is settled."""
        self.leg_check = at

    def stopped(self, now: float) -> m.EndedReason:
        """Why a call without a reason of ours is over: the far end's stop, or its TimeLimit."""
        limit, started = self.max_duration, self.started
        if limit is not None and started is not None and now - started >= limit - TIME_LIMIT_SLACK:
            return "max_duration"
        return "stop"


def _newer(one: m.Placement | None, other: m.Placement) -> m.Placement:
    """Two peers may know of different placements: the controller counts them up."""
    if one is None or (other.epoch, other.n) > (one.epoch, one.n):
        return other
    return one
