"""A call and the workers that carry it, as messages of the control plane hold them.

The controller makes these records. Gateways and clients keep them, and announce them to a
controller that was started again.
"""

# ruff: noqa: RUF012  # msgspec gives each instance an empty list or dict of its own

from __future__ import annotations

from .wire import (
    Answerer,
    DialMode,
    Direction,
    Endpoint,
    Fields,
    Name,
    Number,
    Ordinal,
    PeerName,
    Record,
    Seconds,
    TestName,
    Text,
)


class WorkerRef(Record, frozen=True):
    """A codec worker and the endpoint of its media ROUTER (new at each start of its process)."""

    id: PeerName
    endpoint: Endpoint


class Placement(Record, frozen=True):
    """The two workers that the controller chose for a call. ``(epoch, n)`` orders placements; the
    newest one holds.

    The gateway alone decides which of the two is *active*. It counts the generation up when it
    chooses another.
    """

    epoch: Number
    n: Number
    primary: WorkerRef
    standby: WorkerRef | None = None


class CallInfo(Record, frozen=True):
    """A call, as the controller describes it and as peers announce it to a restarted controller.

    ``call`` is trunkline's id (32 hex digits, made before Twilio is asked). ``sid`` is the CallSid
    of the leg that carries our stream. ``secret`` lets the session's client attach to the workers.
    ``dialled_sid`` is the leg that we dialled: in b-leg mode another leg than ``sid``, otherwise
    the same. None: we did not dial.
    ``caller`` is From as the carrier reported it. ``caller_rewritten`` says that the carrier
    reports another number than the one we dialled from.
    """

    call: Name
    session: Name
    sid: Name
    direction: Direction
    caller: Text
    callee: Text
    secret: Name
    #: ordinal of the call's present or last stream; 0: no stream has been up
    ordinal: Ordinal = 0
    #: ordinal of the call's earliest known stream; 0: no stream is known
    first: Ordinal = 0
    dialled_sid: Name | None = None
    dial_request: Name | None = None
    mode: DialMode | None = None
    placement: Placement | None = None
    max_duration: Seconds | None = None
    #: seconds since the call's first stream started, when this was sent; None: not yet
    age: Seconds | None = None
    trace: Fields = {}
    caller_rewritten: bool = False
    #: who has answered, where the dial asked for machine_detection; None: it is not known yet
    answered_by: Answerer | None = None
    #: client: it has asked a controller to send digits, and has no answer yet
    digits: bool = False
    #: which track of a call that is listened to is the agent under test; None: a call of ours. The
    #: stream brings two tracks. On the media plane the inbound one goes by ``call``, and the
    #: outbound one by ``call`` and ``.outbound``
    theirs: Direction | None = None
    #: to a gateway: the stack that has the call, if that stack belongs to a fleet
    stack: Name = ""
    #: to a gateway: the test that makes or answers the call, for its recording; "": none is named
    test: TestName = ""


def outbound_track(call: Name) -> Name:
    """The id, on the media plane, of the outbound track of a call that is listened to."""
    return f"{call}.outbound"
