"""What a carrier may say on a stream, right and wrong, and what is said back."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway import media_streams as ms

SID = "MZ18ad3ab5a668481ce02b83e7395059f0"
CALL = "CA" + "1" * 32


def text(**message: Any) -> bytes:
    return json.dumps(message).encode()


def start(**changes: Any) -> bytes:
    body: dict[str, Any] = {
        "accountSid": "AC1",
        "streamSid": SID,
        "callSid": CALL,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"nonce": "token"},
    }
    body.update(changes)
    return text(event="start", start=body, streamSid=SID)


def media(payload: bytes = b"\xff" * 160, timestamp: Any = "0", **changes: Any) -> bytes:
    body = {
        "track": "inbound",
        "chunk": "1",
        "timestamp": timestamp,
        "payload": base64.b64encode(payload).decode(),
    }
    body.update(changes)
    return text(event="media", media=body, streamSid=SID)


def live() -> ms.MediaStream:
    stream = ms.MediaStream()
    assert isinstance(stream.receive(start()), ms.Start)
    return stream


def test_a_call_from_connected_to_stop() -> None:
    stream = ms.MediaStream()
    assert stream.receive(text(event="connected", protocol="Call", version="1.0.0")) == (
        ms.Connected()
    )
    assert not stream.started
    assert stream.receive(start()) == ms.Start(CALL, SID, {"nonce": "token"})
    assert stream.receive(media(b"a" * 160, "0")) == ms.Media(0, b"a" * 160)
    assert stream.receive(media(b"b" * 160, "20")) == ms.Media(160, b"b" * 160)
    dtmf = text(event="dtmf", streamSid=SID, dtmf={"track": "inbound_track", "digit": "1"})
    assert stream.receive(dtmf) == ms.Dtmf(1, "1")
    assert stream.receive(dtmf) == ms.Dtmf(2, "1")
    stream.mark("m")
    mark = text(event="mark", streamSid=SID, mark={"name": "m"})
    assert stream.receive(mark) == ms.MarkReturned("m")
    stop = text(event="stop", streamSid=SID, stop={"accountSid": "AC1", "callSid": CALL})
    assert stream.receive(stop) == ms.Stop()
    assert stream.receive(media()) is None
    assert stream.bad == {"after-stop": 1}


def test_a_start_needs_no_more_than_its_ids() -> None:
    stream = ms.MediaStream()
    found = stream.receive(text(event="start", streamSid=SID, start={"callSid": CALL}))
    assert found == ms.Start(CALL, SID, {})
    inner = ms.MediaStream()
    found = inner.receive(text(event="start", start={"callSid": CALL, "streamSid": SID}))
    assert found == ms.Start(CALL, SID, {})


def placed(*frames: tuple[str, str]) -> list[int]:
    """The positions of frames of 20 ms with these timestamps and chunk numbers."""
    stream = live()
    found = [stream.receive(media(timestamp=at, chunk=chunk)) for at, chunk in frames]
    return [each.position for each in found if isinstance(each, ms.Media)]


def test_a_frame_lies_where_its_number_puts_it_though_the_timestamp_is_some_ms_off() -> None:
    assert placed(("155", "1"), ("173", "2"), ("204", "3")) == [1240, 1400, 1560]
    # Two frames are missing, and the clock is off beside that.
    assert placed(("0", "1"), ("51", "4")) == [0, 480]
    # One came twice.
    assert placed(("0", "1"), ("20", "2"), ("19", "2")) == [0, 160, 160]


def test_where_number_and_timestamp_are_a_frame_apart_the_timestamp_holds() -> None:
    assert placed(("0", "1"), ("40", "2")) == [0, 320]
    assert placed(("0", "1"), ("20", "999999999999999999")) == [0, 160]
    assert placed(("1000", "5"), ("1020", "1")) == [8000, 8160]


def test_no_frame_lies_before_the_stream() -> None:
    """As that of a peer would that sends frames of two sizes, and one number twice."""
    stream = live()
    found = [stream.receive(media(bytes(size), "0")) for size in (100, 160)]
    assert [each.position for each in found if isinstance(each, ms.Media)] == [0, 0]


def test_without_numbers_less_than_half_a_frame_is_no_hole() -> None:
    stream = live()
    found = [stream.receive(media(timestamp=at, chunk=None)) for at in ("0", "29", "50")]
    assert [each.position for each in found if isinstance(each, ms.Media)] == [0, 160, 400]


def test_a_frame_without_a_timestamp_follows_the_one_before() -> None:
    stream = live()
    assert stream.receive(media(b"a" * 160, "100")) == ms.Media(800, b"a" * 160)
    bare = text(event="media", media={"payload": base64.b64encode(b"bb").decode()})
    assert stream.receive(bare) == ms.Media(960, b"bb")


def test_a_call_that_is_listened_to_brings_two_tracks_on_one_clock() -> None:
    stream = ms.MediaStream()
    assert isinstance(stream.receive(start(tracks=["inbound", "outbound"])), ms.Start)
    outbound = media(b"b" * 160, "40", track="outbound")
    assert stream.receive(outbound) == ms.Media(320, b"b" * 160, outbound=True)
    assert stream.receive(media(b"a" * 160, "20")) == ms.Media(160, b"a" * 160)
    assert stream.bad == {}
    for wrong in ({"timestamp": None}, {"timestamp": "-1"}):
        assert stream.receive(media(track="outbound", **wrong)) is None
    assert stream.receive(media(b"", track="outbound")) is None
    assert stream.receive(media(track="sideways")) is None
    assert stream.bad == {"fields": 2, "empty": 1, "track": 1}


@pytest.mark.parametrize("tracks", [None, 5, "outbound", [], ["inbound"], {"outbound": 1}])
def test_a_track_that_was_not_announced_is_not_taken(tracks: object) -> None:
    stream = ms.MediaStream()
    assert isinstance(stream.receive(start(tracks=tracks)), ms.Start)
    assert stream.receive(media(track="outbound")) is None
    assert stream.bad == {"track": 1}


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (b"", "not-json"),
        (b"hello", "not-json"),
        (b'{"event":"media"', "not-json"),
        (b'{"event":"\xff"}', "not-json"),
        (b"null", "not-object"),
        (b"[1]", "not-object"),
        (b'"x"', "not-object"),
        (b"17", "not-object"),
        (b"{}", "fields"),
        (text(event=7), "fields"),
        (text(event="hold"), "unknown-event"),
        (text(event="media"), "fields"),
        (text(event="media", media=[1]), "fields"),
        (text(event="media", media={}), "fields"),
        (text(event="media", media={"payload": 5}), "fields"),
        (text(event="media", media={"payload": None}), "fields"),
        (text(event="media", media={"payload": "not base64!"}), "base64"),
        (text(event="media", media={"payload": "AAE"}), "base64"),
        (text(event="media", media={"payload": "é"}), "base64"),
        (media(b""), "empty"),
        (media(timestamp="soon"), "fields"),
        (media(timestamp="-20"), "fields"),
        (media(timestamp="9" * 40), "fields"),
        (media(track="outbound"), "track"),
        (text(event="media", streamSid="MZother", media={"payload": "AAAA"}), "foreign-stream"),
        (text(event="dtmf", dtmf={"digit": "12"}), "fields"),
        (text(event="dtmf", dtmf={"digit": ""}), "fields"),
        (text(event="dtmf", dtmf="1"), "fields"),
        (text(event="dtmf", streamSid="MZother", dtmf={"digit": "1"}), "foreign-stream"),
        (text(event="mark", mark={"name": 1.5}), "fields"),
        (text(event="mark", mark={"name": "m" * 300}), "fields"),
        (text(event="start", start=None), "fields"),
        (start(), "second-start"),
        (b" " * (ms.MAX_MESSAGE_BYTES + 1), "too-long"),
    ],
)
def test_what_is_wrong_is_counted_and_the_stream_goes_on(message: bytes, kind: str) -> None:
    stream = live()
    assert stream.receive(message) is None
    assert stream.bad == {kind: 1}
    assert stream.receive(media(b"a" * 160, "20")) == ms.Media(160, b"a" * 160)


def test_however_deep_it_is_nested_it_is_refused_and_the_stream_goes_on() -> None:
    """How deep a document may be read is Python's own business, and differs by its version."""
    stream = live()
    for depth in (100, 5_000, 30_000):
        assert stream.receive(b"[" * depth + b"]" * depth) is None
    assert stream.bad.total() == 3
    assert set(stream.bad) <= {"not-json", "not-object"}
    assert stream.receive(media()) is not None


