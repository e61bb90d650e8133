"""A whole controller: scripted peers on its real ROUTER, the carrier's REST behind it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import secrets
import socket
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import zmq
from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.bus.control import ControlClient
from trunkline.bus.errors import (
    CarrierError,
    NumberBusyError,
    NumberRoutedElsewhereError,
    SettingsError,
)
from trunkline.bus.process import EXIT_DONE, EXIT_PENDING
from trunkline.bus.settings import Settings, load, private_state_dir
from trunkline.bus.testing import until
from trunkline.carrier_sim.bots import Silence
from trunkline.carrier_sim.faults import Fault
from trunkline.carrier_sim.sim import CarrierSim
from trunkline.controller import process
from trunkline.controller.journal.database import JournalError
from trunkline.controller.journal.store import Journal
from trunkline.controller.process import main, serve
from trunkline.controller.restore_command import restore_command
from trunkline.controller.rules.book import Book
from trunkline.controller.shell import STOP_WITHIN

OURS = "+14155551234"
THEIRS = "+14155557777"
URL = "http://127.0.0.1:1"
PRIOR = "https://me:pa55@agent.example.com/voice"


def settings_for(tmp_path: Path, sim: CarrierSim, **fields: Any) -> Settings:
    values = {
        "account_sid": sim.account_sid,
        "auth_token": sim.auth_token,
        "public_url": URL,
        "console_port": 0,
        "bus": f"ipc://{tmp_path}/bus",
        "state_dir": tmp_path / "state",
        "twilio_api_url": sim.base_url,
        "calls_per_second": 100.0,
    }
    return load(env_file=None, **(values | fields))


class Peer:
    """A scripted peer: a real ControlClient, and the events it got."""

    def __init__(self, settings: Settings, context: Any, role: m.Role, **hello: Any) -> None:
        self.name = f"{role}-{secrets.token_hex(2)}"
        self.events: list[Any] = []
        self.sessions: list[m.SessionInfo] = []
        self.streams: list[m.StreamStats] = []
        self._arrived = asyncio.Event()
        self.client = ControlClient(
            context,
            settings.address,
            peer=self.name,
            hello=lambda: m.Hello(
                role=role, peer=self.name, pid=os.getpid(), sessions=self.sessions, **hello
            ),
            beat=lambda: m.Beat(
                peer=self.name,
                sessions=[s.session for s in self.sessions],
                streams=self.streams,
            ),
            on_event=self._take,
            curve=settings.curve,
        )
        self.client.start()

    def _take(self, event: m.Event) -> None:
        self.events.append(event)
        self._arrived.set()

    async def event(self, kind: type[Any]) -> Any:
        async with asyncio.timeout(10):
            while True:
                for event in self.events:
                    if isinstance(event, kind):
                        self.events.remove(event)
                        return event
                self._arrived.clear()
                await self._arrived.wait()

    async def ask(self, body: Any, expect: Any, timeout: float = 10.0) -> Any:
        return await self.client.request(body, expect, timeout=timeout)


class Stack:
    """A controller in this loop, and peers that join it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.peers: list[Peer] = []
        self._stop = asyncio.Event()
        self._task: asyncio.Task[int] | None = None

    def start(self) -> None:
        self._stop = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(serve(self.settings, self._stop))

    async def stop(self) -> int:
        assert self._task is not None
        self._stop.set()
        return await self._task

    async def join(self, role: m.Role, **hello: Any) -> Peer:
        peer = Peer(self.settings, self.context, role, **hello)
        self.peers.append(peer)
        await peer.client.wait_welcome()
        return peer

    async def open(self, adapter: Peer, **fields: Any) -> m.SessionInfo:
        info = m.SessionInfo(
            session=secrets.token_hex(16), secret=secrets.token_hex(16), number=OURS, **fields
        )
        adapter.sessions.append(info)
        await adapter.ask(m.OpenSession(info=info), m.SessionOpened)
        return info

    async def armed(self) -> tuple[Peer, m.SessionInfo]:
        """A client whose session waits for a call: our override is on the number."""
        adapter = await self.join("adapter")
        info = await self.open(adapter)
        await adapter.ask(m.Arm(session=info.session), m.Armed)
        return adapter, info

    async def close(self) -> None:
        for peer in self.peers:
            await peer.client.close()
        if self._task is not None and not self._task.done():
            await self.stop()
        self.context.term()


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Stack]:
    stack = Stack(settings)
    stack.start()
    try:
        yield stack
    finally:
        await stack.close()


