"""Cassettes of real calls: no secret is in them, and played again they tell what differs."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trunkline import Line
from trunkline.bus.cassettes import SUFFIX
from trunkline.replay.cassette import Cassette, read

from .sound import speech
from .stack import ALICE, CALLEE, CALLER, DAVE, Stack, calling, until

#: Replays meet a busy machine: what a test plants differs by more.
OPTIONS = ("--json", "--tolerance", "0.8")


def replay(stack: Stack, path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    done = stack.command("replay", str(path), *OPTIONS, *options)
    assert done.stderr == "", done.stderr
    return done.returncode, json.loads(done.stdout)


async def hold_a_call(stack: Stack) -> str:
    """A call that we place, with words and a key; its SID."""
    async with calling(stack, "speech:austen-0880,when_silent=0.5,repeat") as call:
        await call.send_audio(speech(1.0))
        await asyncio.sleep(0.5)
        await call.send_dtmf("1")
        await call.send_audio(speech(0.7))
        await call.hang_up()
        return call.sid


async def answer_a_call(stack: Stack, number: str) -> str:
    """A call that comes to ``number``, and hears us; its SID."""
    async with Line(number, bus=stack.bus) as line:
        waiting = asyncio.create_task(line.wait_for_call(20.0))
        # The carrier may have the override some time before its answer has come. A call that comes
        # meanwhile is let wait, as a call that is played again is not.
        await until(lambda: stack.armed(number), "the number is armed")
        stack.sim.place_call(CALLER, number, "echo")
        call = await waiting
        await call.send_audio(speech(1.0))
        await asyncio.sleep(0.3)
        await call.interrupt()
        (stream,) = stack.sim.call(call.sid)["streams"]
        await until(lambda: stack.sim.spans(stream["sid"])["clears"], "the carrier has the clear")
        await call.hang_up()
        return call.sid


def change(path: Path, into: Path, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """The cassette with each row as ``edit`` makes it."""
    rows = (json.loads(line) for line in path.read_text().splitlines())
    into.write_text("".join(json.dumps(edit(row)) + "\n" for row in rows))
    return into


@pytest.mark.measures
async def test_calls_are_kept_without_secrets_and_played_again(
    new_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    stack = new_stack()
    directory = tmp_path / "calls"
    stack.environment["TRUNKLINE_CASSETTES_DIR"] = str(directory)
    stack.up(gateways=2, codec_workers=1)
    placed = await hold_a_call(stack)
    # The settings of this number have a password, which the URL that the carrier posts to seals.
    answered = await answer_a_call(stack, DAVE)
    await until(lambda: not stack.live_calls(), "the calls are over")
    tokens = {
        str(stream["parameters"]["nonce"])
        for sid in (placed, answered)
        for stream in stack.sim.call(sid)["streams"]
    }
    urls = {str(entry["url"]) for entry in stack.sim.webhook_log()}
    values = {value for url in urls for value in re.findall(r"=([^&#]{5,})", url)}
    stack.stop()
    assert {path.name for path in directory.iterdir()} == {
        f"{sid}{SUFFIX}" for sid in (placed, answered)
    }
    secret = tokens | values | {stack.token, stack.account, "secret"}
    secret |= {number.lstrip("+") for number in (ALICE, DAVE, CALLER, CALLEE)}
    assert len(tokens) >= 3 and len(values) >= 3
    for path in directory.iterdir():
        text = path.read_text()
        assert [each for each in secret if each in text] == []
    kept = {sid: read(directory / f"{sid}{SUFFIX}") for sid in (placed, answered)}
    check_placed(kept[placed])
    assert kept[answered].direction == "inbound"
    parties = [(hook.form["From"], hook.form["To"]) for hook in kept[placed].hooks]
    assert len(set(parties)) == 1, "a number has one mask"

    for sid in (placed, answered):
        status, told = await asyncio.to_thread(replay, stack, directory / f"{sid}{SUFFIX}")
        assert (status, told["differences"]) == (0, [])

    def otherwise(row: dict[str, Any]) -> dict[str, Any]:
        """As if the stack had let the call in without a redirect."""
        if row.get("kind") == "webhook.response":
            return row | {"body": re.sub("<Redirect.*</Redirect>", "", row["body"])}
        return row

    changed = change(directory / f"{answered}{SUFFIX}", tmp_path / "changed", otherwise)
    status, told = await asyncio.to_thread(replay, stack, changed)
    (different,) = told["differences"]
    assert status == 1 and different["where"] == "webhook 1 (/twilio/voice)"
    assert "<Redirect" in different["now"] and "<Redirect" not in different["was"]


def check_placed(call: Cassette) -> None:
    assert call.direction == "outbound-api" and call.sound
    created = [request for request in call.rest if request.path.endswith("/Calls.json")]
    assert [request.status for request in created] == [201]
    assert any('digits="1"' in str(request.form.get("Twiml")) for request in call.rest)
    assert len(call.streams) == 3 and len(call.streams[0].said) > 20
    for stream in call.streams:
        times = [at for at, _ in stream.heard]
        assert times == sorted(times) and stream.closed is not None
        sent = [int(m["sequenceNumber"]) for _, m in stream.heard if "sequenceNumber" in m]
        assert sent == list(range(1, len(sent) + 1)), "every message of the carrier is there"
