"""The streams of calls: let in, gone, come again; and which workers carry them.

A call may have several streams, one after the other: a gateway dies, and Twilio opens a stream at
another. Each stream gets a later ordinal than the one before it, as a rule the next one. The
gateway decides which of the call's workers is active, and we note it. A call gets a new placement
when one of its workers is gone. We choose the workers when a stream comes, and near the stream's
gateway: with several hosts behind one load balancer, the call's webhook may have come to another
host.

For example, a gateway is killed. Its beats stop, so its calls are *reconnecting* after
:data:`~.book.peers.GATEWAY_LOST_AFTER`, or at once where Twilio asks another gateway first. The
webhook is answered with a token, the next stream shows that token, and the call is *live* again.

Three sources say that a stream is gone, because each may be missing: its gateway notifies, the
gateway's next beat does not list it, or the gateway itself is not heard of. Twilio's next webhook
is the fourth. Whichever comes first moves the call on; the others find it moved, and change
nothing.

Ordinals keep them apart. A notification about stream 2 changes nothing in a call whose stream is
the third by now.
"""

from __future__ import annotations

import logging
from typing import Final

from trunkline.bus import messages as m

from .. import events as ev
from . import facts as f
from .book import Book
from .book.call import Call
from .book.peers import GATEWAY_LOST_AFTER
from .facts import Ask
from .moment import Moment

log = logging.getLogger("trunkline.controller")

#: A beat that does not list a stream says that it is gone, once the stream is this old.
BEAT_SETTLES_AFTER: Final = 2.0
#: After the start calls are not moved before their workers had time to say Hello.
SETTLING_SECONDS: Final = 3.0
#: Nor is a standby changed, which costs less, before this time. By then every worker that runs has
#: said Hello, as a rule.
STANDBY_AFTER: Final = 1.0
#: The states in which workers carry a call. One that is being hung up may still have its stream.
_CARRIED: Final = ("live", "reconnecting", "ending")


# --------------------------------------------------------------------------- a stream begins


def start(at: Moment, ask: Ask[m.StreamStart]) -> None:
    """A stream came. Believe its token alone, because whoever knows the public URL can open a
    stream and claim any CallSid."""
    start, book = ask.body, at.book
    if start.gateway != ask.reply_to.peer:
        _refuse(at, ask, "another gateway than the one that it names has shown it")
        return
    token = book.tokens.look(start.token, at.now)
    if token is None:
        _refuse(at, ask, "its token is unknown, used up, void or too old")
        return
    call = book.calls[token.call]
    if token.sid is not None and token.sid != start.call_sid:
        _refuse(at, ask, "its token belongs to another call")
        return
    if token.one_way:
        at.tell(f.ListenerShown(ask, token))
        return
    placement = _place(at, call, start.gateway)
    if placement is None:
        _refuse(at, ask, "no codec worker is there")
        return
    if call.sid != start.call_sid:
        # This token stood in an a-leg's inline TwiML, so the dial has led to this very call.
        dial = book.dials[call.dial_request or ""]
        at.tell(f.SidShown(dial, start.call_sid))
    at.tell(f.StreamShown(ask, token, placement))


def accept(at: Moment, shown: f.StreamShown) -> None:
    """By now it is known which leg the stream belongs to. The stream carries its call from now on,
    unless that leg is another call's, or the call is over."""
    start = shown.ask.body
    call = at.book.calls[shown.token.call]
    if call.sid != start.call_sid:
        _refuse(at, shown.ask, "its token belongs to another call")
        return
    if call.over:
        _refuse(at, shown.ask, "the call is over")
        return
    at.book.tokens.void(call.id)
    first = call.ordinal == 0
    replaced = call.gateway if call.one_way else None
    if replaced is not None:
        at.tell(f.ListenerReplaced(call, replaced, call.ordinal))
    _counts(at, call, -1.0)
    call.stream_up(start.gateway, shown.placement, at.now)
    _counts(at, call, 1.0)
    if first:
        call.begin(at.now)
        if call.theirs is None:
            _count_setup(at, call)
            at.count(f"calls {call.direction}")
    else:
        _tell_placement(at, call, gateway=False)
    at.tell(f.StreamUp(shown.ask, call, shown.token, first, overlaps=replaced is not None))


def _count_setup(at: Moment, call: Call) -> None:
    """How long its first stream has taken: since its webhook, or since Twilio was asked for it."""
    dial = at.book.dial_of(call)
    since = call.created if dial is None else dial.asked_at
    if since is not None:  # else an earlier controller has asked
        at.book.measures.count("setup", at.now - since, call.direction)