@pytest.fixture
async def sim() -> AsyncIterator[CarrierSim]:
    async with CarrierSim() as sim:
        sim.add_number(OURS, voice_url=PRIOR)
        yield sim


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that is to end does so sooner: what is not put back by then never will be."""
    monkeypatch.setattr("trunkline.controller.shell.STOP_WITHIN", 0.6)


async def test_inbound_answer_and_a_leg_dial(tmp_path: Path, sim: CarrierSim) -> None:
    before = sim.numbers[OURS].voice_url
    async with running(settings_for(tmp_path, sim)) as stack:
        gateway = await stack.join("gateway")
        await stack.join("codec_worker", endpoint="ipc:///nowhere")
        adapter, info = await stack.armed()
        ours = sim.numbers[OURS].voice_url
        assert ours.startswith(f"{URL}/twilio/voice?o=")
        form = {"CallSid": "CA1", "From": THEIRS, "To": OURS}
        answer = await gateway.ask(m.VoiceWebhook(form=form), m.VoiceAnswer)
        start = m.StreamStart(
            token=answer.token, call_sid="CA1", stream_sid="MZ1", gateway=gateway.name
        )
        accepted = await gateway.ask(start, m.StreamAccepted)
        started = await adapter.event(m.CallStarted)
        assert started.info == accepted.info
        status = (await adapter.ask(m.GetStatus(), m.StatusReport)).status
        assert status["overrides"][0]["prior_voice_url"] == PRIOR.replace("pa55", "***")
        gateway.client.notify(
            m.StreamClosed(call=started.info.call, ordinal=1, reason="stop", gateway=gateway.name)
        )
        assert (await adapter.event(m.CallEnded)).reason == "stop"
        closed = await adapter.ask(m.CloseSession(session=info.session), m.SessionClosed)
        assert closed.pending == [] and sim.numbers[OURS].voice_url == before
        adapter.sessions.clear()

        caller = await stack.open(adapter, allowed_callees=[THEIRS])
        dial = m.Dial(
            session=caller.session,
            request=secrets.token_hex(16),
            to=THEIRS,
            mode="a-leg",
            timeout=10.0,
            max_duration=60.0,
        )
        dialled = await adapter.ask(dial, m.Dialled)
        call = next(iter(sim.calls.values()))
        assert call.sid == dialled.sid and call.record.options.time_limit == 60
        token = call.record.options.twiml.split('value="')[1][:32]
        start = m.StreamStart(
            token=token, call_sid=call.sid, stream_sid="MZ2", gateway=gateway.name
        )
        await gateway.ask(start, m.StreamAccepted)
        placed = (await adapter.event(m.CallStarted)).info
        assert placed.dial_request == dial.request
        await adapter.ask(m.HangUp(session=caller.session, call=placed.call), m.Done)
        assert (await adapter.event(m.CallEnded)).reason == "hang_up"
        assert not call.live
    assert len(sim.number_writes) == 2


@pytest.mark.parametrize("step", ["in_file", "unreadable", "begin_epoch"])
async def test_a_first_start_that_fails_has_lost_no_journal(
    tmp_path: Path, sim: CarrierSim, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The next one does not say that it has, nor ask for the account's numbers. Once an epoch has
    begun, a journal that is not there was lost."""
    settings = settings_for(tmp_path, sim)
    full = JournalError("the disk is full")
    with mock.patch.object(Journal, step, side_effect=full), pytest.raises(JournalError):
        await serve(settings, asyncio.Event())
    said = []
    for _ in range(2):
        async with running(settings) as stack:
            await stack.join("adapter")
        said.append("the journal of stack" in caplog.text)
        (journal,) = (tmp_path / "state").glob("stacks/*/journal.sqlite3")
        journal.unlink()
    assert said == [False, True]


