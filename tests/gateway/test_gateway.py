"""The whole gateway on real sockets: HTTP and WebSocket on one side, the bus on the other."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from msgspec.structs import replace
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from trunkline.bus import hosts
from trunkline.bus import messages as m
from trunkline.bus.endpoints import listened_at
from trunkline.bus.listener import HEAD_BYTES
from trunkline.bus.settings import load
from trunkline.bus.testing import poison, until
from trunkline.gateway import links
from trunkline.gateway.process import BOUNDS, main, serve
from trunkline.gateway.shell import Shell

from .stack import BASE, CALL, FORM, STREAM, Stack, close_code, event, media, sign

G1 = m.first_generation(1)


async def http(stack: Stack, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write(request)
    found = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return found


async def post(stack: Stack, path: str, form: dict[str, str]) -> bytes:
    body = urlencode(form)
    return await http(
        stack,
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n"
        f"X-Twilio-Signature: {sign(BASE + path, form)}\r\n\r\n{body}".encode(),
    )


async def test_a_call_from_webhook_to_stop(stack: Stack) -> None:
    controller, worker = stack.controller, stack.a
    controller.answers[m.VoiceWebhook] = m.VoiceAnswer(kind="stream", token="t1")
    answer = await post(stack, "/twilio/voice?m=1", FORM)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'<Stream url="wss://line.example.com/twilio/stream">' in answer

    controller.tokens["t1"] = stack.accepted()
    client = await stack.stream()
    await until(lambda: worker.all(m.OpenCall))
    assert controller.all(m.StreamStart) == [
        m.StreamStart(token="t1", call_sid=CALL, stream_sid=STREAM, gateway=stack.gateway.peer)
    ]
    opened = worker.all(m.OpenCall)[0]
    assert (opened.generation, opened.out_next, opened.lead_ms) == (G1, 0, 80)

    for n in range(5):
        await client.send(media(20 * n, bytes([n]) * 160))
    await until(lambda: len(worker.frames()) + len(opened.ring) == 5)
    assert [f.position for f in [*opened.ring, *worker.frames()]] == [0, 160, 320, 480, 640]

    worker.speak(G1, 0, b"\x01" * 160)
    assert json.loads(await client.recv()) == {
        "event": "media",
        "streamSid": STREAM,
        "media": {"payload": base64.b64encode(b"\x01" * 160).decode()},
    }
    await until(lambda: [to.position for to in worker.written()] == [160])
    worker.say(m.Mark("c1", G1, "m1"))
    assert json.loads(await client.recv()) == {
        "event": "mark",
        "streamSid": STREAM,
        "mark": {"name": "m1"},
    }
    await client.send(event("mark", mark={"name": "m1"}))
    await client.send(event("dtmf", dtmf={"track": "inbound_track", "digit": "#"}))
    await until(lambda: worker.all(m.Digit))
    assert worker.all(m.MarkReached) == [m.MarkReached("c1", G1, "m1")]
    assert worker.all(m.Digit) == [m.Digit("c1", G1, m.DigitIn(1, 1, "#"))]
    worker.say(m.Clear("c1", G1, 160, 1))
    assert json.loads(await client.recv()) == {"event": "clear", "streamSid": STREAM}

    await until(lambda: any(beat.streams for beat in controller.all(m.Beat)))
    await client.send(event("stop"))
    await until(lambda: worker.all(m.StreamEnded))
    assert worker.all(m.StreamEnded)[0].reason == "stop"
    with pytest.raises(ConnectionClosed):
        await client.recv()
    await until(lambda: controller.all(m.StreamClosed))
    assert [closed.reason for closed in controller.all(m.StreamClosed)] == ["stop"]


@pytest.mark.parametrize(("clean", "reason"), [(True, "close"), (False, "error")])
async def test_how_a_stream_ends_is_told(stack: Stack, clean: bool, reason: str) -> None:
    client = await stack.up()
    if clean:
        await client.close()
    else:
        client.transport.abort()
    await until(lambda: stack.controller.all(m.StreamClosed))
    assert stack.controller.all(m.StreamClosed)[0].reason == reason
    await until(lambda: stack.a.all(m.StreamEnded))


async def test_a_worker_that_dies_is_replaced_without_a_lost_frame(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection tells of its death, long before its silence would."""
    monkeypatch.setattr(links, "TICK_LIMIT", float("inf"))
    client = await stack.up()
    stack.a.speak(G1, 0, b"\x01" * 160)
    await client.recv()
    await client.send(media(0, b"\x00" * 160))
    await until(lambda: stack.a.frames() or stack.a.all(m.OpenCall)[0].ring)
    stack.a.die()
    await until(lambda: stack.b.all(m.OpenCall))
    opened = stack.b.all(m.OpenCall)[0]
    assert (opened.generation, opened.out_next, len(opened.ring)) == (G1 + 1, 160, 1)
    stack.b.speak(G1 + 1, 160, b"\x02" * 160)
    assert b"AgIC" in (await client.recv()).encode()  # type: ignore[union-attr]  # text
    await until(lambda: stack.controller.all(m.CallMoved))
    await client.close()


