"""A call's one recording and cassette: whatever becomes of its gateway, on the call's clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.sound import speech
from e2e.stack import Stack, calling, until

from trunkline.bus import wav
from trunkline.carrier_sim.mulaw import decode
from trunkline.ear.figures import Report, Segment
from trunkline.ear.listen import listen
from trunkline.replay.cassette import Stream, read
from trunkline.reports.recordings import hear

from .conversations import BROKEN, gateway_of, kill

#: Seconds by which a figure may differ from the carrier's own record. The controller's word on the
#: call's age took a moment to come, and a stream begins on a frame of 20 ms.
NEAR = 0.08


def recorded(directory: Path) -> Report:
    """The report of the only recording that there is."""
    (path,) = directory.glob("*.wav")
    theirs, ours = wav.read_channels(path, 8_000)
    return listen(ours, theirs)


def begun(segments: list[Segment]) -> list[float]:
    """When each began, from the first on."""
    return [each.start - segments[0].start for each in segments]


async def test_the_streams_of_two_gateways_and_digits_between(
    new_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    stack = new_stack()
    stack.provoked |= BROKEN
    stack.environment["TRUNKLINE_RECORDINGS_DIR"] = str(tmp_path / "calls")
    stack.environment["TRUNKLINE_CASSETTES_DIR"] = str(tmp_path / "cassettes")
    stack.environment["TRUNKLINE_CASSETTES_SOUND"] = "no"
    stack.up(gateways=2, codec_workers=1)
    far_end = {"kind": "wav", "speech": "austen-0880", "when_silent": 0.5, "repeat": True}
    far_end["dtmf"] = [[0.5, "7"]]
    async with calling(stack, far_end) as call:
        await call.send_audio(speech(1.5))
        await asyncio.sleep(1.0)
        await call.send_dtmf("1")
        await call.send_audio(speech(1.5))
        assert recorded(tmp_path / "calls").sides.ours.segments, "while it grows, too"
        shown = await asyncio.to_thread(stack.command, "show", call.sid, "--json")
        told = json.loads(shown.stdout)
        assert told["call"]["state"] == "live" and told["report"]["sides"]["ours"]["segments"]
        kill(gateway_of(stack, call))
        cassette = tmp_path / "cassettes" / f"{call.sid}.cassette"
        lost = read(cassette).streams[-1]
        await until(lambda: len(stack.sim.call(call.sid)["streams"]) >= 4, "a stream of another")
        await asyncio.sleep(1.0)
        await call.send_audio(speech(1.5))
        await asyncio.sleep(1.0)
        await call.hang_up()
    await until(lambda: not stack.live_calls(), "the call is over")
    stack.stop()
    truth = listen(decode(stack.sim.played(call.sid)), decode(stack.sim.said(call.sid)))
    found = recorded(tmp_path / "calls")
    ours, heard = found.sides.ours.segments, truth.sides.ours.segments
    assert len(heard) == 3, heard
    assert begun(ours) == pytest.approx(begun(heard), abs=NEAR)
    theirs, said = found.sides.theirs.segments, truth.sides.theirs.segments
    # What they said while nobody was connected is in no recording: their last words are looked at.
    assert theirs[-1].end - ours[0].start == pytest.approx(said[-1].end - heard[0].start, abs=NEAR)
    (path,) = (tmp_path / "calls").glob(f"*-{call.sid}.wav")
    # Keys have no sound in a stream: the recording names ours, between our first words and our
    # second, and the far end's, which comes at a place that the carrier's record has, too.
    keys = hear(path).report.digits
    assert {(key.side, key.digit) for key in keys} == {("ours", "1"), ("theirs", "7")}
    (pressed,) = [key.at for key in keys if key.side == "ours"]
    assert ours[0].end < pressed < ours[1].start
    report = stack.command("report", call.sid, TRUNKLINE_RECORDINGS_DIR=str(path.parent))
    assert report.returncode == 0, report.stderr
    assert path.name in report.stdout
    listed = json.loads(stack.command("calls", "--json").stdout)
    (known,) = listed["calls"]
    assert (known["sid"], known["state"], known["direction"]) == (call.sid, "ended", "outbound")
    assert (known["caller"], known["callee"]) == (call.caller, call.callee)
    assert known["recording"] == str(path) and not listed["stack"]
    assert known["test"].endswith("::test_the_streams_of_two_gateways_and_digits_between")
    check_cassette(cassette, lost)


def check_cassette(path: Path, lost: Stream) -> None:
    """It could be read when the gateway had died with the stream ``lost``, and went on."""
    kept = read(path)
    *before, after = kept.streams
    assert before[-1].sid == lost.sid and before[-1].closed is None, "nobody saw its end"
    assert len(lost.heard) > 50 and after.opened > lost.heard[-1][0]
    assert len(kept.voice) == 1, "the redirect behind the broken stream"
    assert not kept.sound and '"payload"' not in path.read_text()