@pytest.mark.usefixtures("impatient")
async def test_what_cannot_be_put_back_stays_pending(tmp_path: Path, sim: CarrierSim) -> None:
    settings = settings_for(tmp_path, sim)
    stack = Stack(settings)
    stack.start()
    await stack.armed()
    with sim.faults.during(Fault(where="rest", kind="status", status=503)):
        assert await stack.stop() == EXIT_PENDING
    assert sim.numbers[OURS].voice_url != PRIOR
    await stack.close()
    # Without a stack:
    status, lines = await restore_command(settings, dry_run=True, account=False, force=False)
    assert status == EXIT_PENDING and "would be put back" in lines[0] and "pa55" not in lines[0]
    assert sim.numbers[OURS].voice_url != PRIOR
    status, lines = await restore_command(settings, dry_run=False, account=False, force=False)
    assert status == EXIT_DONE and "put back" in lines[0]
    assert sim.numbers[OURS].voice_url == PRIOR
    assert await restore_command(settings, dry_run=False, account=False, force=False) == (0, [])


async def test_a_row_that_was_spoilt_meanwhile_is_pending(
    tmp_path: Path, sim: CarrierSim, caplog: pytest.LogCaptureFixture
) -> None:
    """Its number is still ours when the stack ends, and the next start puts it back."""
    settings = settings_for(tmp_path, sim)
    stack = Stack(settings)
    stack.start()
    await stack.armed()
    (path,) = (tmp_path / "state").glob("stacks/*/journal.sqlite3")
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE overrides SET prior = '{'")
    assert await stack.stop() == EXIT_PENDING
    await stack.close()
    assert f"{path}: override " in caplog.text and sim.numbers[OURS].voice_url != PRIOR
    async with running(settings) as stack:
        adapter = await stack.join("adapter")
        await adapter.ask(m.GetStatus(), m.StatusReport)
    assert sim.numbers[OURS].voice_url == PRIOR


@pytest.mark.usefixtures("impatient")
async def test_a_start_without_its_journal_that_dies_is_begun_again(
    tmp_path: Path, sim: CarrierSim
) -> None:
    """It has made a new journal, and has not asked yet what the numbers were before."""
    settings = settings_for(tmp_path, sim)
    stack = Stack(settings)
    stack.start()
    await stack.armed()
    silent = Fault(where="rest", kind="timeout_before", path="Numbers.json", seconds=20.0)
    with sim.faults.during(Fault(where="rest", kind="status", status=503)):
        assert await stack.stop() == EXIT_PENDING
    (journal,) = (tmp_path / "state").glob("stacks/*/journal.sqlite3")
    journal.unlink()
    with sim.faults.during(silent) as asked:
        stack.start()
        await until(lambda: asked.fired)
        assert stack._task is not None
        stack._task.cancel()
        await asyncio.wait({stack._task})
    await stack.close()
    assert journal.exists() and sim.numbers[OURS].voice_url != PRIOR
    async with running(settings) as stack:
        adapter = await stack.join("adapter")
        assert (adapter.client.epoch or 0) > 1_000_000, "later than what peers may know"
    assert sim.numbers[OURS].voice_url == PRIOR


