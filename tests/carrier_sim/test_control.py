"""The carrier as a process: the command, the control API and its client."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from trunkline.carrier_sim.beliefs import BELIEFS
from trunkline.carrier_sim.bots import Play
from trunkline.carrier_sim.client import SimClient, SimError, located
from trunkline.carrier_sim.command import command
from trunkline.carrier_sim.sim import CarrierSim
from trunkline.carrier_sim.wav import write_pcm

from .server import CALLEE, CALLER, OURS, Customer, twilio_client

RUN = "from trunkline.carrier_sim.command import command; command()"


@pytest.fixture
def client(sim: CarrierSim) -> Iterator[SimClient]:
    with SimClient(sim.base_url) as client:
        yield client


async def test_a_call_through_the_control_api(
    sim: CarrierSim, client: SimClient, customer: Customer
) -> None:
    customer.pages["/voice"] = customer.connect()

    def script() -> None:
        client.add_number(OURS, voice_url=customer.base + "/voice")
        bot = {"kind": "wav", "speech": "austen-0880", "dtmf": [[0.1, "3"]]}
        call = client.place_call(CALLER, OURS, bot)
        call = client.wait_for(call["sid"], "in-progress")
        sid, deadline = call["sid"], time.monotonic() + 5
        while not (call["streams"] and call["streams"][0]["digits_sent"]):
            assert time.monotonic() < deadline
            call = client.call(sid)
        stream = call["streams"][0]["sid"]
        assert client.stream(stream)["metrics"]["frames_in"] > 0
        assert client.arrivals(stream)[0][1] == 160
        assert client.spans(stream)["spans"]
        assert client.health()["calls"] == 1
        client.hang_up(sid)
        call = client.wait_for(sid)
        assert (call["status"], call["end_reason"]) == ("completed", "far-end")
        assert len(client.played(sid)) == len(client.said(sid)) == call["played_ms"] * 8
        assert client.wav(sid)[:4] == b"RIFF"
        assert client.errors() == [] and client.load()["ticks"] > 0
        assert [c["sid"] for c in client.calls()] == [sid]
        assert len(client.streams()) == 1
        webhook = client.webhook_log()[0]
        assert webhook["status"] == 200
        assert 0.0 < webhook["seconds"] < webhook["time"]
        client.reset()
        assert client.calls() == [] and OURS in client.numbers()

    await asyncio.to_thread(script)


def test_a_recordings_relative_path_is_the_clients_and_not_the_carriers() -> None:
    here = Path("/tests")
    assert located("wav:hello.wav,greets", here) == "wav:/tests/hello.wav,greets"
    assert located("wav:/else/hello.wav", here) == "wav:/else/hello.wav"
    assert located({"kind": "wav", "path": "a/b.wav"}, here) == {
        "kind": "wav",
        "path": "/tests/a/b.wav",
    }
    assert located("menu:m.toml,ring=2", here) == "menu:/tests/m.toml,ring=2"
    assert located("voicemail:wav:a.wav+beep:1+wav:/b.wav,full", here) == (
        "voicemail:wav:/tests/a.wav+beep:1+wav:/b.wav,full"
    )
    for other in (
        "echo",
        "hand-over:music:4+other-voice:austen-0880",
        "speech:austen-0880,loop",
        {"kind": "wav", "speech": "austen-0880"},
    ):
        assert located(other, here) == other


async def test_a_menu_through_the_control_api(
    sim: CarrierSim, client: SimClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.toml").write_text(
        '[main]\nsay = "beep:0.1"\ndigits = { 1 = "bye" }\n[bye]\nsay = "beep:0.1"\n'
    )
    sim.add_number(OURS)
    monkeypatch.chdir(tmp_path)
    twiml = '<Response><Play digits="w1"/><Pause length="5"/></Response>'

    def script() -> None:
        client.add_callee(CALLEE, "menu:m.toml")
        with twilio_client(sim, sim.auth_token) as twilio:
            sid = twilio.calls.create(to=CALLEE, from_=OURS, twiml=twiml).sid
        call = client.wait_for(str(sid), "completed")
        assert call["end_reason"] == "far-end"
        way = [(visit["step"], visit["how"]) for visit in call["way"]]
        assert way == [("main", ""), ("bye", "1")]
        assert client.picture(call["sid"]).startswith("<svg ")
        with pytest.raises(SimError, match="no step of this file"):
            (tmp_path / "m.toml").write_text('[main]\ndigits = { 1 = "x" }\n')
            client.add_callee(CALLEE, "menu:m.toml")
        client.add_callee(CALLEE, "busy")
        with twilio_client(sim, sim.auth_token) as twilio:
            sid = twilio.calls.create(to=CALLEE, from_=OURS, twiml=twiml).sid
        with pytest.raises(SimError, match="has no menu"):
            client.picture(str(sid))
        client.wait_for(str(sid), "busy")

    await asyncio.to_thread(script)


async def test_faults_and_numbers_through_the_control_api(
    sim: CarrierSim, client: SimClient
) -> None:
    def script() -> None:
        client.add_number(OURS)
        client.add_callee(CALLEE, "echo:0.1")
        client.add_caller_id(CALLER)
        rule = client.add_fault("rest", "status", status=500, count=1)
        (shown,) = client.faults()
        assert (shown["id"], shown["kind"], shown["fired"]) == (rule, "status", 0)
        client.remove_fault(rule)
        client.add_fault("webhook", "drop")
        client.clear_faults()
        assert client.faults() == [] and client.number_writes() == []
        assert client.rest_log() == [] and client.notices() == []

    await asyncio.to_thread(script)
    assert sim.exchange.caller_ids == {CALLER}


async def test_beliefs_are_contradicted_through_the_control_api(
    sim: CarrierSim, client: SimClient
) -> None:
    def script() -> None:
        assert list(client.beliefs()) == list(BELIEFS)
        assert all(belief["holds"] for belief in client.beliefs().values())
        client.contradict("silence-is-sent", "reject-is-busy")
        wrong = [name for name, belief in client.beliefs().items() if not belief["holds"]]
        assert wrong == ["reject-is-busy", "silence-is-sent"]
        instead = client.beliefs()["silence-is-sent"]["contradicted"]
        assert instead == "Frames below about -42 dBFS are left out; timestamps go on."
        with pytest.raises(SimError, match="no belief nonsense"):
            client.contradict("nonsense")
        client.contradict()
        assert all(belief["holds"] for belief in client.beliefs().values())

    await asyncio.to_thread(script)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/sim/nothing", None, 404),
        ("POST", "/sim/nothing", {}, 404),
        ("GET", "/sim/calls/CA1", None, 404),
        ("GET", "/sim/streams/MZ1", None, 404),
        ("DELETE", "/sim/faults/7", None, 400),
        ("POST", "/sim/calls", {"from": CALLER, "to": "+19"}, 400),
        ("POST", "/sim/calls", {"from": CALLER, "to": OURS, "bot": "robot"}, 400),
        ("POST", "/sim/calls", {"from": CALLER, "to": OURS, "bot": "busy"}, 400),
        ("POST", "/sim/calls", [], 400),
        ("POST", "/sim/faults", {"where": "rest", "kind": "x"}, 400),
        ("POST", "/sim/numbers", {}, 400),
    ],
)
async def test_wrong_requests(
    sim: CarrierSim, client: SimClient, method: str, path: str, body: object, status: int
) -> None:
    sim.add_number(OURS)
    with pytest.raises(SimError) as caught:
        await asyncio.to_thread(client.request, method, path, body)
    assert caught.value.status == status


def start(*arguments: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("carrier-sim listening on http://127.0.0.1:"), line
    return process, line.split()[3]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_says_where_it_is_and_ends_when_told(number: int) -> None:
    process, url = start(
        "--number",
        f"{OURS}=https://old.example/v?a=1",
        "--callee",
        f"{CALLEE}=echo,ring=1",
        TWILIO_ACCOUNT_SID="AC" + "9" * 32,
        TWILIO_AUTH_TOKEN="secret",
    )
    with process, SimClient(url) as client:
        assert client.health()["account_sid"] == "AC" + "9" * 32
        assert client.numbers()[OURS]["voice_url"] == "https://old.example/v?a=1"
        asked = time.monotonic()
        process.send_signal(number)
        assert process.wait(5) == 0
        assert time.monotonic() - asked < 3


def test_help_and_wrong_usage() -> None:
    runner = CliRunner()
    shown = runner.invoke(command, ["--help"])
    assert shown.exit_code == 0 and "Examples:" in shown.output and "--callee" in shown.output
    for wrong in (["--number", "123"], ["--callee", "+1=robot"], ["--calls-per-second", "0"]):
        assert runner.invoke(command, wrong).exit_code == 2


# --------------------------------------------------------------------------- who may ask for what


def status_of(sim: CarrierSim, method: str, path: str, headers: dict[str, str]) -> int:
    parts = urlsplit(sim.base_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.putrequest(method, path, skip_host=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Host": "127.0.0.1:9080"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:9080"}, 200),
        ({"Host": "192.0.2.7"}, 200),
        # A page's site has made a name of its own point here.
        ({"Host": "rebound.example:9080"}, 403),
        ({"Host": "127.0.0.1.example"}, 403),
        ({"Host": "127.0.0.1@rebound.example"}, 403),
        ({"Host": ""}, 403),
        ({}, 403),
        # A page sends a form here.
        ({"Host": "127.0.0.1:9080", "Origin": "https://evil.example"}, 403),
        ({"Host": "127.0.0.1:9080", "Origin": "null"}, 403),
        ({"Host": "127.0.0.1:9080", "Origin": "http://127.0.0.1:9080"}, 403),
    ],
)
async def test_no_page_of_a_browser_is_served(
    sim: CarrierSim, headers: dict[str, str], expected: int
) -> None:
    assert await asyncio.to_thread(status_of, sim, "GET", "/sim/health", headers) == expected
    posted = await asyncio.to_thread(status_of, sim, "POST", "/sim/reset", headers)
    assert posted == expected


async def test_no_file_is_opened_for_a_request(
    sim: CarrierSim, client: SimClient, tmp_path: Path
) -> None:
    recording = tmp_path / "hello.wav"
    recording.write_bytes(write_pcm(b"\x00" * 800))
    sim.add_number(OURS)

    def refused(route: str, bot: object) -> None:
        body = {"phone_number": CALLEE, "from": CALLER, "to": OURS, "bot": bot}
        with pytest.raises(SimError, match="no file is opened here") as caught:
            client.request("POST", route, body)
        assert caught.value.status == 400

    def script() -> None:
        for route in ("/sim/callees", "/sim/calls"):
            for bot in (
                f"wav:{recording}",
                {"kind": "wav", "path": str(recording)},
                '{"kind": "wav", "path": "/etc/passwd"}',
                {"kind": "wav", "path": str(recording), "speech": "austen-0880"},
            ):
                refused(route, bot)
        # The client reads it itself, as whoever runs it may.
        client.add_callee(CALLEE, f"wav:{recording},ring=2")
        with pytest.raises(SimError, match="no bot"):
            client.add_callee(CALLEE, f"wav:{recording},ring=soon")
        with pytest.raises(SimError, match=r"missing\.wav"):
            client.place_call(CALLER, OURS, "wav:missing.wav")

    await asyncio.to_thread(script)
    bot = sim.exchange.callees[CALLEE]
    assert isinstance(bot, Play) and (bot.path, bot.ring, len(bot.sound())) == ("", 2.0, 800)
