"""Codec workers, and which two of them carry a call.

A call has a primary and, where there are two workers, a standby: the least loaded ones. Which of
them is active is the gateway's decision; here it is only noted. A placement is renewed, counted up,
when one of its workers is gone or silent, or when a call without a standby can have one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from trunkline.bus import messages as m

#: A worker whose last beat is older has stalled or died: nothing new goes to it (seconds).
QUIET_AFTER: Final = 1.5
#: After this long it is forgotten.
FORGOTTEN_AFTER: Final = 10.0


@dataclass
class Worker:
    """A codec worker. ``leaving``: it said Goodbye."""

    id: str
    endpoint: str
    pid: int
    heard: float
    leaving: bool = False
    #: what it last said of each of its calls
    stats: dict[str, m.CallStats] = field(default_factory=dict)

    @property
    def ref(self) -> m.WorkerRef:
        """How others reach it."""
        return m.WorkerRef(id=self.id, endpoint=self.endpoint)

    def is_here(self, now: float) -> None:
        """It has said Hello."""
        self.heard, self.leaving = now, False

    def beats(self, now: float) -> None:
        """It is there, and its loop turns."""
        self.heard = now

    def excuse(self, seconds: float) -> None:
        """The controller itself did not run for so long, so the worker is not late."""
        self.heard += seconds

    def leave(self) -> None:
        """It has said Goodbye: nothing new goes to it."""
        self.leaving = True

    def note(self, stats: Iterable[m.CallStats]) -> None:
        """What it says of its calls."""
        self.stats.update((one.call, one) for one in stats)

    def forget(self, call: str) -> None:
        """The call is over."""
        self.stats.pop(call, None)


class Workers:
    """All workers that are known."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self.by_id: dict[str, Worker] = {}

    def hello(self, hello: m.Hello, now: float) -> None:
        """It is here. One at another endpoint is another process, which has counted nothing yet."""
        assert hello.endpoint is not None
        worker = self.by_id.get(hello.peer)
        if worker is None or worker.endpoint != hello.endpoint:
            worker = self.by_id[hello.peer] = Worker(hello.peer, hello.endpoint, hello.pid, now)
        worker.is_here(now)
        worker.note(hello.calls)

    def beat(self, beat: m.Beat, now: float) -> None:
        """It lives, and says what it did for each of its calls."""
        worker = self.by_id.get(beat.peer)
        if worker is not None:
            worker.beats(now)
            worker.note(beat.calls)

    def forget_call(self, call: str) -> None:
        """The call is over, and its counts are not asked for any more."""
        for worker in self.by_id.values():
            worker.forget(call)

    def goodbye(self, peer: str) -> None:
        """It gets nothing new."""
        worker = self.by_id.get(peer)
        if worker is not None:
            worker.leave()

    def forget_lost(self, now: float) -> None:
        """A worker that is silent for long does not come back under its name."""
        for worker in list(self.by_id.values()):
            if now - worker.heard > FORGOTTEN_AFTER:
                del self.by_id[worker.id]

    def excuse(self, seconds: float) -> None:
        """The controller itself did not run for so long."""
        for worker in self.by_id.values():
            worker.excuse(seconds)

    def healthy(self, worker_id: str | None, now: float) -> bool:
        """Something new may go to it."""
        worker = self.by_id.get(worker_id or "")
        return worker is not None and not worker.leaving and now - worker.heard < QUIET_AFTER

    def place(
        self,
        now: float,
        loads: dict[str, float],
        present: m.Placement | None = None,
        active: str | None = None,
    ) -> m.Placement | None:
        """A placement for a call, or the present one where that is still the best there is.

        ``loads``: worker id -> how much it carries. None: no worker is healthy and there was no
        placement.
        """
        healthy = [w for w in self.by_id.values() if self.healthy(w.id, now)]
        healthy.sort(key=lambda w: (loads.get(w.id, 0.0), w.id))
        preferred = [active] if active is not None else []
        if present is not None:
            preferred += [present.primary.id]
            preferred += [present.standby.id] if present.standby is not None else []
        order = [self.by_id[i] for i in dict.fromkeys(preferred) if self.healthy(i, now)]
        order += [w for w in healthy if w not in order]
        if not order:
            return present
        standby = order[1].ref if len(order) > 1 else None
        if present is not None and _same(present, order[0].ref, standby):
            return present
        n = 1 if present is None else present.n + 1
        return m.Placement(epoch=self._epoch, n=n, primary=order[0].ref, standby=standby)

    def with_standby(
        self, now: float, loads: dict[str, float], present: m.Placement, active: str | None
    ) -> m.Placement | None:
        """A placement that leaves the active worker where it is, heard of or not, and gives it a
        healthy standby. None: the present one has such a standby, or nobody can be one."""
        both = [ref for ref in (present.primary, present.standby) if ref is not None]
        kept = next((ref for ref in both if ref.id == active), present.primary)
        if any(self.healthy(ref.id, now) for ref in both if ref.id != kept.id):
            return None
        others = [w for w in self.by_id.values() if w.id != kept.id and self.healthy(w.id, now)]
        if not others:
            return None
        standby = min(others, key=lambda w: (loads.get(w.id, 0.0), w.id)).ref
        return m.Placement(epoch=self._epoch, n=present.n + 1, primary=kept, standby=standby)


def _same(present: m.Placement, primary: m.WorkerRef, standby: m.WorkerRef | None) -> bool:
    return present.primary == primary and present.standby == standby