async def test_a_worker_that_died_before_the_stream_came_is_not_waited_for(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for its silence to last long enough: its connection is gone."""
    monkeypatch.setattr(links, "TICK_LIMIT", float("inf"))
    stack.a.die()
    # ZeroMQ closes the socket in a thread of its own, and takes connections until then.
    path = Path(stack.a.ref.endpoint.removeprefix("ipc://"))
    await until(lambda: not listened_at(path))
    stack.controller.tokens["t1"] = stack.accepted()
    client = await stack.stream()
    await until(lambda: stack.b.all(m.OpenCall))
    assert stack.b.all(m.OpenCall)[0].generation == G1, "the dead one had it first"
    await client.close()


async def test_a_new_controller_is_told_of_live_streams(stack: Stack) -> None:
    client = await stack.up()
    stack.controller.epoch = 2
    await until(lambda: len(stack.controller.all(m.Hello)) == 2)
    (told,) = stack.controller.all(m.Hello)[1].streams
    assert (told.info.call, told.stream_sid, told.active) == ("c1", STREAM, "a")
    stack.controller.tell(m.CloseStream(call="c1"))
    with pytest.raises(ConnectionClosed):
        await client.recv()


async def test_what_waits_on_the_socket_of_a_call_that_is_over_is_read_first(stack: Stack) -> None:
    """The gateway stood still for 3 s. It reads the controller's word before the carrier's."""
    stack.controller.tokens["t1"] = stack.accepted()
    client = await stack.stream()
    await until(lambda: stack.a.all(m.OpenCall))
    for n in range(150):
        client.protocol.send_text(media(20 * n, bytes(160)).encode())
    client.transport.write(b"".join(client.protocol.data_to_send()))
    stack.gateway.shell.event(m.CloseStream(call="c1"))
    await until(lambda: stack.a.all(m.StreamEnded))
    assert [f.position for f in stack.a.frames()] == [160 * n for n in range(150)]
    with pytest.raises(ConnectionClosed):
        await client.recv()


async def test_a_placement_right_behind_the_acceptance(stack: Stack) -> None:
    stack.controller.tokens["t1"] = stack.accepted()
    only_b = m.Placement(epoch=1, n=2, primary=stack.b.ref)
    stack.controller.after_start = m.CallPlaced(call="c1", placement=only_b)
    client = await stack.stream()
    await until(lambda: stack.b.all(m.OpenCall))
    assert not stack.gateway.shell.streams.dropped
    await client.close()


async def test_only_signed_upgrades_and_known_tokens(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"ws://127.0.0.1:{stack.port}"
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{url}/twilio/stream", proxy=None)
    assert refused.value.response.status_code == 403
    assert b"checked: wss://line.example.com/twilio/stream" in refused.value.response.body
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{url}/elsewhere", proxy=None)
    assert refused.value.response.status_code == 404
    client = await stack.stream("secret-guess")
    assert await close_code(client) == 1008
    client = await stack.stream(started=False)
    await client.send(event("start", start={"callSid": CALL}))
    with pytest.raises(ConnectionClosed):
        await client.recv()
    assert stack.a.all(m.OpenCall) == []
    assert "secret-guess" not in caplog.text
    assert not stack.gateway.shell.sockets


async def test_what_was_refused_is_told_with_the_beats(stack: Stack) -> None:
    body = urlencode(FORM)
    settings = "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"
    for headers in ("", f"X-Twilio-Webhooks-Signature-Settings: {settings}\r\n") * 2:
        answer = await http(
            stack,
            f"POST /twilio/voice HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}"
            f"X-Twilio-Signature: c2lnbg==\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode(),
        )
        assert answer.startswith(b"HTTP/1.1 403 ")
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{stack.port}/twilio/stream")
    assert refused.value.response.status_code == 403
    counts = {"wrong signature": 2, "shared key": 2, "unsigned": 1}
    await until(lambda: counts in [beat.refused for beat in stack.controller.all(m.Beat)])


async def test_a_handshake_that_is_none_leaves_nothing(stack: Stack) -> None:
    signature = sign("wss://line.example.com/twilio/stream")
    found = await http(
        stack,
        b"GET /twilio/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nX-Twilio-Signature: " + signature.encode() + b"\r\n\r\n",
    )
    assert found.startswith(b"HTTP/1.1 4")
    assert not stack.gateway.shell.sockets


async def test_sound_that_comes_before_the_controllers_answer_is_kept(stack: Stack) -> None:
    stack.controller.mute = True
    client = await stack.stream()
    for n in range(3):
        await client.send(media(20 * n, b"\x00" * 160))
    stack.controller.tokens["t1"] = stack.accepted()
    stack.controller.mute = False
    stack.controller.epoch = 2  # the gateway says Hello again, and asks again
    stack.controller.tell(m.Pulse(epoch=2, stack="stack-1"))
    await until(lambda: stack.a.all(m.OpenCall))
    await until(lambda: len(stack.a.all(m.OpenCall)[0].ring) + len(stack.a.frames()) == 3)
    await client.close()


async def test_a_socket_that_left_before_the_answer(stack: Stack) -> None:
    stack.controller.mute = True
    client = await stack.stream()
    await until(lambda: len(stack.gateway.shell._tasks) == 1)
    await client.close()
    await until(lambda: not stack.gateway.shell.sockets)
    stack.controller.tokens["t1"] = stack.accepted()
    stack.controller.mute = False
    stack.controller.tell(m.Pulse(epoch=2, stack="stack-1"))
    await until(lambda: stack.controller.all(m.StreamClosed))
    assert stack.controller.all(m.StreamClosed)[0].ordinal == 1
    assert stack.a.all(m.OpenCall) == []


async def test_a_start_must_come_in_time(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.gateway.admission.START_WITHIN", 0.1)
    client = await stack.stream(started=False)
    assert await close_code(client) == 1008


async def test_health_and_nothing_else(stack: Stack) -> None:
    found = await http(stack, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert json.loads(found.partition(b"\r\n\r\n")[2]) == {"ok": True, "stack": "stack-1"}
    found = await http(stack, b"HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\ndate: ") and body == b""
    for path in (b"/", b"/twilio/voice/", b"/metrics"):
        found = await http(
            stack, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        assert found.startswith(b"HTTP/1.1 404 ")


async def healthy(stack: Stack) -> bool:
    found = await http(stack, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 200 "), "other stacks ask for its name here"
    ok: bool = json.loads(found.partition(b"\r\n\r\n")[2])["ok"]
    return ok


async def test_health_means_that_sound_can_move(stack: Stack) -> None:
    controller, client = stack.controller, stack.gateway.client.home
    assert await healthy(stack)
    for workers in (0, 1, 0):
        pulse = m.Pulse(epoch=controller.epoch, stack="stack-1", workers=workers)
        controller._send(pulse, controller.peers[-1])
        await until(lambda workers=workers: client.workers == workers)  # type: ignore[misc]  # bound at once
        assert await healthy(stack) == bool(workers)
    controller._send(replace(pulse, workers=2), controller.peers[-1])
    await until(lambda: client.workers == 2)
    controller.stop()
    await until(lambda: client.welcome is None)
    assert not await healthy(stack)


async def test_a_gateway_gives_signs_of_life_unless_it_alone_does_not_hear_the_controller(
    monkeypatch: pytest.MonkeyPatch, short_directory: Path
) -> None:
    wells: list[Any] = []
    monkeypatch.setattr("trunkline.gateway.process.lives_while", wells.append)
    stop = asyncio.Event()
    settings = load(env_file=None, bus=f"ipc://{short_directory}/bus", public_url=BASE)
    settings.address.make_directory()
    serving = asyncio.create_task(serve(settings, hosts.listen("127.0.0.1", 0), None, stop))
    await until(lambda: bool(wells))
    (well,) = wells
    assert well(), "there is no controller, and calls go on"
    monkeypatch.setattr("trunkline.bus.control.ControlClient.deaf", True)
    assert not well()
    stop.set()
    await serving


async def test_no_message_of_a_worker_ends_a_call(stack: Stack) -> None:
    client = await stack.up()
    found = poison(call="c1")
    for payload in found.values():
        assert stack.a.peer is not None and stack.a.router.send(payload, stack.a.peer)
    stack.a.speak(G1, 0, b"\x01" * 160)
    assert b"AQEB" in (await client.recv()).encode()  # type: ignore[union-attr]  # text
    await client.send(media(0, b"\x00" * 160))
    await until(lambda: stack.a.frames() or stack.a.all(m.OpenCall)[0].ring)
    told = {"undecodable": len(found)}
    await until(lambda: told in [beat.dropped for beat in stack.controller.all(m.Beat)])
    await client.close()


async def test_an_event_of_the_controller_that_fails_ends_no_call(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = await stack.up()

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(stack.gateway.shell.streams, "call_placed", fail)
    placement = stack.accepted().info.placement
    assert placement is not None
    stack.controller.tell(m.CallPlaced(call="c1", placement=placement))
    await until(lambda: "a CallPlaced failed" in caplog.text)
    stack.a.speak(G1, 0, b"\x01" * 160)
    await client.recv()
    await client.close()


async def test_large_and_slow_requests_are_cut_off(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * BOUNDS.request_bytes
    assert (await http(stack, head)).startswith(b"HTTP/1.1 413 ")
    # A head that is not whole may be shorter, because many strangers can send one.
    half = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * HEAD_BYTES
    assert (await http(stack, half)).startswith(b"HTTP/1.1 413 ")
    assert (await http(stack, b"nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    monkeypatch.setattr(BOUNDS, "request_within", 0.1)
    with pytest.raises(ConnectionResetError):
        if await http(stack, b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\n") == b"":
            raise ConnectionResetError


async def test_a_stopping_gateway_waits_for_its_controller(stack: Stack) -> None:
    client = await stack.up()
    stack.stop.set()
    await until(lambda: stack.gateway.shell.admission.draining)
    with pytest.raises(InvalidStatus) as refused:
        await stack.stream("t2")
    assert refused.value.response.status_code == 503
    answer = await post(stack, "/twilio/voice", FORM)
    assert b'<Reject reason="busy"/>' in answer
    # The call that is on stays until then.
    heard = len(stack.a.frames())
    await client.send(media(20, bytes(160)))
    await until(lambda: len(stack.a.frames()) > heard)
    stack.controller.stop()  # its numbers are restored
    assert await close_code(client) == 1001


async def test_a_gateway_with_a_time_for_it_lets_its_calls_come_to_their_end(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack.gateway, "_drain_seconds", 60.0)
    monkeypatch.setattr("trunkline.gateway.process.DRAIN_SECONDS", 0.1)
    monkeypatch.setattr("trunkline.gateway.process.IDLE_DRAIN_SECONDS", 0.1)
    client = await stack.up()
    assert stack.gateway.takes_calls
    stack.stop.set()
    await until(lambda: stack.gateway.shell.admission.draining)
    assert not stack.gateway.takes_calls
    stack.controller.stop()  # whether there is a controller is all the same
    await until(lambda: stack.gateway.client.welcome is None)
    heard = len(stack.a.frames())
    await client.send(media(20, bytes(160)))
    await until(lambda: len(stack.a.frames()) > heard)
    assert not stack.serving.done()
    await client.send(event("stop"))
    await client.close()
    assert await stack.serving == 0


async def test_a_gateway_that_closes_its_streams_takes_no_new_connections(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twilio asks for the call's next stream at once, and the gateway that shares the socket
    answers. The one that ends would let the call wait for a second."""
    monkeypatch.setattr("trunkline.gateway.process.DRAIN_SECONDS", 0.1)
    carriers_answered = asyncio.Event()
    monkeypatch.setattr(Shell, "wait_closed", lambda *_: carriers_answered.wait())
    client = await stack.up()
    stack.stop.set()
    assert await close_code(client) == 1001
    try:
        with pytest.raises(ConnectionRefusedError):
            await post(stack, "/twilio/voice", FORM)
    finally:
        carriers_answered.set()
    assert await stack.serving == 0


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/twilio/voice", b"<Redirect"), ("/twilio/status", b"HTTP/1.1 503 ")],
)
async def test_a_stopping_gateway_answers_who_still_waits(
    stack: Stack,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    expected: bytes,
) -> None:
    """Its controller stands still: Twilio is told to ask again, and another gateway answers."""
    monkeypatch.setattr("trunkline.gateway.process.IDLE_DRAIN_SECONDS", 0.05)
    stack.controller.mute = True
    asked = asyncio.create_task(post(stack, path, {**FORM, "CallStatus": "completed"}))
    await until(lambda: stack.gateway.app._asking)
    stack.stop.set()
    assert expected in await asked
    assert await stack.serving == 0
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_port_that_is_taken_is_one_line(
    short_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = load(
            env_file=None,
            bus=f"ipc://{short_directory}",
            auth_token="t",
            http_port=port,
            http_host="127.0.0.1",
        )
        assert main(settings) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"TRUNKLINE_HTTP_PORT={port}" in said
    assert "taken" in said


CHILD = """
import sys
from trunkline.bus.settings import load
from trunkline.gateway.process import main
settings = load(env_file=None, bus=sys.argv[1], auth_token="t", public_url="https://x.example")
sys.exit(main(settings, listen_fd=int(sys.argv[2])))
"""


@pytest.mark.e2e
def test_a_process_on_an_inherited_socket_ends_by_sigterm(short_directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        fd = held.fileno()
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, f"ipc://{short_directory}/bus", str(fd)], pass_fds=[fd]
        )
        try:
            # The socket listens already: the connection waits for the process.
            with socket.create_connection(held.getsockname(), timeout=20) as client:
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                found = b""
                while part := client.recv(1000):
                    found += part
            assert json.loads(found.partition(b"\r\n\r\n")[2]) == {"ok": False, "stack": None}
            child.terminate()
            child.terminate()
            assert child.wait(timeout=4) == 0
        finally:
            child.kill()
            child.wait()


def test_a_missing_token_is_one_line(
    short_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(load(env_file=None, bus=f"ipc://{short_directory}", http_port=0)) == 1
    assert "TWILIO_AUTH_TOKEN" in capsys.readouterr().err
