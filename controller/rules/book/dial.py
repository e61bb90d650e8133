"""A dial is a call that we ask Twilio for. Here stand its fields, the check whether it may be
dialled, and the order that Twilio gets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.errors import InvalidRequestError, TrunklineError
from trunkline.bus.redact import is_e164, not_e164, redact_number
from trunkline.bus.twilio_urls import DIAL_FIELD

from ...instructions import ReplyTo
from ...journal.rows import DialRow
from ...twilio import documents
from ...twilio.calls import CallOrder
from ..tables import DIAL, NEW_DIAL, Subject, WaitsFor
from . import destinations
from .last_known import LastKnown

#: Twilio rings this long, unless we ask for a shorter time (seconds).
RING_SECONDS: Final = 60
#: In these states Twilio may have the dial, and it may still lead to a call.
OPEN: Final = ("asking", "unsure", "taken")


@dataclass
class Dial(Subject):
    """``deadline``: when its time is over. That counts from when Twilio was asked; while the dial
    waits for its turn on the number, the deadline is the end of that wait. ``outcome``: why nobody
    waits for it any more; ``outcome_text``: the explanation that its client got."""

    TABLE, KIND = DIAL, "dial"

    row: DialRow
    state: str = field(kw_only=True)
    known: LastKnown
    waiting: list[ReplyTo] = field(default_factory=list)
    token: str = field(default="", repr=False)
    trace: dict[str, str] = field(default_factory=dict)
    #: Twilio is to find out who answers
    machine_detection: m.MachineDetection | None = None
    deadline: float = float("inf")
    #: when the request for it left, if this controller has asked
    asked_at: float | None = None
    outcome: str | None = None
    outcome_text: str = ""
    #: its SID was found in the list of calls, and nothing has confirmed it
    guessed: bool = False
    #: its time was over before it was answered: that is why it failed, whatever our hang-up brings
    timed_out: bool = False
    #: Twilio's last word on our leg before that
    last_word: str = ""
    #: the stream has been up: it is a call. This is no state, because a closed dial still has to
    #: know whether it had led to a call
    started: bool = False
    #: an earlier controller asked for it
    found: bool = False
    #: when it was answered, as Unix time; None: that is not known
    answered: float | None = None
    #: Twilio has said that our leg is over
    leg_over: bool = False
    #: how often REST was asked about it because nothing was heard
    polled: int = 0
    #: its time is over, and REST is asked for the last time
    last_look: bool = False
    last_place: int = 0

    @property
    def request(self) -> str:
        """The client's own id of it, by which it is known everywhere."""
        return self.row.request

    @property
    def sid(self) -> str | None:
        """Our leg at Twilio, once it is known; perhaps by a guess."""
        return self.row.sid

    def __str__(self) -> str:
        return f"dial {self.request}"

    @property
    def became_call(self) -> bool:
        """It has led to a call. One without a stream (originate) has been answered."""
        answered = self.known.status in ("in-progress", "completed")
        return self.started or (self.row.mode == "originate" and answered)

    @property
    def may_ring(self) -> bool:
        """Its call may still come to the callee's number."""
        silent = self.row.mode == "originate" and self.known.status == "in-progress"
        return (self.state == "queued" or self.state in OPEN) and not (self.started or silent)

    # ------------------------------------------------------------------ those who wait for it

    def wait(self, reply_to: ReplyTo) -> None:
        """Whoever asks again waits for the same SID."""
        self.waiting.append(reply_to)

    def take_waiting(self) -> list[ReplyTo]:
        """Those who wait for its SID; whoever takes them answers them."""
        waiting, self.waiting = self.waiting, []
        return waiting

    def tell_place(self, place: int) -> bool:
        """True where its client was last told another place in the queue."""
        changed = place != self.last_place
        self.last_place = place
        return changed

    def detects(self, machine_detection: m.MachineDetection | None) -> None:
        """Whether Twilio is to find out who answers, and when it is to say so."""
        self.machine_detection = machine_detection

    # ------------------------------------------------------------------ its way to Twilio

    def waits_until(self, deadline: float) -> None:
        """After a restart: somebody may still wait for it until then."""
        self.deadline, self.found = deadline, True

    def wait_turn(self, now: float) -> None:
        """It waits for the callee's number for as long as its own timeout."""
        self.deadline = now + self.row.timeout

    def turn(self) -> None:
        """Its turn on the callee's number has come."""
        self.step("turn")
        self.deadline, self.last_place = float("inf"), 0

    def ask(self, wall: float, now: float) -> None:
        """Twilio is asked for the call, once it is written down: from now on it may ring."""
        self.step("ask")
        self.known.tell_unasked()
        self.row = replace(self.row, asked=wall)
        self.deadline = now + self.row.timeout

    def rings_from(self, now: float, asked: float | None) -> None:
        """The request leaves now, and the dial's timeout begins. ``asked``: its row has that time
        now; None: the one that it has."""
        if asked is not None:
            self.row = replace(self.row, asked=asked)
        self.asked_at = now
        self.known.tell_asking()
        self.deadline = now + self.row.timeout

    # ------------------------------------------------------------------ its SID

    def take_sid(self, sid: str, *, guessed: bool) -> None:
        """Our leg has this SID. The row has it too, so that a restart knows it."""
        if self.row.sid is not None and not self.started:
            self.answered = None  # that was another dial's call
        self.row = replace(self.row, sid=sid)
        self.known.forget_status()
        self.guessed = guessed

    def confirm(self) -> None:
        """A callback, webhook or stream has named the dial, which shows that the guess was
        right."""
        self.guessed = False

    def mistaken(self) -> None:
        """The SID that it was given by guess is another dial's."""
        self.row = replace(self.row, sid=None)
        self.guessed = False
        if not self.started:
            self.answered = None
        self.known.forget_status()
        self.step("mistaken")

    # ------------------------------------------------------------------ what becomes of it

    def stream_up(self, wall: float) -> None:
        """It is a call now."""
        self.started = True
        self.pick_up(wall)

    def pick_up(self, wall: float) -> None:
        """The far end has answered by then at the latest, and the call costs. After a restart
        nobody knows when that was, so it may have been at once."""
        self.answered = self.answered or (self.row.asked if self.found else wall)

    def close(self, wall: float) -> None:
        """The dial is over: note how long it has cost. If Twilio told its end but not when it was
        answered, assume that it was answered at once, which is the dearest that it can have
        been."""
        answered = self.answered
        if answered is None and self.known.status == "completed":
            answered = self.row.asked
        lasted = 0.0 if answered is None else max(0.0, wall - answered)
        self.row = replace(self.row, seconds=min(lasted, self.row.max_duration))

    def end_leg(self) -> None:
        """Twilio says that our leg is over."""
        self.leg_over = True

    def poll(self, now: float) -> None:
        """REST is asked, because nothing was heard of it for a while."""
        self.polled += 1
        self.known.tell_asked(now)

    def look_once_more(self, deadline: float) -> None:
        """Its time is over. REST may answer until the deadline, for the last time."""
        self.last_look, self.deadline = True, deadline

    def time_over(self, now: float) -> None:
        """Its time is over before it was answered. Keep Twilio's last word, because our own hang-up
        will change it."""
        self.timed_out, self.last_word = True, self.known.leg(now)

    def hang_up_first(self) -> None:
        """Its client hears of the timeout once Twilio has hung the call up, so no clock runs on."""
        self.deadline = float("inf")

    def fail(self, status: str, text: str, now: float) -> None:
        """It ends without a call. Its client gets ``text`` and the last facts that we knew."""
        parts = [text]
        if self.row.asked:
            leg = "" if self.leg_over else self.known.leg(now)
            parts += [self.last_word or leg, self.known.webhook(now)]
        parts.append(self.known.refused())
        self.outcome = status
        self.outcome_text = "; ".join(part for part in parts if part)

    def nobody_waits(self, why: str) -> None:
        """The first reason counts; later ones change nothing."""
        self.outcome = self.outcome or why

    def error(self) -> TrunklineError:
        """The error of whoever waits for the dial, once it has an ``outcome``."""
        return self.failed().error(self.row.callee, self.row.timeout)

    def failed(self) -> m.DialFailed:
        """The same, for the session that it belongs to."""
        return m.DialFailed(
            request=self.request,
            call=self.row.call,
            status=self.outcome or "failed",
            sid=self.sid,
            text=self.outcome_text,
        )