def test_binary_is_counted_on_a_live_stream() -> None:
    stream = live()
    assert stream.binary() is None
    assert stream.bad == {"binary": 1}


@pytest.mark.parametrize("event", ["media", "dtmf", "mark", "stop"])
def test_nothing_before_start_is_believed(event: str) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "media": {"media": {"payload": "AAAA"}},
        "dtmf": {"dtmf": {"digit": "1"}},
        "mark": {"mark": {"name": "m"}},
        "stop": {"stop": {}},
    }
    stream = ms.MediaStream()
    assert stream.receive(text(event=event, **bodies[event])) is None
    assert stream.bad == {"before-start": 1}
    assert isinstance(stream.receive(start()), ms.Start)


def test_sids_may_have_capital_letters() -> None:
    """Twilio's pattern of them says so (voice/api/stream-resource)."""
    call, stream = "CA" + "0F" * 16, "MZ" + "A1" * 16
    found = ms.MediaStream().receive(
        start(callSid=call, streamSid=stream).replace(SID.encode(), stream.encode())
    )
    assert found == ms.Start(call, stream, {"nonce": "token"})


@pytest.mark.parametrize(
    "changes",
    [
        {"callSid": ""},
        {"callSid": 7},
        {"callSid": "C" * 300},
        {"customParameters": {"nonce": 5}},
        {"customParameters": [1]},
        {"customParameters": {str(i): "v" for i in range(40)}},
        {"mediaFormat": "mulaw"},
    ],
)
def test_a_start_with_wrong_fields_starts_nothing(changes: dict[str, Any]) -> None:
    stream = ms.MediaStream()
    assert stream.receive(start(**changes)) is None
    assert stream.bad == {"fields": 1}
    assert not stream.started