def accepted(at: Moment, up: f.StreamUp) -> None:
    """The gateway gets its answer last, behind everything else that the stream has led to."""
    call = up.call
    accepted = m.StreamAccepted(
        info=at.book.info(call, at.now), first=up.first, overlaps=up.overlaps, keys=call.take_keys()
    )
    at.reply(up.ask.reply_to, accepted)


def _refuse(at: Moment, ask: Ask[m.StreamStart], why: str) -> None:
    """The gateway closes the stream; why is counted and logged there."""
    at.count("streams refused")
    at.reply(ask.reply_to, m.StreamRefused(why=why))


def turn(at: Moment, taken: f.ListenerTaken) -> None:
    """The call has lost its stream, and a one-way stream waits, because digits are being played: it
    carries the far end's sound from now on."""
    call, gateway = taken.call, taken.gateway
    placement = _place(at, call, gateway) or call.placement
    _counts(at, call, -1.0)
    call.stream_up(gateway, placement, at.now, one_way=True)
    _counts(at, call, 1.0)
    if placement is not None:
        _tell_placement(at, call, gateway=False)
    at.send(gateway, m.StreamTurn(info=at.book.info(call, at.now)))


# --------------------------------------------------------------------------- a stream ends


def closed(at: Moment, closed: m.StreamClosed) -> None:
    """A gateway says that a stream is gone. If it is an earlier one, that is known already."""
    call = at.book.calls.get(closed.call)
    if call is None or closed.ordinal != call.ordinal or not call.live:
        return
    if call.witness != closed.gateway:
        return
    if call.state == "ending":
        _over(at, call)
    elif closed.reason == "stop" and not _may_come_back(at, call):
        at.tell(f.Finished(call, call.stopped(at.now)))
    elif call.state == "live":
        _lose(at, call, closed.reason)


def replaced(at: Moment, replaced: f.StreamReplaced) -> None:
    """Twilio asks for the call's next document. Its gateway may have died and have told nobody."""
    call = replaced.call
    if call.state == "ending":
        _over(at, call)
    elif call.state == "live":
        _lose(at, call, call.stream_reason or "error")


def _may_come_back(at: Moment, call: Call) -> bool:
    """A ``stop`` also comes where a new document takes the stream away. A one-way stream lives
    on through documents: its ``stop`` is the call's end. Before its session has announced
    itself to a restarted controller, nobody knows whether digits are on their way."""
    if call.one_way:
        return False
    return at.book.unclaimed(call.session) or at.book.may_return(call, at.now)


def _over(at: Moment, call: Call) -> None:
    """The stream of a call that is being hung up is gone: the call is over, whether REST has
    answered or not."""
    call.stream_over()
    at.tell(f.Finished(call, call.reason or "hang_up"))


def _lose(at: Moment, call: Call, reason: m.StreamEndReason) -> None:
    """The stream is gone; the call may come back by another."""
    call.stream_lost(reason, at.now)
    log.info("call %s: its stream is gone (%s)", call.sid, reason)
    at.tell(f.StreamLost(call, reason))


# --------------------------------------------------------------------------- what gateways say


def moved(at: Moment, moved: m.CallMoved) -> None:
    """A gateway lets another worker be heard, because the active one is slow or gone. That decision
    is the gateway's alone, since it takes milliseconds and must not wait for us. The call gets a
    standby beside the new one."""
    call = at.book.calls.get(moved.call)
    if call is None or call.placement is None or call.gateway != moved.gateway:
        return
    if moved.generation >> 16 != call.ordinal:
        return
    log.info("call %s is now worked on by %s", call.sid, moved.worker)
    at.count("calls moved")
    _counts(at, call, -1.0)
    call.moved(moved.worker)
    _counts(at, call, 1.0)
    _replace(at, call)


def beat(at: Moment, heard: f.GatewayBeat) -> None:
    """A gateway lists its streams. That repairs the book where a notification got lost. A stream
    that is younger than :data:`BEAT_SETTLES_AFTER` may be missing because the beat was written
    before it came."""
    beat = heard.beat
    present = set()
    for stream in beat.streams:
        present.add(stream.call)
        call = at.book.calls.get(stream.call)
        if call is not None and stream.ordinal == call.ordinal:
            if call.state == "reconnecting" and call.witness == beat.peer:
                call.seen_again(beat.peer)
                at.send_session(call.session, m.CallStarted(info=call.info(at.now)))
            elif call.state == "ended":
                at.send(beat.peer, m.CloseStream(call=call.id))
    for call in at.book.streams_of(beat.peer):
        if (
            call.id not in present
            and call.state == "live"
            and call.gateway == beat.peer
            and at.now - call.accepted > BEAT_SETTLES_AFTER
        ):
            _lose(at, call, "error")


