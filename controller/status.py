"""The object of ``trunkline status --json``: who runs, who holds what. Passwords are masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trunkline.bus.redact import mask_url

from .leases import Lease

if TYPE_CHECKING:
    from .core import Core

_STATES = {"applying": "planned", "applied": "applied", "restoring": "restoring"}


def build(core: Core, now: float) -> dict[str, Any]:
    """The contract's status object."""
    calls = core.calls.status(now)
    return {
        "controller": {
            "pid": core.identity.pid,
            "epoch": core.identity.epoch,
            "console": core.console,
        },
        "gateways": [
            {"id": peer.id, "pid": peer.pid, "streams": peer.streams}
            | ({"refused": peer.refused} if peer.refused else {})
            for peer in core.gateways()
            if core.present(peer, now)
        ],
        "codec_workers": [
            {
                "id": worker.id,
                "pid": worker.pid,
                "calls": sum(call["codec_worker"] == worker.id for call in calls),
            }
            for worker in core.workers.by_id.values()
            if core.workers.well(worker.id, now)
        ],
        "sessions": [
            {
                "id": session.id,
                "number": session.number,
                "mode": session.mode,
                "since": core.iso(session.since),
            }
            for session in core.sessions.by_id.values()
        ],
        "calls": calls,
        "overrides": [
            *(_override(core, x) for x in core.sessions.leases.by_number.values()),
            *(_override(core, Lease(x, "restoring")) for x in core.sessions.beside.values()),
        ],
    }


def _override(core: Core, lease: Lease) -> dict[str, Any]:
    row = lease.row
    return {
        "number": row.number,
        "number_sid": row.number_sid,
        "state": _STATES.get(lease.state, row.state),
        "prior_voice_url": mask_url((row.prior or {}).get("voice_url")),
        "since": core.iso(row.since),
        "session": next(iter(lease.holders), row.session),
    }
