"""Codec workers, and which two of them carry a call.

A call has a primary and, where there are two workers, a standby. Which of them is active is the
gateway's decision; here it is only noted. A placement is renewed, counted up, when one of its
workers is gone or silent, or when a call without a standby can have one.

1. Whichever of the call's workers are healthy stay: they know what was said.
2. The primary is the least loaded worker. One on another machine than the call's gateway counts as
   if it carried :data:`APART` calls more, so that sound crosses the network only where that spares
   a worker so much.
3. The standby is the least loaded of the others. One on the primary's machine counts as if it
   carried as much more, so that no machine's death takes both.

For example, a call's gateway is on machine A. A worker on A carries 18 calls. A worker on B carries
10, which count as 20. So the call goes to A, and B stands by. If A carried 21, it would be the
other way round.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from trunkline.bus import messages as m

from .peers import Peer, Peers

#: A worker whose last beat is older has stalled or died: nothing new goes to it (seconds).
QUIET_AFTER: Final = 1.5
#: A worker that is a call's standby has this much of the load of the active one.
STANDBY_LOAD: Final = 0.2
#: A worker on the gateway's machine may carry this many calls more than another one, and is still
#: chosen as the primary. A worker carries hundreds of calls, so this is a few hundredths of its
#: work, and it saves each frame the way across the network.
APART: Final = 10.0


class Workers:
    """The workers among the peers."""

    def __init__(self, epoch: int, peers: Peers) -> None:
        self._epoch = epoch
        self.peers = peers
        #: how much each carries, by id; None: nobody has asked in this round of all calls
        self.loads: dict[str, float] | None = None

    def look_again(self) -> None:
        """What they carry is added up once more when somebody asks."""
        self.loads = None

    def add_up(self, calls: Iterable[tuple[m.Placement | None, str | None]]) -> dict[str, float]:
        """What they carry: each call's placement, and its active worker, beside the calls of other
        controllers. It is added up once in a round of all calls, and follows them until the next
        one (:meth:`carry`). When a worker dies, hundreds of calls get a new placement at once, and
        each of them asks."""
        self.loads = {worker.id: float(worker.others) for worker in self.all() if worker.others}
        for placement, active in calls:
            self.carry(placement, active, 1.0)
        return self.loads

    def carry(self, placement: m.Placement | None, active: str | None, times: float) -> None:
        """One call more with this placement; ``times`` -1: one less."""
        loads = self.loads
        if loads is None or placement is None:
            return
        active = active or placement.primary.id
        loads[active] = loads.get(active, 0.0) + times
        for worker in (placement.primary, placement.standby):
            if worker is not None and worker.id != active:
                loads[worker.id] = loads.get(worker.id, 0.0) + times * STANDBY_LOAD

    def all(self) -> list[Peer]:
        """Those that have said Hello and are not forgotten."""
        return [peer for peer in self.peers.by_id.values() if peer.role == "codec_worker"]

    def forget_call(self, call: str) -> None:
        """The call is over, and its counts are not asked for any more."""
        for worker in self.all():
            worker.forget(call)

    def healthy(self, now: float) -> dict[str, Peer]:
        """Those to which something new may go, by id."""
        return {
            worker.id: worker
            for worker in self.all()
            if not worker.leaving and now - worker.heard < QUIET_AFTER
        }

    def place(
        self,
        now: float,
        loads: dict[str, float],
        host: str,
        present: m.Placement | None = None,
        active: str | None = None,
    ) -> m.Placement | None:
        """A placement for a call, or the present one where that is still the best there is.

        ``loads``: worker id -> how much it carries. ``host``: the machine of the call's gateway.
        None: no worker is healthy and there was no placement.
        """
        healthy = self.healthy(now)
        preferred = [active] if active is not None else []
        if present is not None:
            preferred += [present.primary.id]
            preferred += [present.standby.id] if present.standby is not None else []
        order = [healthy[worker] for worker in dict.fromkeys(preferred) if worker in healthy]
        primary = order[0] if order else _near(healthy.values(), loads, host)
        if primary is None:
            return present
        others = [worker for worker in healthy.values() if worker is not primary]
        standby = order[1] if len(order) > 1 else _far(others, loads, primary.host)
        ref = None if standby is None else standby.ref
        if present is not None and _same(present, primary.ref, ref):
            return present
        n = 1 if present is None else present.n + 1
        return m.Placement(epoch=self._epoch, n=n, primary=primary.ref, standby=ref)

    def with_standby(
        self, now: float, loads: dict[str, float], present: m.Placement, active: str | None
    ) -> m.Placement | None:
        """A placement that leaves the active worker where it is, heard of or not, and gives it a
        healthy standby. None: the present one has such a standby, or nobody can be one."""
        both = [ref for ref in (present.primary, present.standby) if ref is not None]
        kept = next((ref for ref in both if ref.id == active), present.primary)
        healthy = self.healthy(now)
        if any(ref.id in healthy for ref in both if ref.id != kept.id):
            return None
        others = [worker for worker in healthy.values() if worker.id != kept.id]
        standby = _far(others, loads, self.peers.host_of(kept.id))
        if standby is None:
            return None
        n = present.n + 1
        return m.Placement(epoch=self._epoch, n=n, primary=kept, standby=standby.ref)


def _near(workers: Iterable[Peer], loads: dict[str, float], host: str) -> Peer | None:
    """The least loaded, one on this machine rather; None: there is none."""
    return min(
        workers,
        key=lambda w: (loads.get(w.id, 0.0) + (APART if w.host != host else 0.0), w.id),
        default=None,
    )


def _far(workers: Iterable[Peer], loads: dict[str, float], host: str) -> Peer | None:
    """The least loaded, one on another machine rather; None: there is none."""
    return min(
        workers,
        key=lambda w: (loads.get(w.id, 0.0) + (APART if w.host == host else 0.0), w.id),
        default=None,
    )


def _same(present: m.Placement, primary: m.WorkerRef, standby: m.WorkerRef | None) -> bool:
    return present.primary == primary and present.standby == standby
