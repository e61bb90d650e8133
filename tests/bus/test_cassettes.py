"""Cassettes: one readable file for a call, whoever writes it, and no secret in it."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from trunkline.bus import cassettes
from trunkline.bus.cassette_masks import ACCOUNT, Masks, levels, query
from trunkline.bus.cassettes import NAME, Cassettes
from trunkline.bus.errors import SettingsError
from trunkline.bus.retention import Retention
from trunkline.bus.settings import Settings

CALL = "CA" + "1" * 32
STREAM = "MZ" + "2" * 32
TOKEN = "the-auth-token"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def hook(
    into: Cassettes, status: str = "ringing", *, begins: bool = True, call: str = CALL
) -> None:
    form = {"CallSid": call, "CallStatus": status, "From": "+14155550000", "To": "+14155551234"}
    asked = into.clock()
    into.webhook(
        "/twilio/voice", "", form, asked=asked, status=200, body="<Response/>", begins=begins
    )


def test_a_calls_rows_stand_in_order_behind_a_header(tmp_path: Path, clock: Clock) -> None:
    written = Cassettes(tmp_path / "calls", TOKEN, clock=clock)
    hook(written)
    clock.now = 100.5
    tape = written.tape()
    tape.heard(b'{"event":"connected"}')
    clock.now = 100.7
    tape.let_in(CALL, STREAM)
    clock.now = 101.0
    tape.said(b'{"event":"clear","streamSid":"MZ"}')
    tape.over("stop")
    tape.heard(b'{"event":"late"}')
    written.close()
    (path,) = (tmp_path / "calls").iterdir()
    assert path.name == f"{CALL}.cassette"
    head, *found = rows(path)
    assert (head["trunkline_cassette"], head["call"], head["monotonic"]) == (1, CALL, 100.0)
    assert [(row["at"], row["dir"], row["kind"]) for row in found] == [
        (0.0, "in", "webhook.request"),
        (0.0, "out", "webhook.response"),
        (0.5, "in", "stream.open"),
        (0.5, "in", "stream.message"),
        (1.0, "out", "stream.message"),
        (1.0, "in", "stream.close"),
    ]
    assert found[0]["id"] == found[1]["id"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_two_processes_write_into_one_file_on_one_clock(tmp_path: Path, clock: Clock) -> None:
    """The controller's answer from Twilio may be read after the call's first webhook."""
    gateway = Cassettes(tmp_path, TOKEN, clock=clock)
    clock.now = 101.0
    hook(gateway, "initiated", begins=False)
    gateway.close()
    controller = Cassettes(tmp_path, TOKEN, clock=clock)
    path = "/2010-04-01/Accounts/AC1/Calls.json"
    form = {"From": "+14155551234", "Twiml": "<Response/>"}
    answer = json.dumps({"sid": CALL, "status": "queued"})
    controller.rest("POST", path, form, asked=100.25, status=201, answer=answer)
    controller.rest("POST", path, form, asked=100.0, status=400, answer='{"code":21211}')
    controller.rest("GET", path, {}, asked=100.0, status=200, answer='{"calls":[]}')
    controller.close()
    (found,) = tmp_path.iterdir()
    head, first, _, asked, answered = rows(found)
    assert head["monotonic"] == 101.0 and first["at"] == 0.0
    assert (asked["at"], asked["kind"], asked["dir"]) == (-0.75, "rest.request", "out")
    assert (answered["at"], answered["status"], answered["form"]["sid"]) == (0.0, 201, CALL)
    assert first["form"]["To"] == asked["form"]["From"] != "+14155551234"


def test_a_call_of_the_same_sid_that_begins_again_has_a_file_of_its_own(
    tmp_path: Path, clock: Clock
) -> None:
    """A stand-in carrier with the same seed gives the same CallSids; Twilio asks twice in doubt."""
    for _ in range(2):
        again = Cassettes(tmp_path, TOKEN, clock=clock)
        hook(again)
        clock.now += 1.0
        hook(again)
        again.close()
        clock.now += 1.0
        other = Cassettes(tmp_path, TOKEN, clock=clock)
        tape = other.tape()
        tape.let_in(CALL, STREAM)
        other.close()
        clock.now += 1.0
    newest = tmp_path / f"{CALL}.cassette"
    (earlier,) = set(tmp_path.iterdir()) - {newest}
    assert rows(newest)[0]["monotonic"] == 103.0 and rows(earlier)[0]["monotonic"] == 100.0
    assert [len(rows(path)) for path in (earlier, newest)] == [6, 6]


def test_a_line_that_a_death_cut_short_is_taken_away(tmp_path: Path, clock: Clock) -> None:
    written = Cassettes(tmp_path, TOKEN, clock=clock)
    hook(written)
    written.close()
    (path,) = tmp_path.iterdir()
    with path.open("a") as file:
        file.write('{"at":1.0,"dir":"in","ki')
    later = Cassettes(tmp_path, TOKEN, clock=clock)
    hook(later, "in-progress", begins=False)
    later.close()
    assert len(rows(path)) == 5


def test_a_full_disk_is_told_once_noted_in_the_file_and_leaves_it_whole(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = True
    pwrite = os.pwrite

    def fails(descriptor: int, data: bytes, at: int) -> int:
        if full:
            pwrite(descriptor, data[:10], at)
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", fails)
    monkeypatch.setattr(cassettes, "WRITE_EVERY", 0.01)
    written = Cassettes(tmp_path, TOKEN, clock=clock)
    hook(written)
    hook(written, call="CA" + "3" * 32)
    while len(written._lost) < 2:
        pass
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [0, 0]
    full = False
    hook(written, "in-progress", begins=False)
    written.close()
    found = rows(tmp_path / f"{CALL}.cassette")
    assert [row.get("kind") for row in found[1:]] == ["note", "webhook.request", "webhook.response"]
    assert found[1]["text"] == "2 rows are missing before this one"
    assert len(caplog.records) == 1 and caplog.records[0].levelno == logging.ERROR
    assert "No space left" in caplog.text


def test_rows_that_the_disk_does_not_keep_up_with_are_lost_and_noted(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cassettes, "MOST_WAITING", 4)
    monkeypatch.setattr(cassettes, "WRITE_EVERY", 60.0)
    written = Cassettes(tmp_path, TOKEN, clock=clock)
    for _ in range(3):
        hook(written)
    written.close()
    (path,) = tmp_path.iterdir()
    assert rows(path)[1]["text"] == "2 rows are missing before this one"
    assert "does not keep up" in caplog.text


def test_a_foreign_file_in_the_way_is_left_alone(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"{CALL}.cassette"
    path.write_text("somebody's notes\n")
    written = Cassettes(tmp_path, TOKEN, clock=clock)
    hook(written)
    written.close()
    assert path.read_text() == "somebody's notes\n"
    assert "a header that cannot be read" in caplog.text


def test_settings_ask_for_cassettes(tmp_path: Path) -> None:
    assert Cassettes.of(Settings()) is None
    with pytest.raises(SettingsError, match="TWILIO_AUTH_TOKEN"):
        Cassettes.of(Settings(cassettes_dir=tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="TRUNKLINE_CASSETTES_DIR"):
        Cassettes(tmp_path / "file" / "calls", TOKEN)


def test_old_cassettes_go_when_a_limit_is_set_and_nothing_else_does(
    tmp_path: Path, clock: Clock
) -> None:
    old = [
        tmp_path / name for name in (f"CA{'5' * 32}.cassette", f"CA{'5' * 32}-0a1b2c3d.cassette")
    ]
    others = [tmp_path / "CA-notes.txt", tmp_path / "20260101T120000-CA0123.wav"]
    for path in (*old, *others):
        path.write_text("{}")
        os.utime(path, (0, 0))
    retention = Retention(days=1, kind="cassettes", name=NAME)
    written = Cassettes(tmp_path, TOKEN, retention=retention, clock=clock)
    hook(written)
    written.close()
    assert set(tmp_path.iterdir()) == {*others, tmp_path / f"{CALL}.cassette"}


# --------------------------------------------------------------------------- masks


def test_a_number_has_one_mask_wherever_it_stands() -> None:
    masks = Masks(TOKEN)
    masked = masks.party("+14155551234")
    assert masked.startswith("+1555") and len(masked) == 12 and masked[1:].isdigit()
    assert masks.party("+14155551235") != masked
    assert masks.party("14155551234") == masked[1:]
    assert masks.text("<Dial>+14155551234</Dial>") == f"<Dial>{masked}</Dial>"
    assert masks.text("no 14155551234, q=%2B14155551234") == f"no {masked[1:]}, q=%2B{masked[1:]}"
    assert masks.text(masked) != masked, "a real number may look like a mask"
    assert Masks("another").party("+14155551234") != masked


def test_other_callers_keep_their_kind() -> None:
    masks = Masks(TOKEN)
    assert [masks.party(text) for text in ("", "anonymous", "RESTRICTED")] == [
        *("", "anonymous", "RESTRICTED")
    ]
    sip = masks.party("sip:alice@example.com")
    assert sip.startswith("sip:") and sip.endswith("@masked.invalid")
    assert masks.text("<Sip>sip:alice@example.com</Sip>") == f"<Sip>{sip}</Sip>"
    assert masks.party("client:bob").startswith("client:")
    assert masks.party("Bob's phone") == "***"


def test_a_form_keeps_what_is_known_to_be_harmless() -> None:
    form = Masks(TOKEN).form(
        {
            "CallSid": CALL,
            "AccountSid": "AC" + "9" * 32,
            "CallToken": "eyJhbGciOi",
            "FromCity": "SAN FRANCISCO",
            "SipHeader_X-Key": "secret",
            "FromZip": "",
            "CallDuration": 7,
            "StatusCallbackEvent": ["ringing", "completed"],
            "StatusCallback": "https://u:p@line.example/twilio/status?d=5e0f&waited=3#rc=3&rp=all",
        }
    )
    assert form == {
        "CallSid": CALL,
        "AccountSid": ACCOUNT,
        "CallToken": "***",
        "FromCity": "***",
        "SipHeader_X-Key": "***",
        "FromZip": "",
        "CallDuration": 7,
        "StatusCallbackEvent": ["ringing", "completed"],
        "StatusCallback": "https://***@line.example/twilio/status?d=***&waited=3#rc=3&rp=all",
    }


def test_twiml_has_no_token_and_no_values_of_queries() -> None:
    document = (
        '<Response><Connect><Stream url="wss://u:p@line.example/twilio/stream">'
        '<Parameter name="nonce" value="t0k&quot;en"/></Stream></Connect>'
        '<Redirect method="POST">https://line.example/twilio/voice?c=5e0f&amp;offered=1#rc=3</Redirect>'
        "</Response>"
    )
    assert Masks(TOKEN).text(document) == (
        '<Response><Connect><Stream url="wss://***@line.example/twilio/stream">'
        '<Parameter name="nonce" value="***"/></Stream></Connect>'
        '<Redirect method="POST">https://line.example/twilio/voice?c=***&amp;offered=1#rc=3</Redirect>'
        "</Response>"
    )
    assert query("o=1a2b&s=&waited=2&bare") == "o=***&s=***&waited=2&***"


def test_a_streams_messages_lose_the_account_and_the_token() -> None:
    start = json.dumps(
        {
            "event": "start",
            "start": {
                "accountSid": "AC" + "9" * 32,
                "callSid": CALL,
                "customParameters": {"nonce": "s3cret"},
            },
        }
    ).encode()
    masked = Masks(TOKEN).message(start, sound=True)
    assert masked["start"] == {
        "accountSid": ACCOUNT,
        "callSid": CALL,
        "customParameters": {"nonce": "***"},
    }
    assert Masks(TOKEN).message(b"\xff", sound=True) == {"event": "unreadable", "bytes": 1}
    assert Masks(TOKEN).message(b"[" * 9, sound=True) == {"event": "unreadable", "bytes": 9}


def test_a_message_of_any_depth_is_written(tmp_path: Path, clock: Clock) -> None:
    """No message may end the thread that writes."""
    written = Cassettes(tmp_path, TOKEN, clock=clock)
    tape = written.tape()
    tape.let_in(CALL, STREAM)
    deep = [b'{"x":' + b"[" * depth + b"]" * depth + b"}" for depth in (10, 500, 900, 10_000)]
    for message in deep:
        tape.heard(message)
    written.close()
    found = [row["message"] for row in rows(tmp_path / f"{CALL}.cassette")[2:]]
    assert len(found) == len(deep)
    assert found[0] == json.loads(deep[0])
    for row, message in zip(found[1:3], deep[1:3], strict=True):  # the limit is the interpreter's
        assert row in (json.loads(message), {"event": "unreadable", "bytes": len(message)})
    assert found[-1] == {"event": "unreadable", "bytes": len(deep[-1])}


def test_sound_is_left_out_on_request_but_for_its_length_and_level() -> None:
    media = b'{"event":"media","media":{"timestamp":"20","payload":"AIAAgA=="}}'
    kept = Masks(TOKEN).message(media, sound=True)
    assert kept["media"]["payload"] == "AIAAgA=="
    left_out = Masks(TOKEN).message(media, sound=False)
    assert left_out["media"] == {"timestamp": "20", "bytes": 4, "levels": [0]}
    odd = b'{"event":"media","media":{"payload":"?"}}'
    assert Masks(TOKEN).message(odd, sound=False)["media"] == {"bytes": 0, "levels": []}


def test_levels_are_in_decibels_below_full_scale() -> None:
    silence, quiet, loud = b"\xff" * 160, b"\xef" * 160, b"\x80" * 80
    assert levels(silence + quiet + loud) == [-90, -48, 0]
