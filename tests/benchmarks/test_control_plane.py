"""One more call costs the controller as much among many calls as among few."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from benchmarks.control_plane import Plane, come

FEW, MANY = 40, 400


class Lines:
    """Counts the lines of the controller's code that are run, which no busy machine changes."""

    def __init__(self) -> None:
        self.count = 0

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if "/controller/" not in frame.f_code.co_filename:
            return None
        self.count += event == "line"
        return self._trace

    def __enter__(self) -> Lines:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)


def lines_of_a_call(standing: int) -> tuple[int, int]:
    """The lines for a call that comes while so many are up, and for one that ends."""
    plane = Plane(MANY)
    come(plane, standing)
    plane.call()  # what is added up once in a tick is there then
    with Lines() as coming:
        plane.call()
    with Lines() as ending:
        plane.end()
    return coming.count, ending.count


def test_a_call_comes_and_ends_among_many_as_among_few() -> None:
    few, many = lines_of_a_call(FEW), lines_of_a_call(MANY)
    assert many[0] < few[0] * 1.1
    assert many[1] < few[1] * 1.1


def calls_of(plane: Plane, worker: str) -> int:
    """How many calls have this worker as their primary."""
    placed = [call.placement for call in plane.core.book.calls.values()]
    return sum(each is not None and each.primary.id == worker for each in placed)


def test_a_workers_death_is_one_look_at_all_calls() -> None:
    counts = []
    for standing in (FEW, MANY):
        plane = Plane(MANY)
        come(plane, standing)
        plane.seconds(4)
        victim = plane.workers[0]
        assert calls_of(plane, victim)
        del plane.carried[victim]  # it beats no more
        with Lines() as dying:
            plane.seconds(3)
        assert not calls_of(plane, victim)
        counts.append(dying.count / standing)
    few, many = counts
    assert many < few * 1.2


def test_what_workers_carry_follows_the_calls() -> None:
    plane = Plane(MANY)
    come(plane, 30)
    book = plane.core.book
    for _ in range(20):
        plane.call()
    plane.end()
    followed = {name: round(load, 6) for name, load in (book.workers.loads or {}).items()}
    calls = [call for call in book.calls.values() if call.state in ("live", "reconnecting")]
    added = book.workers.add_up((call.placement, call.active) for call in calls)
    assert followed == {name: round(load, 6) for name, load in added.items()}
    assert round(sum(added.values()), 6) == round(len(calls) * 1.2, 6)