def test_another_sound_format_is_a_violation() -> None:
    stream = ms.MediaStream()
    found = stream.receive(start(mediaFormat={"encoding": "audio/x-l16", "sampleRate": 16000}))
    assert isinstance(found, ms.Violation)
    assert not stream.started


def test_a_stranger_may_not_say_much() -> None:
    stream = ms.MediaStream()
    for _ in range(ms.MAX_MESSAGES_BEFORE_START):
        assert not isinstance(stream.receive(b"{}"), ms.Violation)
    assert isinstance(stream.receive(start()), ms.Violation)

    stream = ms.MediaStream()
    assert isinstance(stream.receive(b" " * (ms.MAX_BYTES_BEFORE_START + 1)), ms.Violation)
    assert isinstance(ms.MediaStream().too_long(), ms.Violation)
    assert isinstance(ms.MediaStream().binary(), ms.Violation)


def test_what_goes_back_has_exactly_the_documented_fields() -> None:
    stream = live()
    payload = bytes(range(160))
    assert json.loads(stream.media(payload)) == {
        "event": "media",
        "streamSid": SID,
        "media": {"payload": base64.b64encode(payload).decode()},
    }
    assert stream.media(b"\xff") == (
        b'{"event":"media","streamSid":"' + SID.encode() + b'","media":{"payload":"/w=="}}'
    )
    assert json.loads(stream.mark('quote " and é')) == {
        "event": "mark",
        "streamSid": SID,
        "mark": {"name": 'quote " and é'},
    }
    assert json.loads(stream.clear) == {"event": "clear", "streamSid": SID}


