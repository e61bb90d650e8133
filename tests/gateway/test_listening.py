"""A call that is listened to at the whole gateway: two tracks on one socket, each worked on as a
stream of its own, of which the controller hears one."""

from __future__ import annotations

from msgspec.structs import replace
from websockets.asyncio.client import ClientConnection

from trunkline.bus import messages as m
from trunkline.bus.testing import until

from .stack import Stack, close_code, event, media

BOTH = ("inbound", "outbound")
INBOUND, OUTBOUND = "c1", m.outbound_track("c1")


def heard(stack: Stack, ordinal: int = 1) -> m.StreamAccepted:
    """The controller's answer to a stream of a call that is listened to."""
    accepted = stack.accepted(ordinal=ordinal)
    return replace(accepted, info=replace(accepted.info, theirs="outbound"))


async def up(stack: Stack, ordinal: int = 1) -> ClientConnection:
    """Its stream, whose tracks worker ``a`` has."""
    stack.controller.tokens[f"t{ordinal}"] = heard(stack, ordinal)
    client = await stack.stream(f"t{ordinal}", tracks=BOTH)
    await until(lambda: [x.ordinal for x in stack.a.all(m.OpenCall)].count(ordinal) == 2)
    return client


async def say(client: ClientConnection, frames: range) -> None:
    """20 ms of both tracks for each frame, of which the outbound one comes first."""
    for n in frames:
        await client.send(media(20 * n, bytes([100 + n]) * 160, "outbound"))
        await client.send(media(20 * n, bytes([n]) * 160))


def sound(stack: Stack, call: str) -> list[tuple[int, int]]:
    """(position, first byte) of the frames of a track that worker ``a`` was told."""
    return [(f.position, f.payload[0]) for f in stack.a.frames() if f.call == call]


async def test_both_tracks_go_to_the_worker_as_streams_that_take_no_sound(stack: Stack) -> None:
    client = await up(stack)
    opened = {x.call: x for x in stack.a.all(m.OpenCall)}
    assert set(opened) == {INBOUND, OUTBOUND}
    assert all(x.one_way and not x.joins for x in opened.values())
    await say(client, range(3))
    await until(lambda: len(stack.a.frames()) == 6)
    assert sound(stack, INBOUND) == [(0, 0), (160, 1), (320, 2)]
    assert sound(stack, OUTBOUND) == [(0, 100), (160, 101), (320, 102)]
    # Nothing is said into it.
    stack.a.speak(opened[INBOUND].generation, 0, b"x" * 160)
    await until(lambda: stack.gateway.shell.streams.dropped["one-way"] == 1)
    await client.send(event("stop"))
    await until(lambda: len(stack.a.all(m.StreamEnded)) == 2)
    (closed,) = stack.controller.all(m.StreamClosed)
    assert (closed.call, closed.reason) == (INBOUND, "stop")


async def test_what_came_before_the_answer_is_heard_on_both_tracks(stack: Stack) -> None:
    stack.controller.answers[m.StreamStart] = None
    client = await stack.stream("t1", tracks=BOTH)
    await until(lambda: stack.controller.requests)
    await say(client, range(2))
    stack.controller.answer_last(heard(stack))
    await until(lambda: len(stack.a.all(m.OpenCall)) == 2)
    await say(client, range(2, 3))
    await until(lambda: stack.a.frames())

    def whole(call: str) -> list[int]:
        rings = [x.ring for x in stack.a.all(m.OpenCall) if x.call == call]
        return [f.payload[0] for f in rings[0]] + [byte for _, byte in sound(stack, call)]

    await until(lambda: len(whole(INBOUND)) == 3)
    assert whole(INBOUND) == [0, 1, 2] and whole(OUTBOUND) == [100, 101, 102]


async def test_both_tracks_move_when_their_worker_dies(stack: Stack) -> None:
    client = await up(stack)
    await say(client, range(2))
    await until(lambda: len(stack.a.frames()) == 4)
    stack.a.die()
    await until(lambda: len(stack.b.all(m.OpenCall)) == 2)
    assert {x.call: len(x.ring) for x in stack.b.all(m.OpenCall)} == {INBOUND: 2, OUTBOUND: 2}
    await until(lambda: stack.controller.all(m.CallMoved))
    assert [x.call for x in stack.controller.all(m.CallMoved)] == [INBOUND]


async def test_a_placement_and_the_end_are_for_both_tracks(stack: Stack) -> None:
    client = await up(stack)
    assert [x.call for x in stack.gateway.shell.streams.stats()] == [INBOUND]
    assert [x.info.call for x in stack.gateway.shell.streams.announce(0.0)] == [INBOUND]
    placement = m.Placement(epoch=1, n=2, primary=stack.b.ref)
    stack.controller.tell(m.CallPlaced(call=INBOUND, placement=placement))
    await until(lambda: len(stack.b.all(m.OpenCall)) == 2)
    stack.controller.tell(m.CloseStream(call=INBOUND))
    assert await close_code(client) == 1000
    await until(lambda: len(stack.b.all(m.StreamEnded)) == 2)


async def test_a_later_stream_takes_the_place_of_both_tracks(stack: Stack) -> None:
    first = await up(stack)
    await up(stack, 2)
    assert await close_code(first) == 1000
    await until(lambda: len(stack.a.all(m.StreamEnded)) == 2)
    assert stack.gateway.shell.streams.live == 2


async def test_a_track_that_comes_too_fast_ends_the_stream_of_both(stack: Stack) -> None:
    client = await up(stack)
    for n in range(2_000):
        await client.send(media(20 * n, b"x" * 160, "outbound"))
    await until(lambda: stack.controller.all(m.StreamClosed))
    assert [x.reason for x in stack.controller.all(m.StreamClosed)] == ["too_fast"]
    await until(lambda: len(stack.a.all(m.StreamEnded)) == 2)