def watch(at: Moment, tick: ev.Tick) -> None:
    """The streams of gateways that are gone are lost."""
    present = {g.id for g in at.book.gateways() if at.now - g.heard < GATEWAY_LOST_AFTER}
    for call in at.book.call_rounds.now:
        if call.state == "live" and call.gateway not in present:
            _lose(at, call, "error")


# --------------------------------------------------------------------------- workers


def forget(at: Moment, over: f.CallOver) -> None:
    """Drop the workers' counts of a call that is over, and carry it no more."""
    at.book.workers.carry(over.call.placement, over.call.active, -1.0)
    for track in (over.call.id, m.outbound_track(over.call.id)):
        at.book.workers.forget_call(track)


# --------------------------------------------------------------------------- placement


def _loads(book: Book) -> dict[str, float]:
    """How much each worker carries."""
    loads = book.workers.loads
    if loads is None:
        calls = book.calls.values()
        loads = book.workers.add_up(
            (call.placement, call.active) for call in calls if call.state in _CARRIED
        )
    return loads


def _counts(at: Moment, call: Call, times: float) -> None:
    """Count the call among what its workers carry (``times`` 1), or take it out (-1). Whoever
    changes its placement or its active worker takes it out first, and counts it again after
    that."""
    if call.state in _CARRIED:
        at.book.workers.carry(call.placement, call.active, times)


def _put(at: Moment, call: Call, placement: m.Placement) -> None:
    """The call has this placement from now on; those who work on it hear of that."""
    _counts(at, call, -1.0)
    call.placed(placement)
    _counts(at, call, 1.0)
    _tell_placement(at, call, gateway=True)


def _best(at: Moment, call: Call, gateway: str | None) -> m.Placement | None:
    """The two workers that would carry it now, with its stream at this gateway; those that do so
    already come first."""
    loads, host = _loads(at.book), at.book.peers.host_of(gateway)
    return at.book.workers.place(at.now, loads, host, call.placement, call.active)


def _place(at: Moment, call: Call, gateway: str) -> m.Placement | None:
    """Where the call's next stream, which has come to this gateway, is worked on; None: nowhere."""
    placement = _best(at, call, gateway)
    if placement is None or placement.primary.id not in at.book.workers.healthy(at.now):
        return None
    return placement


def _replace(at: Moment, call: Call) -> None:
    """Give the call a new placement, if there is a better one than it has."""
    placement = _best(at, call, call.gateway)
    if placement is not None and placement is not call.placement:
        _put(at, call, placement)


def _tell_placement(at: Moment, call: Call, *, gateway: bool) -> None:
    """The client attaches to the workers itself, so it must know them. ``gateway``: its gateway
    hears of them too; it need not where it has just asked."""
    assert call.placement is not None, "a placement is told once there is one"
    event = m.CallPlaced(call=call.id, placement=call.placement)
    if gateway:
        at.send(call.gateway, event)
    at.send_session(call.session, event)


def place_all(at: Moment, heard: object) -> None:
    """Workers came or went: live calls that lack one get another. In the first seconds after a
    start, not all workers have said Hello. Then a call gets a standby at most, because otherwise it
    would be moved away from a worker that does its work."""
    age = at.now - at.book.identity.started
    if age < SETTLING_SECONDS:
        if age >= STANDBY_AFTER:
            _give_standbys(at)
        return
    healthy = at.book.workers.healthy(at.now)
    ticks = isinstance(heard, ev.Tick)
    for call in at.book.call_rounds.now if ticks else at.book.calls.values():
        placement = call.placement
        if call.state != "live" or placement is None:
            continue
        lacks = placement.primary.id not in healthy
        if placement.standby is None:
            lacks = lacks or len(healthy) > 1
        else:
            lacks = lacks or placement.standby.id not in healthy
        if lacks:
            _replace(at, call)


def _give_standbys(at: Moment) -> None:
    """A standby for each live call without one, while its active worker stays where it is. A worker
    that died while the controller was away took calls' standbys with it. Without another, a call
    has nowhere to go when its worker dies or stalls as well."""
    for call in at.book.calls.values():
        if call.state != "live" or call.placement is None:
            continue
        loads = _loads(at.book)
        placement = at.book.workers.with_standby(at.now, loads, call.placement, call.active)
        if placement is not None:
            _put(at, call, placement)
