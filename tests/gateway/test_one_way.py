"""A one-way stream at the whole gateway: it waits, has its turn, and is replaced or not needed.

The rules are tested without sockets in test_admission.py; here they meet the wire.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from trunkline.bus import messages as m
from trunkline.bus.testing import until
from trunkline.gateway import admission

from .stack import Stack, event, media


async def waiting(stack: Stack) -> ClientConnection:
    """A one-way stream that has been let in, and waits."""
    stack.controller.tokens["t2"] = replace(stack.accepted(), first=False, one_way=True)
    client = await stack.stream("t2")
    await until(lambda: "c1" in stack.gateway.shell.admission._waiting)
    return client


async def play(client: ClientConnection, frames: range) -> None:
    for n in frames:
        await client.send(media(20 * n, bytes([n % 256]) * 160))


def turn(stack: Stack, ordinal: int = 2) -> None:
    stack.controller.tell(m.StreamTurn(info=stack.accepted(ordinal=ordinal).info))


def last(stack: Stack) -> m.OpenCall:
    return stack.a.all(m.OpenCall)[-1]


async def test_it_waits_beside_the_stream_and_carries_the_call_once_that_is_gone(
    stack: Stack,
) -> None:
    first = await stack.up()
    one_way = await waiting(stack)
    await play(one_way, range(3))
    await play(first, range(1))
    await until(stack.a.frames)
    assert [f.ordinal for f in stack.a.frames()] == [1]
    await first.send(event("stop"))
    await until(lambda: stack.controller.all(m.StreamClosed))
    turn(stack)
    await until(lambda: last(stack).ordinal == 2)
    assert (last(stack).one_way, last(stack).joins) == (True, True)
    assert [(f.position, f.payload[0]) for f in last(stack).ring] == [(0, 0), (160, 1), (320, 2)]
    await play(one_way, range(3, 5))
    await until(lambda: [f.position for f in stack.a.frames()][-2:] == [480, 640])
    # Its end is the call's.
    await one_way.send(event("stop"))
    await until(lambda: len(stack.controller.all(m.StreamClosed)) == 2)
    assert stack.controller.all(m.StreamClosed)[-1] == m.StreamClosed(
        call="c1", ordinal=2, reason="stop", gateway=stack.gateway.peer
    )


async def test_the_stream_that_is_back_is_opened_once_it_overlaps(stack: Stack) -> None:
    one_way = await waiting(stack)
    turn(stack)
    await until(lambda: stack.a.all(m.OpenCall))
    stack.controller.tokens["t3"] = replace(stack.accepted(ordinal=3), overlaps=True)
    back = await stack.stream("t3")
    await play(back, range(admission.OVERLAP_FRAMES - 1))
    await play(one_way, range(2))
    await until(lambda: len(stack.a.frames()) == 2)
    assert [f.ordinal for f in stack.a.frames()] == [2, 2]  # it still carries the call
    await play(back, range(7, 8))
    await until(lambda: last(stack).ordinal == 3)
    assert (last(stack).one_way, last(stack).joins) == (False, True)
    assert [f.position // 160 for f in last(stack).ring] == list(range(8))
    with pytest.raises(ConnectionClosed):
        await one_way.recv()
    await back.close()


def send_at_once(client: ClientConnection, frames: range) -> None:
    """Leave these frames in the gateway's socket, where it has yet to read them."""
    for n in frames:
        client.protocol.send_text(media(20 * n, bytes([n % 256]) * 160).encode())
    client.transport.write(b"".join(client.protocol.data_to_send()))


async def test_what_waits_on_its_socket_is_read_before_it_is_closed(stack: Stack) -> None:
    """The gateway stood still for 3 s. It reads the controller's word before the carrier's."""
    one_way = await waiting(stack)
    turn(stack)
    await until(lambda: stack.a.all(m.OpenCall))
    send_at_once(one_way, range(150))
    stack.gateway.shell.event(m.CloseStream(call="c1", one_way=True, ordinal=2))
    await until(lambda: stack.a.all(m.StreamEnded))
    assert [f.position for f in stack.a.frames()] == [160 * n for n in range(150)]


async def test_what_waits_on_its_socket_is_read_before_the_next_stream_is_opened(
    stack: Stack,
) -> None:
    """The gateway stood still for 3 s. It reads the later stream's socket before this one's."""
    one_way = await waiting(stack)
    turn(stack)
    await until(lambda: stack.a.all(m.OpenCall))
    shell = stack.gateway.shell
    number = shell.streams.socket_of("c1")
    stack.controller.tokens["t3"] = replace(stack.accepted(ordinal=3), overlaps=True)
    back = await stack.stream("t3")
    await play(back, range(admission.OVERLAP_FRAMES - 1))
    (other,) = (each for each in shell.sockets.values() if each.number != number)
    await until(lambda: len(other._applicant.held) == admission.OVERLAP_FRAMES - 1)
    send_at_once(one_way, range(150))
    other.text(media(140, bytes(160)).encode())
    await until(lambda: last(stack).ordinal == 3)
    assert [f.position for f in stack.a.frames()] == [160 * n for n in range(150)]
    await back.close()


async def test_one_that_is_not_needed_is_closed_and_nothing_else(stack: Stack) -> None:
    first = await stack.up()
    one_way = await waiting(stack)
    stack.controller.tell(m.CloseStream(call="c1", one_way=True, ordinal=2))  # another one
    stack.controller.tell(m.CloseStream(call="c1", one_way=True))
    with pytest.raises(ConnectionClosed):
        await one_way.recv()
    assert stack.gateway.shell.streams.live == 1
    await first.close()
