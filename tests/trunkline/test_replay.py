"""A cassette is read, played at an agent's WebSocket, and its answers are compared."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from trunkline.bus.clock import monotonic
from trunkline.bus.errors import InvalidRequestError
from trunkline.carrier_sim.signature import sign
from trunkline.replay import cassette as files
from trunkline.replay import command
from trunkline.replay.call import CallPlayer, Lines
from trunkline.replay.carrier import Carrier
from trunkline.replay.cassette import Cassette, Exchange, Stream
from trunkline.replay.compare import Difference, document
from trunkline.replay.ourselves import actions
from trunkline.replay.sound import filled, spoken
from trunkline.replay.stream import Player

from .replays import (
    SID,
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

#: A call as a stack has kept it, without its sound.
RECORDED = Path(__file__).with_name("inbound.cassette")


# --------------------------------------------------------------------------- the file


def test_a_recorded_call_is_read(tmp_path: Path) -> None:
    found = files.read(RECORDED)
    assert (found.direction, found.sound, len(found.streams)) == ("inbound", False, 1)
    (hook,), (hung_up,) = found.voice, found.rest
    assert document(hook.body).startswith('<Connect><Stream url="…/twilio/stream">')
    assert hung_up.form == {"Status": "completed"} and hung_up.status == 200
    (stream,) = found.streams
    assert stream.stopped and stream.reason == "stop"
    (said,) = spoken(stream.said, stream.opened)
    assert said.start == pytest.approx(0.0, abs=0.1) and said.seconds == pytest.approx(1.0, abs=0.4)
    zipped = tmp_path / "call.cassette.gz"
    zipped.write_bytes(gzip.compress(RECORDED.read_bytes()))
    assert files.read(zipped) == found


def test_a_cassette_whose_writer_died_is_read_up_to_there() -> None:
    whole = RECORDED.read_bytes()
    found = files.parse(whole[:-30])
    assert found.notes == ["the last row was cut off"]
    assert len(found.streams) == 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is no cassette: "),
        (b"RIFF\x24\x08\x00\x00WAVE\n", "is no cassette: "),
        (b"\x1f\x8b\x08\x00garbage", "cannot be read"),
        (gzip.compress(b"x", mtime=0)[:10] + b"\x07" * 20, "cannot be read"),
        (b'{"trunkline_cassette":2,"call":"CA1","began":""}\n', "use a newer trunkline"),
        (b'{"trunkline_cassette":1,"call":"CA1","began":""}\n{"at":"x"}\n', "line 2: no row"),
        (b'{"trunkline_cassette":1,"call":"CA1","began":""}\n{"at":1,"kind":', ""),
    ],
)
def test_what_is_no_cassette_is_refused_in_one_line(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "file.cassette"
    path.write_bytes(data)
    result = run(path)
    assert result.exit_code == 1
    if why:
        with pytest.raises(InvalidRequestError, match=why) as refused:
            files.read(path)
        assert "\n" not in str(refused.value)


# --------------------------------------------------------------------------- the carrier's part


def test_messages_come_again_at_their_time_with_new_numbers_and_parameters() -> None:
    carrier = Carrier(taped(0.04), "AC9", {"nonce": "t0ken"})
    first = carrier.due(0.0)
    assert [message["event"] for message in first] == ["connected"]
    start, *sound = carrier.due(0.05)
    assert start["start"]["customParameters"] == {"nonce": "t0ken"}
    assert start["start"]["accountSid"] == "AC9"
    assert [m["sequenceNumber"] for m in (start, *sound)] == ["1", "2", "3"]
    assert carrier.next_at is None and carrier.stops_at == pytest.approx(0.09)
    (stop,) = carrier.stop()
    assert (stop["event"], stop["sequenceNumber"]) == ("stop", "4")


def test_a_mark_comes_back_when_the_sound_before_it_is_played_or_thrown_away() -> None:
    carrier = Carrier(Stream(SID, 0.0), "AC9", {})
    for message in (media(), media(), mark("played"), media(), mark("cleared")):
        carrier.answered(1.0, message)
    assert carrier.due(1.03) == []
    (back,) = carrier.due(1.04)
    assert back["mark"] == {"name": "played"}
    carrier.answered(1.05, {"event": "clear", "streamSid": SID})
    (back,) = carrier.due(1.05)
    assert back["mark"] == {"name": "cleared"}
    carrier.answered(1.06, mark("at once"))
    assert len(carrier.due(1.06)) == 1


def test_sound_that_was_left_out_is_a_tone_of_its_level() -> None:
    message = {"event": "media", "media": {"bytes": 320, "levels": [-20, -90], "timestamp": "0"}}
    (at,) = {
        round(each.level) for each in spoken([(n * 0.04, filled(message)) for n in range(9)], 0)
    }
    assert at == -20
    assert "levels" not in filled(message)["media"]


def test_our_side_does_again_what_it_did() -> None:
    stream = Stream(SID, 0.0)
    stream.said = [*speech(1.0, 0.4), (1.2, {"event": "clear"}), *speech(3.0, 0.2)]
    stream.said.append((stream.said[-1][0], mark()))
    stream.said.sort(key=lambda item: item[0])
    call = Cassette("CA1", streams=[stream])
    document = '<Response><Play digits="ww1#"/><Connect/></Response>'
    call.rest = [
        Exchange(0.0, "/Calls.json", {"Twiml": document}),
        Exchange(4.0, "/Calls/CA1.json", {"Twiml": document}),
        Exchange(5.0, "/Calls/CA1.json", {"Status": "completed"}),
    ]
    found = actions(call)
    assert [each.kind for each in found] == [
        *("say", "interrupt", "say", "say", "press", "hang up")
    ]
    assert [each.at for each in found] == pytest.approx([1.0, 1.2, 1.22, 3.0, 4.0, 5.0], abs=0.021)
    assert found[4].digits == "1#"
    assert len(found[3].pcm) == 2 * 24_000 // 5
    # Our side waited for its mark before it hung up. Without one it did not wait.
    stream.said.pop()
    assert [each.kind for each in actions(call)][-1] == "abandon"


# --------------------------------------------------------------------------- the comparison


def call(said: list[tuple[float, Message]], **changes: Any) -> Cassette:
    stream = replace(taped(4.0), said=said)
    return replace(Cassette("CA1", streams=[stream]), **changes)


def test_the_same_answers_a_little_later_are_the_same() -> None:
    was = call([*speech(1.0, 1.0), (2.0, mark("a"))])
    now = call([*speech(1.2, 1.1), (2.3, mark("b"))])
    assert found(was, now) == []
    assert len(found(was, now, seconds=0.1)) == 1


def test_another_greeting_a_silent_one_and_a_quiet_one_are_named() -> None:
    was = call(speech(1.0, 1.0))
    (longer,) = found(was, call(speech(1.0, 2.0)))
    assert longer == Difference(
        1.0, "stream 1, sound 1", "1.00 s at 1.00 s, 0 dB", "2.00 s at 1.00 s, 0 dB"
    )
    (silent,) = found(was, call([]))
    assert silent.now == "nothing"
    levels = {"event": "media", "media": {"bytes": 160, "levels": [-20]}}
    (quiet,) = found(was, call([(at, levels) for at, _ in speech(1.0, 1.0)]))
    assert quiet.now.endswith("-20 dB")


def test_sound_that_comes_in_a_burst_is_heard_in_its_own_time() -> None:
    burst = [(1.0, media(base64.b64encode(b"\x00" * 8_000).decode()))]
    assert found(call(speech(1.0, 1.0)), call(burst)) == []
    cleared = [*burst, (1.4, {"event": "clear"})]
    assert len(found(call(speech(1.0, 1.0)), call(cleared))) == 2, "shorter, and a clear"


def test_a_missing_mark_is_named_once() -> None:
    was = call([(1.0, mark()), (2.0, {"event": "clear"}), (3.0, mark())])
    now = call([(2.0, {"event": "clear"}), (3.0, mark())])
    (missing,) = found(was, now)
    assert missing == Difference(1.0, "stream 1, mark or clear 1", "a mark", "a clear")


def test_as_fast_as_it_goes_all_sound_is_compared_together() -> None:
    was = call([*speech(1.0, 1.0), *speech(3.0, 1.0)])
    assert found(was, call(speech(0.1, 2.1)), timed=False) == []
    (shorter,) = found(was, call(speech(0.1, 0.8)), timed=False)
    assert shorter.where == "stream 1, all sound" and shorter.now.startswith("0.80 s")


def test_an_agent_that_ends_the_stream_is_named() -> None:
    now = call([])
    now.streams[0].heard.pop()
    now.streams[0].closed, now.streams[0].reason = 2.0, "close"
    (ended,) = found(call([]), now)
    assert ended.now == "the agent ended it after 2.00 s"


def test_the_end_of_a_stream_from_which_another_has_taken_over_is_not_compared() -> None:
    was, now = call([]), call([])
    now.streams[0].heard.pop()
    now.streams[0].closed, now.streams[0].reason = 2.0, "close"
    for each, opened in ((was, 1.5), (now, 1.5)):
        later = replace(call([]).streams[0], sid="MZ2", opened=opened)
        each.streams.append(later)
    assert found(was, now) == []


def test_twiml_is_compared_by_its_structure() -> None:
    def voice(body: str, status: int = 200) -> Cassette:
        return Cassette("CA1", hooks=[Exchange(0.0, "/twilio/voice", {}, status=status, body=body)])

    one = (
        '<Response><Connect><Stream url="wss://a.example/s"><Parameter name="nonce" value="***"/>'
        "</Stream></Connect><Redirect>https://a.example/voice?c=***#rc=3</Redirect></Response>"
    )
    same = (
        '<?xml version="1.0"?>\n<Response>\n <Connect><Stream url="wss://b.example:8/s">'
        '<Parameter value="t0ken" name="nonce"/></Stream></Connect>\n'
        "<Redirect>https://b.example/voice?c=5e0f</Redirect></Response>"
    )
    assert found(voice(one), voice(same)) == []
    (other,) = found(voice(one), voice("<Response><Reject/></Response>"))
    assert other.where == "webhook 1 (/twilio/voice)" and other.now == "200 <Reject/>"
    (status,) = found(voice(one), voice(one, 503))
    assert status.now.startswith("503 ")
    (nothing,) = found(voice(one), Cassette("CA1"))
    assert nothing.now == "nothing"
    assert document("no <xml") == "no TwiML: 'no <xml'"
    assert document("<!DOCTYPE x><Response/>").startswith("no TwiML")
    assert document("<Response><Dial>+15551234567</Dial><Say>Hi</Say></Response>") == (
        "<Dial>+…</Dial><Say>Hi</Say>"
    )


def test_requests_of_rest_are_compared_by_what_they_change() -> None:
    create = Exchange(
        0.0, "/2010-04-01/Accounts/AC%s/Calls.json" % ("0" * 32), {"TimeLimit": "300"}
    )
    look = Exchange(1.0, "/2010-04-01/Accounts/AC1/Calls/CA1.json", {}, method="GET")
    other = replace(create, path=create.path.replace("AC0", "AC1"), form={"TimeLimit": 300})
    assert found(Cassette("CA1", rest=[create, look]), Cassette("CA1", rest=[other])) == []
    hang_up = replace(look, method="POST", form={"Status": "completed"})
    (missing,) = found(Cassette("CA1", rest=[create, hang_up]), Cassette("CA1", rest=[create]))
    assert "Status=completed" in missing.was and missing.now == "nothing"


# --------------------------------------------------------------------------- an agent


@contextlib.asynccontextmanager
async def silent_agent() -> AsyncIterator[tuple[Lines, asyncio.Event]]:
    """An agent that says nothing, as our TwiML leads to it, and what tells that a stream is up."""
    begun = asyncio.Event()

    async def agent(socket: ServerConnection) -> None:
        begun.set()
        await socket.wait_closed()

    async with listening(agent) as url:
        lines = Lines("")
        lines.answered(f'<Response><Connect><Stream url="{url}"/></Connect></Response>')
        yield lines, begun


@pytest.mark.parametrize("speed", ["real", "fast"])
async def test_an_agent_that_answers_as_before_and_one_that_does_not(
    tmp_path: Path, speed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.replay.stream.QUIET", 0.5)  # this agent says all at once
    stream = replace(taped(), said=[*speech(0.05, 0.3), (0.35, mark())])
    path = write(tmp_path / "CA1.cassette", stream)
    same = await replayed(path, greets(0.3), "--speed", speed, "--tolerance", "0.2")
    assert same["same"], same
    other = await replayed(path, greets(1.0, marks=0), "--speed", speed, "--tolerance", "0.2")
    places = [each["where"] for each in other["differences"]]
    assert len(places) == 2 and "stream 1, mark or clear 1" in places, other
    assert any("sound" in place for place in places)


async def test_an_agent_that_hangs_up_at_once_is_a_difference(tmp_path: Path) -> None:
    async def rude(socket: ServerConnection) -> None:
        await socket.recv()

    told = await replayed(write(tmp_path / "CA1.cassette", taped()), rude, "--tolerance", "0.2")
    (ended,) = told["differences"]
    assert ended["now"].startswith("the agent ended it")


async def test_the_upgrade_is_signed_and_parameters_are_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "a-token")
    seen: list[Any] = []

    async def agent(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append(socket.request.headers.get("X-Twilio-Signature"))
        await socket.recv()
        seen.append(json.loads(await socket.recv())["start"]["customParameters"])
        await socket.wait_closed()

    path = write(tmp_path / "CA1.cassette", taped(0.04))
    await replayed(path, agent, "--parameter", "key=a=b")
    assert seen[0] and seen[1] == {"key": "a=b"}


async def test_marks_come_back_while_the_stream_waits_for_its_end(tmp_path: Path) -> None:
    """Our side waits for its mark, and hangs up then."""
    returned = asyncio.Event()

    async def agent(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in socket:
                message = json.loads(text)
                if message["event"] == "start":
                    for _, sound in speech(0.0, 0.4):
                        await socket.send(json.dumps(sound))
                    await socket.send(json.dumps(mark()))
                elif message["event"] == "mark":
                    returned.set()

    async def hung_up() -> None:
        await returned.wait()

    async with listening(agent) as url:
        playing = Player("AC1").play(url, taped(0.1), monotonic(), before_stop=hung_up)
        stream = await asyncio.wait_for(playing, 5.0)
    assert stream.stopped
    assert [m["event"] for _, m in stream.heard][-2:] == ["mark", "stop"]


async def test_a_mark_that_the_hang_up_has_overtaken_belongs_to_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Our side's mark goes by the stream and its hang-up by REST, which may be faster."""
    monkeypatch.setattr(
        "trunkline.replay.stream.OVERTAKES_BY", 60.0
    )  # however slow this machine is
    hung_up = asyncio.Event()

    async def agent(socket: ServerConnection) -> None:
        await hung_up.wait()
        await asyncio.sleep(0.05)  # so much longer is the stream's way
        await socket.send(json.dumps(mark()))
        await socket.wait_closed()

    async def before_stop() -> None:
        hung_up.set()

    was = taped(0.1)
    was.said.append((0.1, mark()))
    async with listening(agent) as url:
        playing = Player("AC1").play(url, was, monotonic(), before_stop=before_stop)
        stream = await asyncio.wait_for(playing, 5.0)
    stopped_at = next(at for at, message in stream.heard if message["event"] == "stop")
    assert [(at < stopped_at, kind) for at, kind in stream.signals] == [(True, "mark")]