async def test_a_clock_that_was_set_back_is_told(
    tmp_path: Path, sim: CarrierSim, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(settings_for(tmp_path, sim)) as stack:
        await stack.armed()
    (path,) = (tmp_path / "state").glob("stacks/*/journal.sqlite3")
    assert "was set back" not in caplog.text
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE overrides SET changed = changed + 864000")
    async with running(settings_for(tmp_path, sim)) as stack:
        await stack.armed()
    assert f"{path}: its newest row is 8" in caplog.text
    assert "ahead of this machine's clock, which was set back" in caplog.text
    assert sim.numbers[OURS].voice_url == PRIOR


@pytest.mark.parametrize("pending", [False, True])
@pytest.mark.usefixtures("impatient")
async def test_a_private_stacks_state_directory_goes_with_it_unless_something_is_open(
    tmp_path: Path, sim: CarrierSim, pending: bool
) -> None:
    own = private_state_dir(tmp_path / "state", "p1")
    stack = Stack(settings_for(tmp_path, sim, state_dir=own))
    stack.start()
    await stack.armed()
    assert own.is_dir()
    with contextlib.ExitStack() as faults:
        if pending:
            fault = Fault(where="rest", kind="status", status=503)
            faults.enter_context(sim.faults.during(fault))
        assert await stack.stop() == (EXIT_PENDING if pending else EXIT_DONE)
    assert own.exists() == pending
    assert (tmp_path / "state" / "private").is_dir()
    await stack.close()


async def test_end_within_4_s_whatever_rest_does(tmp_path: Path) -> None:
    """What a hanging restore did is not known at the end: it stays pending, and exit status 3."""
    faults = [
        Fault(where="rest", kind="timeout_before", seconds=20.0),
        Fault(where="rest", kind="timeout_after", seconds=20.0),
        Fault(where="rest", kind="status", status=503),
    ]

    async def ends(name: str, fault: Fault) -> float:
        async with CarrierSim() as sim:
            sim.add_number(OURS, voice_url=PRIOR)
            stack = Stack(settings_for(tmp_path / name, sim))
            stack.start()
            await stack.armed()
            began = asyncio.get_running_loop().time()
            with sim.faults.during(fault):
                assert await stack.stop() == EXIT_PENDING
                seconds = asyncio.get_running_loop().time() - began
            await stack.close()
            return seconds

    assert max(await asyncio.gather(*map(ends, "abc", faults))) < 4.0


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("refused", [False, True])
async def test_a_call_that_cannot_be_hung_up_is_pending_too(
    tmp_path: Path, sim: CarrierSim, *, refused: bool
) -> None:
    """Also where Twilio has refused it long before the end, and only that."""
    sim.add_callee(THEIRS, Silence(ring=60.0))
    settings = settings_for(tmp_path, sim)
    stack = Stack(settings)
    stack.start()
    await stack.join("gateway")
    adapter = await stack.join("adapter")
    info = await stack.open(adapter, allowed_callees=[THEIRS])
    dial = m.Dial(
        session=info.session,
        request=secrets.token_hex(16),
        to=THEIRS,
        mode="a-leg",
        timeout=30.0,
        max_duration=60.0,
    )
    dialled = await adapter.ask(dial, m.Dialled)
    status = 400 if refused else 503
    with sim.faults.during(Fault(where="rest", kind="status", method="POST", status=status)):
        if refused:
            cancel = m.CancelDial(session=info.session, request=dial.request)
            with pytest.raises(CarrierError, match="HTTP 400"):
                await adapter.ask(cancel, m.Done)
            await adapter.ask(m.GetStatus(), m.StatusReport)  # all that follows is done
        assert await stack.stop() == EXIT_PENDING
    await stack.close()
    assert sim.calls[dialled.sid].live
    restored = await restore_command(settings, dry_run=False, account=False, force=False)
    assert restored == (EXIT_DONE, []) and not sim.calls[dialled.sid].live


async def test_a_start_after_the_rotation(tmp_path: Path) -> None:
    """TWILIO_AUTH_TOKEN is void at the start already, and the other token is good."""
    async with CarrierSim(auth_token="new") as sim:
        sim.add_number(OURS, voice_url=PRIOR)
        tokens = {"auth_token": "old", "auth_token_secondary": "new"}
        async with running(settings_for(tmp_path, sim, **tokens)) as stack:
            await stack.armed()
            assert sim.numbers[OURS].voice_url != PRIOR
        assert sim.numbers[OURS].voice_url == PRIOR


# --------------------------------------------------------------------------- refusals


async def test_second_controller_on_a_tcp_address_is_refused(
    tmp_path: Path, sim: CarrierSim
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bus = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SettingsError, match=f"TRUNKLINE_BUS={bus}.*another controller"):
            await serve(settings_for(tmp_path, sim, bus=bus), asyncio.Event())


async def test_what_the_settings_say_of_an_override(tmp_path: Path, sim: CarrierSim) -> None:
    """A TwiML app has the number's calls: refused, or taken over and put back; and the fallback."""
    sim.add_number(OURS, voice_url=PRIOR, voice_application_sid="AP" + "1" * 32)
    before = copy.copy(sim.numbers[OURS])
    async with running(settings_for(tmp_path, sim)) as stack:
        adapter = await stack.join("adapter")
        info = await stack.open(adapter)
        with pytest.raises(NumberRoutedElsewhereError, match="TwiML app") as caught:
            await adapter.ask(m.Arm(session=info.session), m.Armed)
        assert (caught.value.number, caught.value.routed_to) == (OURS, "AP" + "1" * 32)
    assert sim.number_writes == []
    for fallback in (True, False):
        settings = settings_for(tmp_path, sim, take_over_routed=True, fallback_to_prior=fallback)
        async with running(settings) as stack:
            adapter, info = await stack.armed()
            ours = sim.numbers[OURS]
            assert not ours.voice_application_sid and ours.voice_url.startswith(URL)
            assert ours.voice_fallback_url == (PRIOR if fallback else "")
        assert replace(sim.numbers[OURS], updated=before.updated) == before


async def test_two_stacks_on_one_number(tmp_path: Path, sim: CarrierSim) -> None:
    """The second asks the first's public URL, which answers here."""

    async def healthz(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"ok": True, "stack": first_id}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    server = await asyncio.start_server(healthz, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    one = settings_for(tmp_path / "1", sim, public_url=url)
    two = settings_for(tmp_path / "2", sim)
    async with running(one) as first, running(two) as second:
        a = await first.join("adapter")
        assert a.client.welcome is not None
        first_id = a.client.welcome.stack
        held = await first.open(a)
        await a.ask(m.Arm(session=held.session), m.Armed)
        b = await second.join("adapter")
        wanted = await second.open(b)
        with pytest.raises(NumberBusyError) as caught:
            await b.ask(m.Arm(session=wanted.session), m.Armed)
        assert caught.value.holder == f"stack {first_id}"
        status, lines = await restore_command(two, dry_run=False, account=True, force=False)
        assert status == EXIT_PENDING and first_id in lines[0]
        assert len(sim.number_writes) == 1
    server.close()
    await server.wait_closed()
    assert sim.numbers[OURS].voice_url == PRIOR


async def test_a_start_takes_its_time_off_the_end_that_was_asked_for_meanwhile(
    tmp_path: Path, sim: CarrierSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, core, clock, late = asyncio.Event(), process._core, process.monotonic, 0.0

    async def slow(*args: Any, **fields: Any) -> Any:
        nonlocal late
        stop.set()
        await asyncio.sleep(0)  # whoever waits for that wakes
        late = STOP_WITHIN
        return await core(*args, **fields)

    monkeypatch.setattr(process, "_core", slow)
    monkeypatch.setattr(process, "monotonic", lambda: clock() + late)
    monkeypatch.setattr(Book, "busy", property(lambda book: True))  # until no time is left
    async with asyncio.timeout(STOP_WITHIN - 0.4):
        assert await serve(settings_for(tmp_path, sim), stop) == EXIT_DONE


async def test_wrong_credentials_end_the_start(tmp_path: Path, sim: CarrierSim) -> None:
    settings = settings_for(tmp_path, sim, auth_token="wrong")
    with pytest.raises(CarrierError, match="TWILIO_AUTH_TOKEN"):
        async with asyncio.timeout(10):
            await serve(settings, asyncio.Event())
    assert list((tmp_path / "state" / "stacks").glob("*/journal.sqlite3"))


async def test_metrics_go_to_a_collector_where_the_environment_asks_for_that(
    tmp_path: Path, sim: CarrierSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(collect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    async with running(settings_for(tmp_path, sim)) as stack:
        await stack.join("gateway")
        assert await stack.stop() == EXIT_DONE
    assert asked == ["POST /v1/metrics HTTP/1.1\r\n"], (
        "at the end, before the first interval is over"
    )
    server.close()
    await server.wait_closed()


async def test_taken_console_port(tmp_path: Path, sim: CarrierSim) -> None:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(SettingsError, match=f"TRUNKLINE_CONSOLE_PORT={port}"):
        await serve(settings_for(tmp_path, sim, console_port=port), asyncio.Event())
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("missing", ["account_sid", "auth_token", "public_url"])
def test_missing_setting_is_raised_before_anything(
    tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TRUNKLINE_PUBLIC_URL"):
        monkeypatch.delenv(name, raising=False)
    given = {"account_sid": "AC1", "auth_token": "t", "public_url": URL}
    del given[missing]
    settings = load(env_file=None, state_dir=tmp_path / "state", **given)
    with pytest.raises(SettingsError, match="is not set"):
        main(settings)
    assert not (tmp_path / "state").exists()


def test_a_region_without_a_known_edge_is_raised_before_anything(tmp_path: Path) -> None:
    given = {"account_sid": "AC1", "auth_token": "t", "public_url": URL, "region": "xy9"}
    settings = load(env_file=None, state_dir=tmp_path / "state", edge="", **given)
    with pytest.raises(SettingsError, match=r"^TWILIO_REGION='xy9': "):
        main(settings)
    assert not (tmp_path / "state").exists()
