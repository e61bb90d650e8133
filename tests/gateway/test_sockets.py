"""Sockets that are read together: as something comes, or by the clock."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator

import pytest

from trunkline.bus.testing import until
from trunkline.bus.wall import Wall
from trunkline.gateway.sockets import CLOCKED_FROM, PATIENT_PERIOD, PERIOD, Sockets


class Read:
    """What was read of each socket, and how often all had been read."""

    def __init__(self, wall: Wall | None = None) -> None:
        self.patient = False
        self.sockets = Sockets(self._after, wall, lambda: self.patient)
        self.got: list[tuple[int, bytes]] = []
        self.done = asyncio.Event()

    def add(self, end: socket.socket) -> None:
        number = end.fileno()
        self.sockets.add(number, lambda: self.got.append((number, end.recv(100))))

    def _after(self) -> None:
        if self.got:
            self.done.set()


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    made = [socket.socketpair() for _ in range(CLOCKED_FROM)]
    yield made
    for both in made:
        for end in both:
            end.close()


async def test_a_few_are_read_as_something_comes(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    read = Read()
    for near, _ in pairs[: CLOCKED_FROM - 1]:
        read.add(near)
    assert (read.sockets.clocked, read.sockets.read_within) == (False, 0.0)
    pairs[0][1].send(b"x")
    await asyncio.wait_for(read.done.wait(), 5)
    assert read.got == [(pairs[0][0].fileno(), b"x")]
    for near, _ in pairs[: CLOCKED_FROM - 1]:
        read.sockets.remove(near.fileno())


async def test_many_are_read_in_one_go_by_the_clock(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    read = Read()
    for near, _ in pairs:
        read.add(near)
    assert (read.sockets.clocked, read.sockets.read_within) == (True, PERIOD)
    for near, far in pairs:
        far.send(bytes([near.fileno()]))
    await asyncio.sleep(0)
    assert read.got == []  # nothing wakes the loop for it
    await asyncio.wait_for(read.done.wait(), 5)
    assert sorted(read.got) == sorted((n.fileno(), bytes([n.fileno()])) for n, _ in pairs)
    read.sockets.remove(pairs[0][0].fileno())
    assert not read.sockets.clocked
    read.done.clear()
    read.got.clear()
    pairs[0][1].send(b"not read any more")
    pairs[1][1].send(b"y")
    await asyncio.wait_for(read.done.wait(), 5)
    assert read.got == [(pairs[1][0].fileno(), b"y")]
    for near, _ in pairs[1:]:
        read.sockets.remove(near.fileno())


async def test_where_nobody_waits_for_a_frame_two_of_each_call_are_read_together(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    read = Read()
    read.patient = True
    for near, _ in pairs:
        read.add(near)
    assert (read.sockets.in_pairs, read.sockets.read_within) == (True, PATIENT_PERIOD)
    loop = asyncio.get_running_loop()
    at = read.sockets._timer_at
    assert round(at / PATIENT_PERIOD, 3) == round(at / PATIENT_PERIOD)
    assert loop.time() < at <= loop.time() + 1.25 * PATIENT_PERIOD
    read.patient = False
    pairs[0][1].send(b"x")
    await asyncio.wait_for(read.done.wait(), 5)
    # The look that was just had may have been the first for so long. The next one comes sooner.
    assert (read.sockets.in_pairs, read.sockets.read_within) == (False, PATIENT_PERIOD)
    read.done.clear()
    pairs[0][1].send(b"x")
    await asyncio.wait_for(read.done.wait(), 5)
    assert read.sockets.read_within == PERIOD
    for near, _ in pairs:
        read.sockets.remove(near.fileno())
    assert not read.sockets.in_pairs


async def test_one_that_closes_another_while_all_are_read(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    read = Read()
    (first, one), (second, two) = pairs[:2]
    for this, other in ((first, second), (second, first)):
        number = this.fileno()

        def closes(this: socket.socket = this, other: socket.socket = other) -> None:
            read.got.append((this.fileno(), this.recv(100)))
            read.sockets.remove(other.fileno())

        read.sockets.add(number, closes)
    one.send(b"1")
    two.send(b"2")
    await asyncio.wait_for(read.done.wait(), 5)
    assert len(read.got) == 1
    read.sockets.remove(read.got[0][0])


@pytest.mark.parametrize("count", [1, CLOCKED_FROM])
async def test_one_whose_reading_fails_holds_up_none_of_the_others(
    pairs: list[tuple[socket.socket, socket.socket]], count: int
) -> None:
    wall = Wall(logging.getLogger("trunkline.test"))
    read = Read(wall)

    def fail() -> None:
        near.recv(100)
        raise ZeroDivisionError("a defect")

    near, far = pairs[0]
    read.sockets.add(near.fileno(), fail)
    for other, _ in pairs[1:count]:
        read.add(other)
    for _, end in pairs[:count]:
        end.send(b"x")
    await until(lambda: wall.dropped["fault"] == 1 and len(read.got) == count - 1)
    far.send(b"y")
    await until(lambda: wall.dropped["fault"] == 2)
    for each, _ in pairs[:count]:
        read.sockets.remove(each.fileno())
