"""The doctor's findings about shell and machine: each surrounding is found and explained."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trunkline.bus import descriptors, runtime_dir
from trunkline.bus.errors import SettingsError
from trunkline.bus.settings import Settings, load
from trunkline.doctor import account, machine, run, stack
from trunkline.doctor.finding import Finding, Known
from trunkline.stack.http_get import Answer

PROXY = "http://me:secret@proxy.example:3128"


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting, no proxy, and a directory of its own."""
    for name in list(os.environ):
        ours = name.startswith(("TRUNKLINE_", "TWILIO_"))
        if ours or name.upper() in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def settings(**given: Any) -> Settings:
    return load(env_file=None, **{"account_sid": "AC1", "auth_token": "t"} | given)


def test_the_file_of_settings(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    found = machine.env_file(path)
    assert found == Finding(".env", "ok", f"none in {tmp_path}: settings come from the environment")
    path.write_text("")
    assert machine.env_file(path).text == f"{path} is read; the environment wins over it"
    path.unlink()
    path.mkdir()
    assert machine.env_file(path).text == f"{path} is a directory, and not read for settings"


async def test_a_file_that_cannot_be_read_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfeA\0")
    assert await run.run(load) == 1
    told = capsys.readouterr()
    says = f"{tmp_path}/.env is UTF-16 (as PowerShell's > and some editors write it): save it as"
    assert told.out.startswith(f"FAIL settings         {says} UTF-8\n")
    assert told.err == f"trunkline doctor: settings: {says} UTF-8\n"


async def test_a_wrong_setting_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong() -> Settings:
        raise SettingsError("TRUNKLINE_BUS='foo': no")

    assert await run.run(wrong) == 1
    assert capsys.readouterr().err == "trunkline doctor: settings: TRUNKLINE_BUS='foo': no\n"


def test_a_slip_of_the_pen_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the environment only where it is close to a setting: other programs have names there."""
    path = tmp_path / ".env"
    path.write_text(
        "TRUNKLINE_PUBLIC_ULR=https://a.example\nTRUNKLINE_BUS=ipc:///b\n"
        "TRUNKLINE_SIM_SEED=1\nTRUNKLINE_SIM_HABITS=seam=0.3\nOTHER=1\nTRUNKLINE_WHATEVER=1\n"
    )
    others = ("PORT", "SERVICE_PORT", "PORT_8765_TCP", "SERVICE_HOST", "KEEPER_FD", "DEBUG")
    of_stand_in = ("SIM_CALEES", "SIM_HABITS", "SIM_SERVICE_HOST", "SIM_PORT_9080_TCP")
    for name in ("MAX_CALL", *others, *of_stand_in):
        monkeypatch.setenv(f"TRUNKLINE_{name}", "2")
    found = {finding.text: (finding.state, finding.hint) for finding in machine.unknown(path)}
    assert found == {
        "TRUNKLINE_MAX_CALL is not a setting, and is ignored": (
            "warn",
            "perhaps TRUNKLINE_MAX_CALLS is meant",
        ),
        "TRUNKLINE_SIM_CALEES is not a setting, and is ignored": (
            "warn",
            "perhaps TRUNKLINE_SIM_CALLEES is meant",
        ),
        f"TRUNKLINE_SIM_SEED is ignored in {path}": (
            "warn",
            "the stand-in carrier's variables count in the environment alone",
        ),
        "TRUNKLINE_PUBLIC_ULR is not a setting, and is ignored": (
            "warn",
            "perhaps TRUNKLINE_PUBLIC_URL is meant",
        ),
        "TRUNKLINE_WHATEVER is not a setting, and is ignored": (
            "warn",
            "docs/settings.md has all of them",
        ),
    }


def test_no_proxy() -> None:
    assert machine.proxies(settings()) == [Finding("proxy", "ok", "none is set")]


@pytest.mark.parametrize(
    ("environment", "given", "text", "hint"),
    [
        (
            {"HTTPS_PROXY": PROXY},
            {},
            "HTTPS_PROXY: Twilio (api.twilio.com) is asked through "
            "http://me:***@proxy.example:3128 "
            "(HTTPS_PROXY)",
            "",
        ),
        (
            {"HTTP_PROXY": PROXY},
            {"public_url": "https://line.example.com"},
            "HTTP_PROXY: Twilio (api.twilio.com) is asked directly; "
            "the public URL (line.example.com) is asked directly",
            "",
        ),
        (
            {"all_proxy": PROXY, "no_proxy": ".twilio.com"},
            {"public_url": "https://line.example.com"},
            "all_proxy: Twilio (api.twilio.com) is asked directly; the public URL "
            "(line.example.com) is asked through http://me:***@proxy.example:3128 (all_proxy)",
            "",
        ),
        (
            {"HTTP_PROXY": PROXY},
            {"twilio_api_url": "http://127.0.0.1:9080", "public_url": "http://localhost:8765"},
            "HTTP_PROXY: Twilio (127.0.0.1) is asked directly; "
            "the public URL (localhost) is asked directly",
            ", and Twilio and the public URL is here",
        ),
    ],
)
def test_a_proxy_is_told_and_whether_it_applies(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    given: dict[str, str],
    text: str,
    hint: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    always = "requests to this machine itself never go through a proxy"
    assert machine.proxies(settings(**given)) == [Finding("proxy", "ok", text, always + hint)]


def test_a_socks_proxy_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://proxy.example:1080")
    monkeypatch.setitem(sys.modules, "socks", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    _, found = machine.proxies(settings())
    assert (found.state, found.hint) == ("fail", "pip install pysocks")
    assert found.text.startswith("socks5h://proxy.example:1080 (ALL_PROXY) needs a package")


@pytest.mark.parametrize(
    ("given", "state", "says"),
    [
        ({}, "ok", "none is set: https://api.twilio.com, in the United States"),
        ({"region": "ie1"}, "ok", "TWILIO_REGION=ie1: https://api.dublin.ie1.twilio.com"),
        (
            {"region": "ie1", "edge": "dublin"},
            "ok",
            "TWILIO_REGION=ie1, TWILIO_EDGE=dublin: https://api.dublin.ie1.twilio.com",
        ),
        ({"edge": "sydney"}, "ok", "TWILIO_EDGE=sydney: https://api.sydney.us1.twilio.com"),
        (
            {"region": "xy9"},
            "fail",
            "TWILIO_REGION='xy9': the edge of this region is not known here: set TWILIO_EDGE too",
        ),
        (
            {"region": "ie1", "twilio_api_url": "http://u:secret@127.0.0.1:9080"},
            "ok",
            "TRUNKLINE_TWILIO_API_URL leads to http://u:***@127.0.0.1:9080 (TWILIO_REGION=ie1 does "
            "not matter there)",
        ),
    ],
)
def test_the_region(given: dict[str, str], state: str, says: str) -> None:
    found = machine.region(settings(**given))
    assert (found.state, found.text) == (state, says)


async def test_credentials_are_asked_for_where_the_region_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    async def get(url: str, headers: dict[str, str]) -> Answer:
        asked.append(url)
        return Answer(401, b"", None, 0.1)

    monkeypatch.setattr(account, "get", get)
    found = await account.credentials(Known(settings(region="ie1")))
    assert asked == ["https://api.dublin.ie1.twilio.com/2010-04-01/Accounts/AC1.json"]
    (refused,) = (f for f in found if f.state == "fail")
    assert refused.hint.endswith("the token has to be region ie1's own, each region has another")
    found = await account.credentials(Known(settings(region="xy9")))
    assert [(f.name, f.state) for f in found] == [("credentials", "skip")]


async def test_a_dead_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{held.getsockname()[1]}"
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        found = await account.credentials(Known(settings()))
    (failed,) = (f for f in found if f.state == "fail")
    assert failed.text == (
        "https://api.twilio.com does not answer: Connection refused through the proxy "
        f"{proxy} (HTTPS_PROXY)"
    )


async def test_all_of_this_is_among_the_doctors_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    (tmp_path / ".env").write_text("TRUNKLINE_PUBLIC_ULR=https://x.example\n")
    found = await machine.machine(Known(settings(state_dir=tmp_path / "state")))
    names = [finding.name for finding in found]
    assert names == ["versions", ".env", "settings", "proxy", "region", "descriptors", "state"]
    assert machine.machine in run.CHECKS


def test_the_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine.state(settings(state_dir=tmp_path / "a/b"))
    assert (found.state, found.text) == ("ok", f"{tmp_path}/a/b")
    (tmp_path / "file").write_text("")
    found = machine.state(settings(state_dir=tmp_path / "file/b"))
    assert found.state == "fail"
    assert f"{tmp_path}/file is not a directory; name a directory of yours" in found.text

    def homeless() -> Path:
        raise SettingsError("TRUNKLINE_STATE_DIR is not set, and …")

    monkeypatch.setattr("trunkline.bus.settings.default_state_dir", homeless)
    found = machine.state(settings())
    assert (found.state, found.text) == ("fail", "TRUNKLINE_STATE_DIR is not set, and …")


@pytest.mark.parametrize(
    ("system", "hint"),
    [
        (lambda path: path / "run", ""),
        (
            lambda path: path / ("x" * 100),
            "{system} is too long a path for a socket, so a short one is used in its place",
        ),
        (
            lambda path: None,
            "the system gives this user no runtime directory; TRUNKLINE_BUS names another",
        ),
    ],
)
async def test_a_default_bus_that_was_shortened(
    short_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    system: Callable[[Path], Path | None],
    hint: str,
) -> None:
    made = short_directory
    found = system(made)
    for module in (runtime_dir, stack):
        monkeypatch.setattr(module, "system_runtime_path", lambda: found)
    monkeypatch.setattr(runtime_dir, "_SHORT", str(made))
    (bus,) = await stack.bus_directory(Known(settings()))
    assert (bus.state, bus.hint) == ("ok", hint.format(system=found))
    assert bus.text == f"ipc://{runtime_dir.runtime_path()}/bus"
    (bus,) = await stack.bus_directory(Known(settings(bus=f"ipc://{made}/mine")))
    assert (bus.text, bus.hint) == (f"ipc://{made}/mine", "")


async def test_ports_of_ipv6() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        known = Known(settings(http_host="::1", http_port=port, console_port=0))
        public, _ = await stack.ports(known)
        assert (public.state, public.text) == ("fail", f"[::1]:{port} is taken by another process")
    public, _ = await stack.ports(known)
    assert (public.state, public.text) == ("ok", f"[::1]:{port} is free")
    assert public.hint == f"IPv6 only: a tunnel or proxy has to lead to [::1]:{port}"


@pytest.mark.parametrize(
    ("limits", "state", "said"),
    [
        ((1_024, 65_536), "ok", "65,536 descriptors (1,024 before it asks), and a gateway 64,512"),
        ((1_024, 8_192), "ok", "8,192 descriptors"),
        ((1_024, 4_096), "warn", "a gateway 3,072 connections"),
        ((256, 256), "warn", "a gateway 128 connections"),
    ],
)
def test_how_many_descriptors_there_may_be(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], state: str, said: str
) -> None:
    monkeypatch.setattr(descriptors, "limits", lambda: limits)
    found = machine.open_files()
    assert (found.name, found.state) == ("descriptors", state)
    assert said in found.text
    assert ("LimitNOFILE" in found.hint) == (state == "warn")