@pytest.mark.parametrize(
    "changes",
    [
        {"streamSid": 'a","x":"'},
        {"streamSid": SID[:-1]},
        {"streamSid": "CA" + SID[2:]},
        {"streamSid": SID + "\n"},
        {"callSid": ""},
        {"callSid": CALL[:-1] + "g"},
        {"callSid": CALL + "CallStatusringing"},
        {"callSid": SID},
    ],
    ids=repr,
)
def test_a_start_with_sids_that_are_not_twilios_is_none(changes: dict[str, str]) -> None:
    stream = ms.MediaStream()
    body = {"callSid": CALL, "streamSid": SID} | changes
    assert stream.receive(text(event="start", start=body)) is None
    assert not stream.started and stream.bad == {"fields": 1}


#: What has more leaves is thrown away and drawn anew, which took most of the time. So none is wide.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
shaped = st.fixed_dictionaries(
    {"event": st.sampled_from(["media", "start", "dtmf", "mark", "stop", "connected"])},
    optional={
        name: json_values
        | st.dictionaries(
            st.sampled_from(
                ["payload", "timestamp", "track", "digit", "name", "callSid", "customParameters"]
            ),
            json_values,
        )
        for name in ("media", "start", "dtmf", "mark", "streamSid")
    },
)


@given(
    st.lists(st.binary(max_size=200) | (json_values | shaped).map(lambda v: json.dumps(v).encode()))
)
def test_no_input_raises(messages: list[bytes]) -> None:
    for stream in (ms.MediaStream(), live()):
        for message in messages:
            stream.receive(message)


def numbered(number: object, event: str = "media", **more: Any) -> bytes:
    body = more or {"media": {"payload": "AAAA"}}
    return text(event=event, sequenceNumber=number, streamSid=SID, **body)


def test_sequence_numbers_that_jump_or_run_back_are_counted_and_their_messages_taken() -> None:
    stream = ms.MediaStream()
    assert stream.receive(text(event="connected")) is not None
    begins = start().replace(b'"event": "start"', b'"event": "start", "sequenceNumber": "1"')
    assert isinstance(stream.receive(begins), ms.Start)
    for number in ("2", 3):
        assert stream.receive(numbered(number)) is not None
    assert not stream.bad
    for number in ("5", "6", "6", "2", "3"):
        assert stream.receive(numbered(number)) is not None
    assert stream.bad == {"sequence": 3}
    assert stream.receive(numbered("4", "dtmf", dtmf={"digit": "1"})) is not None
    assert stream.receive(text(event="media", media={"payload": "AAAA"})) is not None
    assert stream.bad == {"sequence": 3}
    assert stream.receive(numbered("soon")) is None
    assert stream.receive(numbered("9" * 5_000)) is None
    assert stream.bad == {"sequence": 3, "fields": 2}


def test_digits_are_bounded() -> None:
    stream = live()
    digit = text(event="dtmf", streamSid=SID, dtmf={"digit": "1"})
    found = [stream.receive(digit) for _ in range(ms.MAX_DIGITS + 2)]
    assert found[-3:] == [ms.Dtmf(ms.MAX_DIGITS, "1"), None, None]
    assert stream.bad == {"digits": 2}


def test_a_mark_comes_back_once() -> None:
    stream = live()
    mark = text(event="mark", streamSid=SID, mark={"name": "m"})
    assert stream.receive(mark) is None
    stream.mark("m")
    assert stream.receive(mark) == ms.MarkReturned("m")
    assert stream.receive(mark) is None
    assert stream.bad == {"mark": 2}
