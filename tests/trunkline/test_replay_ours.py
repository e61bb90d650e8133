"""Our side of a call is played to an agent that the call was made to (``--play ours``)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from trunkline.replay import command
from trunkline.replay.cassette import Cassette, Exchange, Stream
from trunkline.replay.compare import Difference
from trunkline.replay.mirror import mirrored
from trunkline.replay.ourselves import Action
from trunkline.replay.sound import spoken
from trunkline.replay.stream import Player

from .replays import (
    LOUD,
    QUIET,
    SID,
    Agent,
    Message,
    found,
    greets,
    listening,
    mark,
    media,
    replayed,
    run,
    speech,
    taped,
    write,
)


def frames(words: list[tuple[float, float]], seconds: float) -> list[tuple[float, Message]]:
    """The carrier's media messages of a far end that speaks from time to time."""
    found = []
    for n in range(round(seconds / 0.02)):
        speaks = any(start <= n * 0.02 < end for start, end in words)
        found.append((n * 0.02, media(LOUD if speaks else QUIET)))
        found[-1][1]["media"]["timestamp"] = str(n * 20)
    return found


def talked() -> Stream:
    """Our stream of a call. We speak from 0.5 to 1.5 s. The far end answers at 2 s, and yields to
    us at 4 s. We have more to say than that, but fall silent at 4.5 s. It answers at 5 s, and is
    still speaking when we hang up at 9 s."""
    stream = taped(9.0)
    others = [item for item in stream.heard if item[1]["event"] != "media"]
    heard = [*others, *frames([(2.0, 4.06), (5.0, 9.0)], 9.0)]
    said = [*speech(0.5, 1.0), *[(4.0, media())] * 200, (4.5, {"event": "clear"}), (8.9, mark())]
    return replace(stream, heard=sorted(heard, key=lambda item: item[0]), said=said)


def answers(after: float, *, yields: bool = True) -> Agent:
    """An agent that answers so many seconds after somebody fell silent, for 6 s."""

    async def agent(socket: ServerConnection) -> None:
        quiet, plays_until, n = -1, 0, 0
        with contextlib.suppress(ConnectionClosed):
            async for text in socket:
                message = json.loads(text)
                if message["event"] != "media":
                    continue
                n += 1
                if message["media"]["payload"] == LOUD:
                    quiet = 0
                    if yields and n < plays_until:
                        plays_until = n
                        await socket.send(json.dumps({"event": "clear", "streamSid": SID}))
                elif quiet >= 0:
                    quiet += 1
                if quiet * 0.02 >= after and n >= plays_until:
                    quiet, plays_until = -1, n + 300
                    await socket.send(json.dumps(media(base64.b64encode(bytes(48_000)).decode())))

    return agent


async def test_an_agent_that_was_called_is_told_from_one_that_has_changed() -> None:
    call = Cassette("CA1", streams=[talked()])
    call.rest = [Exchange(9.0, "/Calls/CA1.json", {"Status": "completed"})]

    async def differs(agent: Agent) -> list[Difference]:
        async with listening(agent) as url:
            was, now = await command._play_streams(call, url, Player("AC1"), ours=True)
        return found(was, now, seconds=1.5, signals=False)

    same, slower, stubborn = await asyncio.gather(
        differs(answers(0.5)), differs(answers(3.5)), differs(answers(0.5, yields=False))
    )
    assert same == []
    assert slower[0].where == "stream 1, sound 1" and " at 2." in slower[0].was, slower
    assert stubborn[0].where == "stream 1, sound 1" and "2.06 s at 2." in stubborn[0].was, stubborn


def test_the_far_end_hears_what_was_played_and_our_keys() -> None:
    ours = [Action(1.0, "press", digits="1w#"), Action(9.0, "hang up")]
    far = mirrored([talked()], ours)
    (first, second) = spoken(far.heard, 0.0)
    assert (first.start, first.end) == pytest.approx((0.52, 1.52), abs=0.021)
    assert (second.start, second.end) == pytest.approx((4.02, 4.52), abs=0.021)
    keys = [(at, m["dtmf"]["digit"]) for at, m in far.heard if m["event"] == "dtmf"]
    assert [digit for _, digit in keys] == ["1", "#"]
    assert [at for at, _ in keys] == pytest.approx([1.08, 1.78])
    assert far.heard[-1][1]["event"] == "stop" and far.stopped
    assert [m["event"] for _, m in far.heard[:3]] == ["connected", "start", "media"]
    sids = {m["streamSid"] for _, m in far.heard if m["event"] in ("media", "dtmf", "start")}
    assert sids == {SID}


def test_a_far_end_that_hung_up_is_to_hang_up_again() -> None:
    far = mirrored([talked()], [])
    assert not far.stopped and far.reason == "close"
    assert far.heard[-1][0] > talked().heard[-1][0] + 1.0, "it hears us until it does"


def test_streams_before_and_behind_our_keys_are_one_to_the_far_end() -> None:
    before, behind = talked(), replace(talked(), sid="MZ3")
    behind.opened, behind.closed = 10.0, 19.06
    for side in (behind.heard, behind.said):
        side[:] = [(at + 10.0, message) for at, message in side]
    far = mirrored([before, behind], [Action(19.0, "hang up")])
    assert [round(each.start) for each in spoken(far.said, 0.0)] == [2, 5, 12, 15]
    assert [round(each.start, 1) for each in spoken(far.heard, 0.0)] == [0.5, 4.0, 10.5, 14.0]
    assert [m["event"] for _, m in far.heard].count("start") == 1


def test_a_far_end_is_not_late_where_its_sound_came_late() -> None:
    """The machine that recorded the call had stood still for two seconds."""
    stream = talked()
    stream.heard = [(at if at < 1.0 else max(at, 3.0), each) for at, each in stream.heard]
    far = mirrored([stream], [])
    assert [round(each.start, 1) for each in spoken(far.said, 0.0)] == [2.0, 5.0]


async def test_who_plays_the_wrong_side_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "CA1.cassette", taped(0.1))
    with path.open("a") as file:
        order = {"id": "1", "path": "/Calls.json", "form": {"To": "+15551234567"}}
        file.write(json.dumps({"at": 0.0, "dir": "out", "kind": "rest.request"} | order) + "\n")
    told = await replayed(path, greets(0.3))
    assert "--play ours" in told["notes"][0]
    told = await replayed(path, greets(0.3), "--play", "ours")
    assert told["notes"] == [] and not any("mark" in each["where"] for each in told["differences"])
    for argv in ([], ["--against", "http://x"], ["--against", "ws://x", "--speed", "fast"]):
        result = run(path, "--play", "ours", *argv)
        assert result.exit_code == 2 and "--play ours" in result.output
