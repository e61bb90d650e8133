"""The object of ``trunkline status --json``: who runs, who holds what. Passwords are masked.

It is built from the book alone, between two events, so it never shows half of a change. Numbers
and callers are shown as they are: whoever may ask runs on this machine, or holds the bus's keys.
"""

from __future__ import annotations

from typing import Any, Final

from trunkline.bus import messages as m
from trunkline.bus.redact import mask_url

from .rules.book import Book, iso
from .rules.book.call import Call
from .rules.book.lease import Lease
from .rules.book.peers import GATEWAY_LOST_AFTER, Peer
from .rules.book.workers import QUIET_AFTER

#: The contract's word for how an override stands.
_STATES: Final = {
    "planned": "planned",
    "unclaimed": "applied",
    "applying": "planned",
    "applied": "applied",
    "restoring": "restoring",
}


def build(book: Book, now: float) -> dict[str, Any]:
    """The contract's status object."""
    found = [row(book, call, now) for call in shown(book)]
    at_times = {
        "listening": listening(book, now),
        "unhealthy": unhealthy(book, now),
        "caps": book.usage.standing(book.wall(now)),
    }
    return {
        "controller": {
            "pid": book.identity.pid,
            "epoch": book.identity.epoch,
            "console": book.console,
        },
        "gateways": [
            {"id": peer.id, "pid": peer.pid, "streams": peer.streams}
            | ({"refused": peer.refused} if peer.refused else {})
            | _told(peer)
            for peer in book.gateways()
            if book.present(peer, now)
        ],
        "codec_workers": [
            {
                "id": worker.id,
                "pid": worker.pid,
                "calls": sum(call["codec_worker"] == worker.id for call in found)
                + sum(call["codec_worker"] == worker.id for call in at_times["listening"]),
            }
            | _told(worker)
            for worker in book.workers.healthy(now).values()
        ],
        "sessions": [
            {
                "id": session.id,
                "number": session.number,
                "mode": session.mode,
                "since": iso(session.since),
            }
            for session in book.sessions.values()
        ],
        "calls": found,
        "overrides": [_override(x) for x in (*book.leases.values(), *book.aside.values())],
    } | {name: rows for name, rows in at_times.items() if rows}


def unhealthy(book: Book, now: float) -> list[dict[str, Any]]:
    """Gateways and workers that hold their connection and are not heard. No call goes to them."""
    limits = {"gateway": GATEWAY_LOST_AFTER, "codec_worker": QUIET_AFTER}
    return [
        {
            "id": peer.id,
            "role": peer.role,
            "pid": peer.pid,
            "silent_seconds": round(now - peer.heard, 3),
        }
        for peer in (*book.gateways(), *book.workers.all())
        if peer.silent(now, limits[peer.role])
    ]


def shown(book: Book) -> list[Call]:
    """The calls that are not over, but for those of which nobody knows who speaks in them."""
    return [call for call in book.calls.values() if call.state != "ended" and is_known(call)]


def is_known(call: Call) -> bool:
    """It is known who speaks in it."""
    return bool(call.caller or call.callee)


def row(book: Book, call: Call, now: float) -> dict[str, Any]:
    """The contract's row of a call."""
    stats = _stats(book, call.id)
    return {
        "sid": call.sid or call.dialled_sid,
        "direction": call.direction,
        "caller": call.caller,
        "callee": call.callee,
        "state": call.state,
        "gateway": call.gateway,
        "codec_worker": call.active,
        "seconds": 0.0 if call.started is None else round(now - call.started, 3),
        "frames_in": stats.frames_in,
        "frames_out": stats.frames_out,
        "frames_lost": stats.frames_lost,
        "underruns": stats.underruns,
    }


def listening(book: Book, now: float) -> list[dict[str, Any]]:
    """Calls of others that are listened to, and not over."""
    found = []
    for call in book.calls.values():
        if call.theirs is None or call.state == "ended":
            continue
        both = [_stats(book, track) for track in (call.id, m.outbound_track(call.id))]
        found.append(
            {
                "sid": call.sid,
                "theirs": call.theirs,
                "state": call.state,
                "gateway": call.gateway,
                "codec_worker": call.active,
                "seconds": 0.0 if call.started is None else round(now - call.started, 3),
                "frames_in": sum(stats.frames_in for stats in both),
                "frames_lost": sum(stats.frames_lost for stats in both),
            }
        )
    return found


def _told(peer: Peer) -> dict[str, Any]:
    """Its machine, if it has said that, and the messages of the bus that it has dropped, if any."""
    dropped: dict[str, Any] = {"dropped": peer.dropped} if peer.dropped else {}
    return ({"host": peer.host} if peer.host else {}) | dropped


def _stats(book: Book, call: str) -> m.CallStats:
    """The counts of all workers that have had the call."""
    of = [w.stats[call] for w in book.workers.all() if call in w.stats]
    return m.CallStats(
        call=call,
        generation=0,
        frames_in=sum(s.frames_in for s in of),
        frames_out=sum(s.frames_out for s in of),
        frames_lost=sum(s.frames_lost for s in of),
        underruns=sum(s.underruns for s in of),
    )


def _override(lease: Lease) -> dict[str, Any]:
    """The contract has the session that holds it now, or the one that it was made for."""
    row = lease.row
    return {
        "number": row.number,
        "number_sid": row.number_sid,
        "state": _STATES[lease.state],
        "prior_voice_url": mask_url((row.prior or {}).get("voice_url")),
        "since": iso(row.since),
        "session": next(iter(lease.holders), row.session),
    }