def new_dial(
    row: DialRow,
    now: float,
    waits_for: WaitsFor = "pace",
    waiting: list[ReplyTo] | None = None,
    token: str = "",
    trace: dict[str, str] | None = None,
) -> Dial:
    """A new dial, which begins as NEW_DIAL says of what it ``waits_for``."""
    known = LastKnown(redact_number(row.callee), row.mode == "b-leg", heard=now)
    return Dial(row, known, waiting or [], token, trace or {}, state=NEW_DIAL[waits_for])


def check(
    body: m.Dial, allowed_callees: frozenset[str] | None, of_stack: tuple[str, ...] | None
) -> None:
    """InvalidRequestError if this must not be dialled. ``allowed_callees`` are the session's;
    ``of_stack`` are the stack's, which count whatever the session says."""
    shown = redact_number(body.to)
    if len(body.request) != 32:
        raise InvalidRequestError("a dial's request id has 32 hex digits")
    if not is_e164(body.to):
        raise InvalidRequestError(not_e164(shown))
    if not 1 <= body.max_duration <= m.LONGEST_CALL:
        raise InvalidRequestError(
            f"max_duration={body.max_duration:g} is not within 1 to {m.LONGEST_CALL} s"
        )
    if not 0 < body.timeout <= m.LONGEST_WAIT:
        raise InvalidRequestError(
            f"timeout={body.timeout:g} must be positive, and {m.LONGEST_WAIT} s at most"
        )
    if body.mode == "a-leg" and not allowed_callees:
        raise InvalidRequestError(
            f"an a-leg call needs allowed_callees (deny-by-default), including {shown}"
        )
    if body.machine_detection is not None and body.mode != "a-leg":
        raise InvalidRequestError(f"machine_detection is for a-leg calls, not for {body.mode}")
    if body.mode != "b-leg" and allowed_callees and body.to not in allowed_callees:
        raise InvalidRequestError(f"destination {shown} is not in allowed_callees")
    if (why := destinations.refusal(body.to, of_stack)) is not None:
        raise InvalidRequestError(why)


def order(dial: Dial, public_url: str, stack: dict[str, str]) -> CallOrder:
    """The order for Twilio's Calls create. Only an a-leg's TwiML has the stream's token. ``stack``:
    what its URLs say of the stack."""
    row, document = dial.row, documents.HOLD_THE_LINE
    query = {DIAL_FIELD: row.request} | stack
    if row.mode == "a-leg":
        document = documents.connect(public_url, dial.token, query)
    return CallOrder(
        to=row.callee,
        from_=row.caller,
        twiml=document,
        time_limit=math.ceil(row.max_duration),
        ring_timeout=max(5, min(RING_SECONDS, math.ceil(row.timeout))),
        status_callback=documents.status_callback(public_url, query),
        machine_detection=dial.machine_detection,
    )
