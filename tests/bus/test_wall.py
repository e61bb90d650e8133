"""The wall: what cannot be decoded or handled ends nothing, is counted, and is logged in bounds."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec
import pytest

from trunkline.bus import messages as m
from trunkline.bus.testing import FakeClock, poison
from trunkline.bus.wall import LOGGED_EVERY, Wall

POISON = poison()
log = logging.getLogger("trunkline.test")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def wall(clock: FakeClock) -> Wall:
    return Wall(log, clock=clock)


@pytest.mark.parametrize("what", POISON)
@pytest.mark.parametrize("union", [m.ToController, m.ToWorker, m.FromController, m.WorkerToGateway])
def test_poison_is_dropped_whichever_socket_brings_it(wall: Wall, union: object, what: str) -> None:
    handled: list[object] = []
    wall.door(union, handled.append, "a test")(POISON[what])
    wall.gate(union, lambda _, message: handled.append(message), "a test")(b"id", POISON[what])
    assert (handled, wall.dropped) == ([], {"undecodable": 2})


def test_what_was_good_is_handled_behind_what_was_not(wall: Wall) -> None:
    handled: list[object] = []
    receive = wall.door(m.ToWorker, handled.append, "a test")
    good = m.Detach("c1")
    for payload in (*POISON.values(), msgspec.msgpack.encode(good)):
        receive(payload)
    assert handled == [good]


def test_a_fault_of_ours_is_counted_and_logged_with_its_traceback(
    wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(message: object) -> None:
        raise KeyError("a defect")

    receive = wall.door(m.ToWorker, fail, "a test")
    receive(msgspec.msgpack.encode(m.Detach("c1")))
    assert wall.dropped == {"fault": 1}
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "a Detach failed")
    assert record.exc_info is not None and isinstance(record.exc_info[1], KeyError)


def test_each_kind_is_logged_once_a_minute_with_how_often_it_came(
    wall: Wall, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    receive = wall.door(m.ToWorker, lambda _: None, "a rogue")
    for _ in range(1_000):
        receive(b"")
    wall.fault("turn", ValueError("one"))
    wall.fault("turn", ValueError("two"))
    wall.fault("Attach", ValueError("another kind"))
    assert [record.getMessage()[:14] for record in caplog.records] == [
        "a message of a",
        "a turn failed",
        "a Attach faile",
    ]
    clock.now += LOGGED_EVERY
    receive(b"")
    assert caplog.messages[-1].endswith("(and 999 like it since the last of these lines)")
    assert wall.dropped == {"undecodable": 1_001, "fault": 3}


def test_what_a_rogue_wrote_does_not_fill_the_log(
    wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    long = msgspec.msgpack.encode(["x" * 2**20])
    wall.door(m.ToWorker, lambda _: None, "a rogue")(long)
    (text,) = caplog.messages
    assert len(text) < 400


def test_a_process_may_count_for_itself_too() -> None:
    counted: list[str] = []
    Wall(log, counted.append).door(m.ToWorker, lambda _: None, "a rogue")(b"")
    assert counted == ["undecodable"]


def test_work_that_fails_says_so_and_ends_nothing(wall: Wall) -> None:
    done: list[int] = []
    act: Callable[[int], None] = done.append

    def fail(_: int) -> None:
        raise RecursionError

    assert (wall.shield("work", act, 1), wall.shield("work", fail, 2)) == (True, False)
    assert (done, wall.dropped) == ([1], {"fault": 1})


def test_a_request_that_cannot_be_decoded_is_handed_on_with_the_reason(wall: Wall) -> None:
    got: list[tuple[bytes, bytes, str]] = []

    def refused(identity: bytes, payload: bytes, error: Exception) -> None:
        got.append((identity, payload, str(error)))
        raise ValueError("what it does may fail too")

    asked = {"type": "Request", "peer": "p", "id": 1, "ttl": float("inf"), "body": {}}
    payload = msgspec.msgpack.encode(asked)
    wall.gate(m.ToController, lambda *_: None, "a peer", refused)(b"one", payload)
    ((identity, again, why),) = got
    assert (identity, again) == (b"one", payload)
    assert "$.ttl" in why and wall.dropped == {"undecodable": 1, "fault": 1}
