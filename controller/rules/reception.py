"""These rules hear that a peer came, beat or left, and that time has passed. They tell the others.

A peer's Hello counts more than the book, because the peer itself has the thing: a gateway its
streams, a client its sessions, a worker its calls. So a controller that was restarted soon knows
everything again, in whichever order its peers come back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.errors import (
    AccountMismatchError,
    ErrorInfo,
    InvalidRequestError,
    ProtocolMismatchError,
    TrunklineError,
)

from .. import events as ev
from .. import instructions as do
from . import facts as f
from .book import Book
from .moment import Moment

log = logging.getLogger("trunkline.controller")

#: A longer gap between two ticks is time in which the controller itself did not run.
STALLED_AFTER: Final = 1.0


# --------------------------------------------------------------------------- peers


def hello(at: Moment, hello: m.Hello) -> None:
    """A peer is here. One of another release, or of another account, is refused."""
    error = _refusal(at.book, hello)
    if error is not None:
        at.count("refused peers")
        at.send(hello.peer, m.Refused(error=ErrorInfo.of(error)))
        return
    new = at.book.peers.get(hello.peer) is None
    peer = at.book.peers.hello(hello, at.now)
    peer.counted(_of_known_calls(at, hello.calls))
    if new:
        log.info("%s %s is here (pid %d)", hello.role, hello.peer, hello.pid)
    if hello.role == "adapter":
        at.tell(f.ClientHere(hello))
    elif hello.role == "gateway":
        peer.note_streams(len(hello.streams))
        at.tell(f.GatewayHere(hello))
    else:
        at.tell(f.WorkerHere(hello))


def _refusal(book: Book, hello: m.Hello) -> TrunklineError | None:
    """Why this peer cannot be served: better a clear error at its start than a message, much later,
    that it cannot read."""
    ours, account = m.PROTOCOL, book.identity.account
    if hello.version[0] != ours[0]:
        return ProtocolMismatchError(
            f"{hello.peer} speaks version {hello.version[0]}.{hello.version[1]} of the bus "
            f"protocol, this controller {ours[0]}.{ours[1]}: use the same release of trunkline"
        )
    if hello.account is not None and hello.account != account:
        return AccountMismatchError(
            f"this stack belongs to Twilio account {account}, {hello.peer} to {hello.account}"
        )
    known = book.peers.get(hello.peer)
    if known is not None and known.role != hello.role:
        return InvalidRequestError(f"{hello.peer} is a {known.role}, and cannot become another")
    if hello.role == "codec_worker" and hello.endpoint is None:
        return InvalidRequestError(f"codec worker {hello.peer} named no media endpoint")
    return None


def welcome(at: Moment, here: f.Announced | f.GatewayHere | f.WorkerHere) -> None:
    """Welcome a peer whose Hello was taken in. A client's Welcome names the sessions that are not
    taken back, so it is sent once all of them were looked at."""
    identity = at.book.identity
    at.send(
        here.hello.peer,
        m.Welcome(
            epoch=identity.epoch,
            stack=identity.stack,
            pid=identity.pid,
            account=identity.account,
            public_url=identity.public_url,
            lead_ms=at.book.rules.lead_ms,
            unknown_sessions=here.unknown if isinstance(here, f.Announced) else [],
            fleet=list(at.book.fleet),
        ),
    )


def fleet_seen(at: Moment, seen: ev.FleetSeen) -> None:
    """Another controller has come or gone, or runs another one's stack: all peers hear of it."""
    if at.book.set_fleet(seen.controllers):
        for peer in at.book.peers.by_id:
            at.send(peer, m.Fleet(controllers=seen.controllers))


def beat(at: Moment, beat: m.Beat) -> None:
    """A peer lives. A peer that is not known gets an answer that says so, and says Hello then. An
    answer to every beat would wake both processes twice as often, and say nothing new."""
    peer = at.book.peers.get(beat.peer)
    if peer is None:
        at.send(beat.peer, pulse(at.book, known=False))
        return
    measures = at.book.measures
    measures.told(peer.role, beat.measured, peer.measures(beat.measured))
    if peer.heard_beat(beat, at.now):
        workers = _healthy_workers(at) if peer.role == "gateway" else None
        at.send(beat.peer, pulse(at.book, known=True, workers=workers))
    if peer.role == "adapter":
        at.tell(f.ClientBeat(beat))
    elif peer.role == "codec_worker":
        measures.carried(peer.counted(_of_known_calls(at, beat.calls)))
        peer.note_others(sum(one.call.partition(".")[0] not in at.book.calls for one in beat.calls))
    else:
        peer.note_streams(len(beat.streams))
        at.book.count_refused(peer.refuses(beat.refused))
        at.tell(f.GatewayBeat(beat))


