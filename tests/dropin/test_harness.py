"""TwilioHarness as it is used: scenario's own CloudflareTunnel, a private stack behind it, and a
stand-in for the program cloudflared."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from later import scenario
from scene import Scene

from trunkline.bus.http import Session
from trunkline.bus.launch import trunkline_argv
from trunkline.bus.settings import Settings
from trunkline.errors import CarrierError
from trunkline.stack.children import settings_environment

pytestmark = [pytest.mark.e2e, pytest.mark.carrier_sim]

NAME = "quick-and-short.trycloudflare.com"
CLOUDFLARED = f"""#!{sys.executable}
import os, sys, time
with open(os.environ["FAKE_CLOUDFLARED"], "w") as note:
    print(os.getpid(), *sys.argv[1:], file=note)
print("INF |  https://{NAME}  |", flush=True)
time.sleep(600)
"""


def healthy(port: int) -> bool:
    """Whether our gateway listens where the tunnel leads."""
    try:
        with Session() as session:
            return session.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code == 200
    except OSError:
        return False


def noted(file: Path) -> list[str]:
    """The program's pid and arguments."""
    return file.read_text().split()


@pytest.fixture
def cloudflared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The program in the PATH; where it notes how it was started. Its name can be looked up, and
    no other."""
    program = tmp_path / "cloudflared"
    program.write_text(CLOUDFLARED)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_CLOUDFLARED", str(tmp_path / "started"))
    look_up = socket.getaddrinfo

    def only_ours(host: Any, *more: Any, **named: Any) -> Any:
        if host == NAME:
            return look_up("127.0.0.1", *more, **named)
        if host in ("127.0.0.1", "localhost", None):
            return look_up(host, *more, **named)
        raise socket.gaierror(f"no such name: {host}")

    monkeypatch.setattr(socket, "getaddrinfo", only_ours)
    return tmp_path / "started"


async def test_credentials_that_twilio_refuses_are_told_as_twilio_tells_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trunkline import TwilioAgentAdapter
    from trunkline.adapter.testing import free_port

    monkeypatch.delenv("TRUNKLINE_BUS")
    monkeypatch.setenv("TRUNKLINE_TWILIO_API_URL", scene.stack.sim or "")
    with tempfile.TemporaryDirectory(prefix="tl-h-", dir="/tmp") as own:
        monkeypatch.setenv("XDG_RUNTIME_DIR", own)
        monkeypatch.setenv("TRUNKLINE_STATE_DIR", f"{own}/state")
        agent = TwilioAgentAdapter(
            account_sid=scene.stack.account_sid,
            auth_token="0" * 32,
            phone_number=scene.number(),
            public_base_url=f"https://{NAME}",
            http_port=free_port(),
        )
        with pytest.raises(CarrierError) as caught:
            await agent.connect()
    assert (caught.value.status, caught.value.code) == (401, 20003)
    assert not agent.is_connected()


def test_a_stack_is_not_ready_before_twilio_has_taken_its_credentials(
    scene: Scene, tmp_path: Path
) -> None:
    # The answer comes long after all processes have joined.
    scene.sim.add_fault("rest", "latency", path=r"PhoneNumber=%2B10000000&", seconds=4, count=1)
    settings = Settings(
        account_sid=scene.stack.account_sid,
        auth_token="0" * 32,
        twilio_api_url=scene.stack.sim,
        public_url=f"https://{NAME}",
        bus=f"ipc://{tmp_path}",
        state_dir=tmp_path / "state",
        console_port=0,
    )
    ready = tmp_path / "up.json"
    argv = trunkline_argv("up", "--http-port", "0", "--ready-file", str(ready))
    environment = settings_environment(settings)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, ready.exists()) == (1, False)
    assert "error 20003" in done.stderr and "is ready" not in done.stdout


async def test_a_harness_brings_up_tunnel_stack_and_adapter_and_takes_all_of_it_down(
    scene: Scene,
    cloudflared: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from trunkline.adapter.testing import TwilioHarness, free_port

    port = free_port()
    monkeypatch.delenv("TRUNKLINE_BUS")
    monkeypatch.setenv("TRUNKLINE_TWILIO_API_URL", scene.stack.sim or "")
    with tempfile.TemporaryDirectory(prefix="tl-h-", dir="/tmp") as own:
        monkeypatch.setenv("XDG_RUNTIME_DIR", own)
        monkeypatch.setenv("TRUNKLINE_STATE_DIR", f"{own}/state")
        async with TwilioHarness(
            account_sid=scene.stack.account_sid,
            auth_token=scene.stack.auth_token,
            phone_number=scene.number(),
            http_port=port,
        ) as agent:
            pid, *started = noted(cloudflared)
            assert started == ["tunnel", "--url", f"http://localhost:{port}", "--no-autoupdate"]
            assert agent.is_connected()
            assert agent.public_base_url == f"https://{NAME}"
            assert isinstance(agent.tunnel_readiness, scenario.voice.testing.CloudflareTunnel)
            assert agent._line is not None and agent._line.public_url == f"https://{NAME}"
            assert await asyncio.to_thread(healthy, port)
        assert not agent.is_connected()
        assert not await asyncio.to_thread(healthy, port)
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
