"""One stream's messages: the exact wire, and each error that a server can make."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trunkline.carrier_sim.judge import Judge
from trunkline.carrier_sim.mulaw import SILENCE
from trunkline.carrier_sim.stream import Stream, check_url
from trunkline.carrier_sim.twiml import Stream as StreamVerb

SID = "MZ" + "a" * 32
CALL = "CA" + "b" * 32
ACCOUNT = "AC" + "c" * 32


class Bench:
    def __init__(self) -> None:
        self.judge = Judge(lambda: 0.0)
        verb = StreamVerb("wss://h/s", parameters={"nonce": "n1", "x": "<&>"})
        self.stream = Stream(SID, CALL, ACCOUNT, verb, self.judge, wire_log=True)
        self.sent: list[dict[str, Any]] = []
        self.stream.send = lambda message: self.sent.append(json.loads(message))
        self.stream.opened(10.0)

    def say(self, message: object) -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        self.stream.message(text.encode(), 10.0)


def media(payload: str = "/////w==", sid: str = SID) -> dict[str, Any]:
    return {"event": "media", "streamSid": sid, "media": {"payload": payload}}


def test_the_opening_messages() -> None:
    bench = Bench()
    assert bench.sent == [
        {"event": "connected", "protocol": "Call", "version": "1.0.0"},
        {
            "event": "start",
            "sequenceNumber": "1",
            "streamSid": SID,
            "start": {
                "accountSid": ACCOUNT,
                "streamSid": SID,
                "callSid": CALL,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": {"nonce": "n1", "x": "<&>"},
            },
        },
    ]


def test_numbers_are_strings_and_count() -> None:
    bench = Bench()
    bench.stream.inbound(SILENCE, 10.0)
    bench.stream.key("5", 10.01)
    bench.stream.inbound(b"\x00" * 160, 10.02)
    bench.stream.stop(10.04)
    first, key, second, stop = bench.sent[2:]
    assert first == {
        "event": "media",
        "sequenceNumber": "2",
        "streamSid": SID,
        "media": {
            "track": "inbound",
            "chunk": "1",
            "timestamp": "0",
            "payload": "/" * 213 + "w==",
        },
    }
    assert key == {
        "event": "dtmf",
        "sequenceNumber": "3",
        "streamSid": SID,
        "dtmf": {"track": "inbound_track", "digit": "5"},
    }
    assert (second["media"]["chunk"], second["media"]["timestamp"]) == ("2", "20")
    assert stop == {
        "event": "stop",
        "sequenceNumber": "5",
        "streamSid": SID,
        "stop": {"accountSid": ACCOUNT, "callSid": CALL},
    }
    assert bench.stream.ended_by == "stop" and not bench.judge.errors


def test_media_mark_clear_are_taken() -> None:
    bench = Bench()
    bench.say(media())
    bench.say({"event": "mark", "streamSid": SID, "mark": {"name": "m"}})
    assert bench.stream.playback.buffered == 4
    bench.say({"event": "clear", "streamSid": SID})
    assert bench.stream.playback.buffered == 0
    assert bench.sent[-1]["mark"] == {"name": "m"}
    assert not bench.judge.errors
    assert [w.direction for w in bench.stream.wire or []] == ["in", "in", "out", "out", "out", "in"]


@pytest.mark.parametrize(
    "message",
    [
        "no json",
        "null",
        "[1]",
        '"x"',
        "{}",
        '{"event":"media"',
        {"event": "hello", "streamSid": SID},
        {"event": "media", "streamSid": SID},
        {"event": "media", "media": {"payload": "/w=="}},
        {"event": "media", "streamSid": 5, "media": {"payload": "/w=="}},
        {"event": "media", "stream_sid": SID, "media": {"payload": "/w=="}},
        media() | {"sequenceNumber": "1"},
        {"event": "media", "streamSid": SID, "media": {"payload": "/w==", "track": "outbound"}},
        {"event": "media", "streamSid": SID, "media": {"payload": 5}},
        media(sid="MZ" + "0" * 32),
        media(payload=""),
        media(payload="/w="),
        media(payload="/w"),
        media(payload="/w==\n"),
        media(payload="/-_w"),
        media(payload="@@@@"),
        {"event": "mark", "streamSid": SID, "mark": {}},
        {"event": "mark", "streamSid": SID, "mark": {"name": 1}},
        {"event": "clear", "streamSid": SID, "clear": {}},
        {"event": "stop", "streamSid": SID},
    ],
)
def test_anything_else_is_31951_and_dropped(message: object) -> None:
    bench = Bench()
    bench.say(message)
    assert bench.judge.codes(CALL) == [31951]
    assert bench.judge.errors[0].stream_sid == SID
    assert bench.stream.playback.accepted == 0 and len(bench.sent) == 2
    assert bench.stream.live


def test_binary_is_31950() -> None:
    bench = Bench()
    bench.stream.binary(160)
    assert bench.judge.codes() == [31950]


def test_over_ten_minutes_is_31931() -> None:
    bench = Bench()
    half = media(payload="/" * (4 * 800_000))
    bench.say(half)
    bench.say(half)
    bench.say(media())
    assert bench.judge.codes() == [31931]
    assert bench.stream.playback.buffered == 4_800_000


def test_what_comes_after_the_end_is_nobodys_business() -> None:
    bench = Bench()
    bench.stream.end(11.0, "close")
    bench.say("no json")
    assert not bench.judge.errors


def test_a_lost_frame_leaves_a_hole_in_the_chunks() -> None:
    bench = Bench()
    lost = iter([False, True, False])
    bench.stream.lose = lambda: next(lost)
    for _ in range(3):
        bench.stream.inbound(SILENCE, 10.0)
    assert [m["media"]["chunk"] for m in bench.sent[2:]] == ["1", "3"]
    assert [m["media"]["timestamp"] for m in bench.sent[2:]] == ["0", "40"]
    assert bench.stream.frames_in == 2


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://h/s", 31922),
        ("ws://h/s", 31922),
        ("h/s", 31923),
        ("wss:///s", 31923),
        ("wss://h:99999/s", 31923),
        ("wss://h a/s", 31923),
        ("wss://[h/s", 31923),
        ("wss://h/s?token=1", 31920),
    ],
)
def test_urls_that_are_refused(url: str, code: int) -> None:
    refused = check_url(StreamVerb(url), allow_ws=False)
    assert refused is not None and refused[0] == code


def test_urls_and_tracks_that_are_taken() -> None:
    assert check_url(StreamVerb("wss://h:8443/s"), allow_ws=False) is None
    assert check_url(StreamVerb("ws://127.0.0.1:1/s"), allow_ws=True) is None
    both = check_url(StreamVerb("wss://h/s", track="both_tracks"), allow_ws=False)
    assert both is not None and both[0] == 31941


def test_silence_is_sent_like_all_else() -> None:
    bench = Bench()
    for frame in (SILENCE, b"\x00" * 160, b"\xff" * 160):
        bench.stream.inbound(frame, 10.0)
    assert [m["media"]["timestamp"] for m in bench.sent[2:]] == ["0", "20", "40"]