async def test_a_replay_that_is_given_up_does_not_wait_for_the_end_of_its_stream() -> None:
    async with silent_agent() as (lines, begun):
        streams = [taped(60.0), replace(taped(60.0), opened=30.0)]  # the second is waited for
        player = CallPlayer(Cassette("CA1", streams=streams), lines, Player("AC1"))
        player.begin(0.0)
        running = asyncio.create_task(player.run())
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 5.0)


async def test_our_side_goes_on_with_a_carrier_that_waits_for_nothing() -> None:
    """What was done half a second into a stream is done then, though the stream begins 30 s
    earlier."""
    async with silent_agent() as (lines, begun):
        streams = [replace(taped(0.1), opened=30.0)]
        player = CallPlayer(Cassette("CA1", streams=streams), lines, Player("AC1", fast=True))
        player.begin(0.0)
        ours = asyncio.create_task(player.until(30.5))
        running = asyncio.create_task(player.run())
        await begun.wait()
        at = monotonic()
        async with asyncio.timeout(5.0):
            await ours
            assert monotonic() - at > 0.4
            await running


async def test_nobody_there_and_no_stream_are_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "CA1.cassette", taped())
    result = await asyncio.to_thread(run, path, "--against", "ws://127.0.0.1:9/x")
    assert result.exit_code == 1 and "no stream at ws://127.0.0.1:9/x" in str(result.exception)
    empty = tmp_path / "CA2.cassette"
    empty.write_text('{"trunkline_cassette":1,"call":"CA2","began":""}\n')
    result = run(empty)
    assert "has no stream: " in str(result.exception)
    assert run(path, "--against", "tcp://x").exit_code == 2
    assert run(path, "--parameter", "x").exit_code == 2


