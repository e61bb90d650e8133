"""Tunnels: the URL is found in the program's output, and every failure is a clear error."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from trunkline.bus.errors import SettingsError
from trunkline.stack.tunnel import TUNNELS, Tunnel, TunnelError


def install(directory: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of this name, first in PATH."""
    program = directory / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return program


def test_the_command_lines() -> None:
    assert TUNNELS["cloudflared"].argv("127.0.0.1", 8765) == [
        "cloudflared",
        "tunnel",
        "--no-autoupdate",
        "--url",
        "http://127.0.0.1:8765",
    ]
    assert TUNNELS["ngrok"].argv("127.0.0.1", 8765)[-1] == "127.0.0.1:8765"


@pytest.mark.parametrize(
    ("host", "at"),
    [
        ("::1", "[::1]:8765"),
        ("0.0.0.0", "127.0.0.1:8765"),
        ("::", "[::1]:8765"),
        ("192.0.2.7", "192.0.2.7:8765"),
    ],
)
def test_a_tunnel_leads_to_where_the_listener_is_reached(host: str, at: str) -> None:
    assert TUNNELS["cloudflared"].argv(host, 8765)[-1] == f"http://{at}"
    assert TUNNELS["ngrok"].argv(host, 8765)[-1] == at


@pytest.mark.parametrize("name", ["cloudflared", "ngrok"])
async def test_a_missing_program_comes_with_a_hint(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match=f"{name} is not installed; `brew install {name}`"):
        await Tunnel.open(name, "127.0.0.1", 1)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("name", "says", "url"),
    [
        (
            "cloudflared",
            "INF |  https://four-plain-words-here.trycloudflare.com  |",
            "https://four-plain-words-here.trycloudflare.com",
        ),
        (
            "ngrok",
            'lvl=info msg="started tunnel" addr=http://x url=https://ab12.ngrok-free.app',
            "https://ab12.ngrok-free.app",
        ),
    ],
)
async def test_the_url_is_found_and_the_program_ended(
    name: str, says: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid_file = tmp_path / "pid"
    install(
        tmp_path,
        name,
        f"echo $$ > {pid_file}\necho starting\necho '{says}' >&2\nexec sleep 60",
        monkeypatch,
    )
    tunnel = await Tunnel.open(name, "127.0.0.1", 8765)
    assert tunnel.url == url
    pid = int(pid_file.read_text())
    os.kill(pid, 0)
    await tunnel.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.e2e
async def test_a_program_that_ends_at_once_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(
        tmp_path, "ngrok", "echo 'authentication failed: no authtoken' >&2\nexit 1", monkeypatch
    )
    with pytest.raises(TunnelError, match=r"ended without a public URL.*no authtoken"):
        await Tunnel.open("ngrok", "127.0.0.1", 8765)


@pytest.mark.e2e
async def test_the_program_gets_no_setting_and_no_secret_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is somebody else's, it may log what it likes, and it has no use for them."""
    for name in ("TWILIO_AUTH_TOKEN", "TWILIO_API_SECRET", "TRUNKLINE_PUBLIC_URL"):
        monkeypatch.setenv(name, "5ecre7")
    monkeypatch.setenv("NGROK_REGION", "eu")
    seen = tmp_path / "environment"
    install(tmp_path, "ngrok", f"env > {seen}\nexit 1", monkeypatch)
    with pytest.raises(TunnelError):
        await Tunnel.open("ngrok", "127.0.0.1", 8765)
    assert "5ecre7" not in seen.read_text() and "NGROK_REGION=eu" in seen.read_text()
    assert "TRUNKLINE_" not in seen.read_text()


@pytest.mark.e2e
async def test_a_program_that_prints_no_url_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    install(tmp_path, "ngrok", f"echo $$ > {pid}\necho no url\nexec sleep 60", monkeypatch)
    monkeypatch.setattr("trunkline.stack.tunnel.URL_WITHIN", 2.0)
    with pytest.raises(TunnelError, match=r"no public URL within 2 s; it last said: no url\Z"):
        await Tunnel.open("ngrok", "127.0.0.1", 8765)
    assert not psutil.pid_exists(int(pid.read_text()))


@pytest.mark.e2e
async def test_a_line_that_is_too_long_to_be_read_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = "head -c 200000 /dev/zero | tr '\\0' x; echo\necho url=https://ab12.ngrok-free.app"
    install(tmp_path, "ngrok", f"{says}\nexec sleep 60", monkeypatch)
    monkeypatch.setattr("trunkline.stack.tunnel.URL_WITHIN", 10.0)
    tunnel = await Tunnel.open("ngrok", "127.0.0.1", 8765)
    await tunnel.close()
    assert tunnel.url == "https://ab12.ngrok-free.app"
