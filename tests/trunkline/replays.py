"""Cassettes of short calls, agents that they are played to, and the command that plays them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from trunkline.cli.main import cli
from trunkline.replay.cassette import Cassette, Stream
from trunkline.replay.compare import Difference, Tolerance, differences

SID = "MZ" + "2" * 32
LOUD = base64.b64encode(b"\x00" * 160).decode()
QUIET = base64.b64encode(b"\xff" * 160).decode()

Message = dict[str, Any]
Agent = Callable[[ServerConnection], Awaitable[None]]


def media(payload: str = LOUD) -> Message:
    return {"event": "media", "streamSid": SID, "media": {"payload": payload}}


def speech(at: float, seconds: float) -> list[tuple[float, Message]]:
    return [(at + n * 0.02, media()) for n in range(round(seconds / 0.02))]


def mark(name: str = "m") -> Message:
    return {"event": "mark", "streamSid": SID, "mark": {"name": name}}


def taped(seconds: float = 0.4) -> Stream:
    """The carrier's side of a short stream."""
    names = {"callSid": "CA1", "accountSid": "AC0", "customParameters": {"nonce": "***"}}
    start = {"event": "start", "streamSid": SID, "start": names}
    heard: list[tuple[float, Message]] = [(0.0, {"event": "connected"}), (0.01, start)]
    heard += [(0.02 + n * 0.02, media(QUIET)) for n in range(round(seconds / 0.02))]
    heard.append((seconds + 0.05, {"event": "stop", "streamSid": SID, "stop": {}}))
    return Stream(SID, 0.0, heard, closed=seconds + 0.06, reason="stop")


def greets(seconds: float, *, marks: int = 1) -> Agent:
    """An agent that says so much at the beginning, and then some marks."""

    async def agent(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in socket:
                event = json.loads(text)["event"]
                if event == "start":
                    for _, message in speech(0.0, seconds):
                        await socket.send(json.dumps(message))
                    for n in range(marks):
                        await socket.send(json.dumps(mark(f"{n}")))
                elif event == "stop":
                    await socket.close()

    return agent


@contextlib.asynccontextmanager
async def listening(agent: Agent) -> AsyncIterator[str]:
    async with serve(agent, "127.0.0.1", 0) as server:
        (socket,) = server.sockets
        yield f"ws://127.0.0.1:{socket.getsockname()[1]}/media"


def write(path: Path, stream: Stream) -> Path:
    """The cassette of a call with this stream."""
    rows: list[dict[str, Any]] = [{"trunkline_cassette": 1, "call": "CA1", "began": ""}]
    about = {"stream": stream.sid}
    rows.append({"at": stream.opened, "dir": "in", "kind": "stream.open"} | about)
    for direction, messages in (("in", stream.heard), ("out", stream.said)):
        kind = {"dir": direction, "kind": "stream.message"} | about
        rows += [{"at": at} | kind | {"message": message} for at, message in messages]
    closed = {"at": stream.closed, "dir": "in", "kind": "stream.close", "reason": stream.reason}
    rows.append(closed | about)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*argv: object) -> Result:
    return CliRunner().invoke(cli, ["replay", *map(str, argv)])


async def replayed(path: Path, agent: Agent, *options: str) -> dict[str, Any]:
    async with listening(agent) as url:
        argv = (path, "--against", url, "--json", *options)
        result = await asyncio.to_thread(run, *argv)
    assert result.exit_code in (0, 1), result.output
    told: dict[str, Any] = json.loads(result.output)
    assert told["same"] == (result.exit_code == 0)
    return told


def found(was: Cassette, now: Cassette, **tolerance: Any) -> list[Difference]:
    return differences(was, now, Tolerance(**tolerance))
