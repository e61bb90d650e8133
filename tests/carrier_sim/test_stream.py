"""One stream's messages: the exact wire, and each error that a server can make."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.carrier_sim.mulaw import SILENCE
from trunkline.carrier_sim.stream import check_url
from trunkline.carrier_sim.twiml import Stream as StreamVerb

from .bench import ACCOUNT, CALL, SID, Socket


def media(payload: str = "/////w==", sid: str = SID) -> dict[str, Any]:
    return {"event": "media", "streamSid": sid, "media": {"payload": payload}}


def test_the_opening_messages() -> None:
    socket = Socket()
    assert socket.sent == [
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
    socket = Socket()
    socket.stream.inbound(SILENCE, 10.0)
    socket.stream.key("5", 10.01)
    socket.stream.inbound(b"\x00" * 160, 10.02)
    socket.stream.stop(10.04)
    first, key, second, stop = socket.sent[2:]
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
    assert socket.stream.ended_by == "stop" and not socket.judge.errors


def test_media_mark_clear_are_taken() -> None:
    socket = Socket()
    socket.tell(media())
    socket.mark("m")
    assert socket.stream.playback.buffered == 4
    socket.say("clear")
    assert socket.stream.playback.buffered == 0
    assert socket.sent[-1]["mark"] == {"name": "m"}
    assert not socket.judge.errors


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
    socket = Socket()
    socket.tell(message)
    assert socket.judge.codes(CALL) == [31951]
    assert socket.judge.errors[0].stream_sid == SID
    assert socket.stream.playback.accepted == 0 and len(socket.sent) == 2
    assert socket.stream.live


def test_binary_is_31950() -> None:
    socket = Socket()
    socket.stream.binary(160)
    assert socket.judge.codes() == [31950]


def test_over_ten_minutes_is_31931() -> None:
    socket = Socket()
    half = media(payload="/" * (4 * 800_000))
    socket.tell(half)
    socket.tell(half)
    socket.tell(media())
    assert socket.judge.codes() == [31931]
    assert socket.stream.playback.buffered == 4_800_000


def test_what_comes_after_the_end_is_nobodys_business() -> None:
    socket = Socket()
    socket.stream.end(11.0, "close")
    socket.tell("no json")
    assert not socket.judge.errors


def test_a_lost_frame_leaves_a_hole_in_the_chunks() -> None:
    socket = Socket()
    lost = iter([False, True, False])
    socket.stream.lose = lambda: next(lost)
    for _ in range(3):
        socket.stream.inbound(SILENCE, 10.0)
    assert [m["media"]["chunk"] for m in socket.sent[2:]] == ["1", "3"]
    assert [m["media"]["timestamp"] for m in socket.sent[2:]] == ["0", "40"]
    assert socket.stream.frames_in == 2


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
    for track in ("both_tracks", "outbound_track", "all"):
        verb = StreamVerb("wss://h/s", track=track)
        refused = check_url(verb, allow_ws=False)
        assert refused is not None and refused[0] == 31941
        assert (check_url(verb, allow_ws=False, one_way=True) is None) == (track != "all")


def test_silence_is_sent_like_all_else() -> None:
    socket = Socket()
    for frame in (SILENCE, b"\x00" * 160, b"\xff" * 160):
        socket.stream.inbound(frame, 10.0)
    assert [m["media"]["timestamp"] for m in socket.sent[2:]] == ["0", "20", "40"]
