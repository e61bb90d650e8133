"""A call, as the controller keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trunkline.bus import messages as m

from .instructions import Asked
from .tables import CALL, Subject

if TYPE_CHECKING:
    from .dial import Dial


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
    secret: str
    created: float
    sid: str | None = None
    dialled_sid: str | None = None
    dial_request: str | None = None
    mode: m.DialMode | None = None
    max_duration: float | None = None
    trace: dict[str, str] = field(default_factory=dict)
    #: the carrier reported another caller than the number that we dialled from
    caller_rewritten: bool = False
    state: str = "expected"
    ordinal: int = 0
    placement: m.Placement | None = None
    active: str | None = None
    gateway: str | None = None
    #: its present stream brings the far end's sound and takes none of ours
    one_way: bool = False
    #: until then a ``stop`` of its stream need not be the call's end: a document that moves the
    #: call to another stream may still reach it
    may_move_until: float = 0.0
    accepted: float = 0.0
    #: when the first stream came up; None before
    started: float | None = None
    #: since when there should be a stream and is none
    missing: float | None = None
    #: how often it was asked about since then
    checked: int = 0
    reason: m.EndedReason | None = None
    stream_reason: m.StreamEndReason | None = None
    #: HangUp and CancelDial requests that wait for REST
    ending: list[Asked] = field(default_factory=list)
    end_sent: bool = False
    hung_up: float | None = None
    #: a dial whose timeout is told once it is hung up
    then_failed: Dial | None = None
    ended_at: float = 0.0
    #: when to look whether the leg that we dialled is over too
    leg_check: float | None = None
    stream_stats: m.StreamStats | None = None

    def __str__(self) -> str:
        return f"call {self.id}"

    @property
    def live(self) -> bool:
        return self.state != "ended"

    @property
    def over(self) -> bool:
        """It is being hung up, or ended."""
        return self.state in ("ending", "ended")

    @property
    def query(self) -> dict[str, str]:
        """What the redirect back to us carries: which call it is."""
        if self.mode == "a-leg" and self.dial_request is not None:
            return {"d": self.dial_request}
        return {"c": self.id}

    def heard_caller(self, info: m.CallInfo) -> None:
        """After a restart: the caller as it was reported, which the journal does not have."""
        self.caller, self.caller_rewritten = info.caller, info.caller_rewritten

    def info(self, now: float) -> m.CallInfo:
        return m.CallInfo(
            call=self.id,
            session=self.session,
            sid=self.sid or self.dialled_sid or "",
            direction=self.direction,
            caller=self.caller,
            callee=self.callee,
            secret=self.secret,
            ordinal=self.ordinal,
            dialled_sid=self.dialled_sid,
            dial_request=self.dial_request,
            mode=self.mode,
            placement=self.placement,
            max_duration=self.max_duration,
            age=None if self.started is None else now - self.started,
            trace=self.trace,
            caller_rewritten=self.caller_rewritten,
        )