def _of_known_calls(at: Moment, stats: Iterable[m.CallStats]) -> Iterator[m.CallStats]:
    """A worker goes on counting a call for a moment after its end."""
    for one in stats:
        call = at.book.calls.get(one.call)
        if call is not None and call.state != "ended":
            yield one


def look(at: Moment, look: ev.Look) -> None:
    """Somebody looks at the console: gateways tell how loud their streams are, for a while."""
    for gateway in at.book.gateways():
        if at.book.present(gateway, at.now):
            at.send(gateway.id, m.Watch(seconds=look.seconds, sound=list(look.sound)))


def show(at: Moment, told: m.Levels | m.CallSound) -> None:
    """A gateway tells levels or sound. No rule needs them, so they go on to whoever looks."""
    at.do(do.Show(told))


def pulse(book: Book, *, known: bool, workers: int | None = None) -> m.Pulse:
    """A sign of life. ``known`` False makes the peer say Hello again: we were restarted."""
    identity = book.identity
    return m.Pulse(epoch=identity.epoch, stack=identity.stack, known=known, workers=workers)


def _healthy_workers(at: Moment) -> int:
    """The number of healthy codec workers: those that beat. A worker that does not move sound sends
    no beats, so the beats are enough to know."""
    return len(at.book.workers.healthy(at.now))


def tell_gateways(at: Moment, heard: object) -> None:
    """Gateways answer for the health of the stack, so they hear at once when a worker comes, goes
    or falls silent."""
    workers = _healthy_workers(at)
    if at.book.workers_told(workers):
        for gateway in at.book.gateways():
            at.send(gateway.id, pulse(at.book, known=True, workers=workers))


def connection_lost(at: Moment, lost: ev.ConnectionLost) -> None:
    """A peer's connection is there no longer. A killed process and one that comes back in a moment
    look alike, so its calls and leases go on for their time. But its sessions cannot be used until
    their secrets are shown again, and a peer that has nothing here is forgotten at once."""
    peer, book = at.book.peers.get(lost.peer), at.book
    if peer is None:
        return
    peer.connection_lost()
    mine = [session for session in book.sessions.values() if session.peer == peer.id]
    for session in mine:
        session.connection_lost()
    if not (mine or peer.working or peer.stats or book.carries_calls(peer.id)):
        book.peers.forget(peer.id)


def goodbye(at: Moment, goodbye: m.Goodbye) -> None:
    """A peer ends in good order. A gateway needs nothing done: its streams end one by one, and it
    tells of each."""
    peer = at.book.peers.get(goodbye.peer)
    if peer is None:
        return
    log.info("%s %s leaves", peer.role, peer.id)
    peer.leave()
    if peer.role == "codec_worker":
        at.tell(f.WorkerLeft())
    elif peer.role == "adapter":
        at.tell(f.ClientLeft(peer.id))


def call_heard(at: Moment, heard: m.CallHeard) -> None:
    """Somebody looked at the report of a call: its figures are counted for /metrics."""
    at.count("calls heard")
    at.book.measures.heard(heard.latency, heard.time_to_yield)


# --------------------------------------------------------------------------- the clock


def tick(at: Moment, tick: ev.Tick) -> None:
    """Time passes. If the controller itself stood still (it was stopped, or the machine slept),
    every peer's last sign of life is older than it should be, although none of them is at fault.
    All these times are moved by the gap."""
    gap = at.book.tick(at.now)
    if gap > STALLED_AFTER:
        # Beats that came meanwhile are still unread: nobody is late because of it.
        log.warning("the controller did not run for %.1f s", gap)
        at.book.excuse(gap)
    at.book.peers.forget_lost(at.now)


def claims(at: Moment, tick: ev.Tick) -> None:
    """The time for claims is over, or the stack ends: then nobody is waited for."""
    if (at.now >= at.book.claim_until or at.book.stopping) and at.book.end_claims():
        at.tell(f.ClaimsOver())


def shut_down(at: Moment, down: ev.Shutdown) -> None:
    """The stack ends: put back whatever is unclaimed, then close everything."""
    if at.book.stopping:
        return
    at.book.stop()
    if at.book.end_claims():
        at.tell(f.ClaimsOver())
    at.tell(f.AllClosing())
