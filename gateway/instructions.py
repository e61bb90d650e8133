"""What the gateway's rules (:mod:`.admission` and :mod:`.streams`) ask the shell to do.

``socket`` is the number that admission gave to a Media Streams socket. With a minus sign, in
CloseSocket alone, it names the second track of that socket (rule 8 of streams.py). ``endpoint``
names a worker's media ROUTER, and with it the one DEALER that this gateway has to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trunkline.bus import messages as m
from trunkline.bus.refusals import Kind
from trunkline.bus.wire import Shown

from . import media_streams as ms


class OpenLink(msgspec.Struct, frozen=True):
    """Connect a new DEALER to this worker. Say ``link_up`` when its handshake is done, and
    ``link_lost`` if nobody listens there or the connection ends."""

    worker: m.WorkerRef


class CloseLink(msgspec.Struct, frozen=True):
    """Close the DEALER. Report nothing more that happens to it."""

    endpoint: str


class SendToWorker(msgspec.Struct, frozen=True):
    """Send the message. If that fails, say ``link_lost``."""

    endpoint: str
    message: m.ToWorker


class WriteTexts(msgspec.Struct, frozen=True):
    """Write these text messages, each to its socket, in order."""

    texts: Sequence[tuple[int, bytes]]


class CloseSocket(msgspec.Struct, frozen=True):
    """Close the socket, from which the rules expect nothing more. ``why`` is for the log, and
    nothing is logged if it is empty."""

    socket: int
    why: str = ""


class RefuseSocket(msgspec.Struct, frozen=True):
    """Close a socket with this WebSocket code, and count and log the refusal by its kind.
    ``at_once``: do not wait for the peer's answer, and read nothing more from the socket."""

    socket: int
    kind: Kind
    why: str = ""
    code: int = 1008
    at_once: bool = False


class DropSocket(msgspec.Struct, frozen=True):
    """Disconnect a socket that is being closed already."""

    socket: int


class AskController(Shown, frozen=True):
    """Ask the controller about the stream's token, and wait ``within`` seconds at most. Then say
    ``answered`` or ``unanswered``."""

    socket: int
    start: ms.Start
    token: str
    within: float


class Believe(msgspec.Struct, frozen=True):
    """The peer is no stranger any more: a stranger's bounds no longer apply to its bytes."""

    socket: int


class OpenStream(msgspec.Struct, frozen=True):
    """The socket's stream carries its call from now on.

    ``early`` is sound that belongs into the OpenCall itself, because the worker joins this stream
    to the one before it. ``held`` are all other events that were kept. Take them once the stream is
    open, as if they came then.
    """

    socket: int
    accepted: m.StreamAccepted
    stream_sid: str
    early: Sequence[ms.Media]
    held: Sequence[ms.Event]


class EndStream(msgspec.Struct, frozen=True):
    """An open stream is over."""

    socket: int
    reason: m.StreamEndReason


class Notify(msgspec.Struct, frozen=True):
    """Tell the controller."""

    notification: m.Notification


Instruction = (
    OpenLink
    | CloseLink
    | SendToWorker
    | WriteTexts
    | CloseSocket
    | RefuseSocket
    | DropSocket
    | AskController
    | Believe
    | OpenStream
    | EndStream
    | Notify
)
