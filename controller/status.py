"""The object of ``trunkline status --json``: who runs, who holds what. Passwords are masked.

It is built from the book alone, between two events, so it never shows half of a change. Numbers
and callers are shown as they are: whoever may ask runs on this machine, or holds the bus's keys.

Four ask for it: a peer by ``GetStatus`` (``trunkline status``), ``/api/status``, the console's page
(:mod:`.live`) and ``/metrics`` (:mod:`.metrics`). Scripts of users read it, so its names are a
promise: a key may be added, and none is renamed. Sessions and calls of tests have a further key,
``test``, which is the test's name. For example, with one call up::

    {"controller": {"pid": 4711, "epoch": 7, "console": "http://127.0.0.1:8766",
                    "recordings_dir": null, "stand_in": null},
     "gateways": [{"id": "g1", "pid": 4712, "streams": 1}],
     "codec_workers": [{"id": "w1", "pid": 4713, "calls": 1}],
     "sessions": [{"id": "2b1f…", "number": "+14155551234", "mode": "answer",
                   "since": "2026-03-01T10:00:00+00:00"}],
     "calls": [{"sid": "CA…", "direction": "inbound", "caller": "+14155557777",
                "callee": "+14155551234", "state": "live", "gateway": "g1",
                "codec_worker": "w1", "seconds": 3.2, "frames_in": 160, "frames_out": 150,
                "frames_lost": 0, "underruns": 0}],
     "overrides": [{"number": "+14155551234", "number_sid": "PN…", "state": "applied",
                    "prior_voice_url": "https://me:***@agent.example.com/voice",
                    "since": "2026-03-01T10:00:00+00:00", "session": "2b1f…"}]}
"""

from __future__ import annotations

from typing import Any, Final

from trunkline.bus import messages as m
from trunkline.bus.redact import mask_url

from .rules.book import Book
from .rules.book.call import Call
from .rules.book.lease import Lease, iso
from .rules.book.peers import GATEWAY_LOST_AFTER, Peer
from .rules.book.workers import QUIET_AFTER

#: How an override stands: a lease's state -> the word for users. They need to know whether the
#: number may have been written to, and not which of our operations is under way. An unclaimed
#: override was found by a restart and still answers calls, so it reads "applied".
_STATES: Final = {
    "planned": "planned",
    "unclaimed": "applied",
    "applying": "planned",
    "applied": "applied",
    "restoring": "restoring",
}


def build(book: Book, now: float) -> dict[str, Any]:
    """The whole object. ``now`` is monotonic, and what is shown is Unix time, as ISO 8601 in UTC.

    The lists that a stack may do without (calls of others that are listened to, processes that do
    not answer, caps) are left out while they are empty. Then most stacks show the six keys above
    and nothing to puzzle over.
    """
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
            "recordings_dir": book.identity.recordings_dir,
            "stand_in": mask_url(book.identity.stand_in),
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
            | _test(session.test)
            for session in book.sessions.values()
        ],
        "calls": found,
        "overrides": [_override(x) for x in (*book.leases.values(), *book.aside.values())],
    } | {name: rows for name, rows in at_times.items() if rows}


def unhealthy(book: Book, now: float) -> list[dict[str, Any]]:
    """Gateways and workers that hold their connection and are not heard, for example because they
    are stopped (SIGSTOP) or their machine swaps. No call goes to them. One that has died is not
    here, because its connection is gone.

    A row is ``{"id": "w1", "role": "codec_worker", "pid": 4713, "silent_seconds": 2.104}``.
    """
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
    """The calls that are not over. Left out are calls of others that are listened to
    (:func:`listening`), and strays that are only being hung up: we know no numbers of them."""
    return [call for call in book.calls.values() if call.state != "ended" and is_known(call)]


def is_known(call: Call) -> bool:
    """A caller or a callee is known."""
    return bool(call.caller or call.callee)


def row(book: Book, call: Call, now: float) -> dict[str, Any]:
    """The row of one call, which may be over (the console shows those too). ``sid`` is the leg that
    carries our stream, or until that is known the leg that we dialled; ``seconds`` count from when
    its first stream came up."""
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
    } | _test(book.test_of(call.session))


def _test(name: str) -> dict[str, Any]:
    """The key that only sessions and calls of tests have."""
    return {"test": name} if name else {}


def listening(book: Book, now: float) -> list[dict[str, Any]]:
    """Calls of others that are listened to, and not over. ``theirs`` says which track is the agent
    under test. Each call is two on the media plane, one for each track, so its frames are the sum
    of both; it has none going out."""
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
            | _test(book.test_of(call.session))
        )
    return found


def _told(peer: Peer) -> dict[str, Any]:
    """The keys that only some processes have: ``"host": "node-3"`` if it has said on which machine
    it runs, and ``"dropped": {"undecodable": 3}`` if it dropped messages of the bus, by reason."""
    dropped: dict[str, Any] = {"dropped": peer.dropped} if peer.dropped else {}
    return ({"host": peer.host} if peer.host else {}) | dropped


def _stats(book: Book, call: str) -> m.CallStats:
    """The counts of all workers that have had the call. Each counts from 0 when a call moves to it,
    so the newest worker's count alone would fall at each move."""
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
    """One number that is not as it was. ``session`` is a session that holds the override now. If
    nobody holds it any more (it is being put back), it is the one that it was made for."""
    row = lease.row
    return {
        "number": row.number,
        "number_sid": row.number_sid,
        "state": _STATES[lease.state],
        "prior_voice_url": mask_url((row.prior or {}).get("voice_url")),
        "since": iso(row.since),
        "session": next(iter(lease.holders), row.session),
    }