# --------------------------------------------------------------------------- webhooks


@contextlib.asynccontextmanager
async def answering(document: str, seen: list[tuple[str, Message]]) -> AsyncIterator[str]:
    """Somebody who answers each webhook with this document; ``seen`` has path and signed form."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await reader.readexactly(int(headers["Content-Length"]))
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        seen.append((head.split()[1], form | {"signature": headers["X-Twilio-Signature"]}))
        text = document.encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(text)
        )
        writer.write(text)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "a-token")
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC" + "9" * 32)
    return "AC" + "9" * 32


@pytest.mark.parametrize("path", ["", "/agent/voice"])
async def test_a_call_is_played_at_a_voice_webhook(path: str, account: str) -> None:
    seen: list[tuple[str, Message]] = []
    async with listening(greets(1.4)) as media_url:
        document = (
            f'<Response><Connect><Stream url="{media_url}"><Parameter name="nonce" value="t0ken"/>'
            "</Stream></Connect><Redirect method='POST'>/again?c=1</Redirect></Response>"
        )
        async with answering(document, seen) as url:
            argv = ("--against", url + path, "--json", "--to", "+14155551234", "--tolerance", "0.8")
            result = await asyncio.to_thread(run, RECORDED, *argv)
    told = json.loads(result.output)
    ((asked, form),) = seen
    assert asked == (path or "/twilio/voice")
    assert (form["To"], form["Called"], form["AccountSid"]) == (*["+14155551234"] * 2, account)
    assert form["From"].startswith("+1555")
    assert form.pop("signature") == sign("a-token", url + asked, form.items())
    other, *sound = told["differences"]
    assert other["where"] == "webhook 1 (/twilio/voice)" and "/media" in other["now"]
    assert {each["where"] for each in sound} <= {"stream 1, sound 1"}


async def test_a_call_that_is_turned_away_is_not_played_on(account: str) -> None:
    seen: list[tuple[str, Message]] = []
    async with answering("<Response><Reject/></Response>", seen) as url:
        result = await asyncio.to_thread(run, RECORDED, "--against", url, "--json")
    told = json.loads(result.output)
    assert [each["now"] for each in told["differences"]] == ["200 <Reject/>", "no stream"]
    result = await asyncio.to_thread(run, RECORDED, "--against", "http://127.0.0.1:9")
    assert result.exit_code == 1 and "no answer from http://127.0.0.1:9" in str(result.exception)


@pytest.mark.parametrize("was", ["\\[bold]x", "\\[/x]", "[red]x"])
def test_what_an_agent_says_is_shown_as_it_is(
    was: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A document of somebody else's is no markup of ours."""
    taped = Cassette("CA1")
    differs = Difference(0.0, "webhook 1", was, "nothing")
    command._show(tmp_path / "x", taped, command.Wishes(), [differs])
    assert was in capsys.readouterr().out


def test_a_level_that_is_no_number_is_wrong_usage(tmp_path: Path) -> None:
    """Nothing is louder than NaN, so every answer would have the right level, or none."""
    result = run(tmp_path / "x.cassette", "--level", "nan")
    assert result.exit_code == 2 and "--level" in result.output
