"""Settings: defaults, sources, and one clear line for what is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trunkline.bus import messages as m
from trunkline.bus.endpoints import BusAddress
from trunkline.bus.errors import SettingsError
from trunkline.bus.locks import FileLock, LockHeldError
from trunkline.bus.redact import is_e164, mask_url, mask_urls, redact_number
from trunkline.bus.settings import load


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("TRUNKLINE_", "TWILIO_")):
            monkeypatch.delenv(name)


def test_defaults_need_no_environment() -> None:
    settings = load(env_file=None)
    assert settings.http_port == 8765
    assert settings.console_port == 8766
    assert settings.lead_ms == 60
    assert settings.bus.startswith("ipc:///")
    assert settings.validate_signature and settings.fallback_to_prior


def test_given_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("TRUNKLINE_HTTP_PORT=1\nTRUNKLINE_CONSOLE_PORT=2\nTRUNKLINE_LEAD_MS=80\n")
    monkeypatch.setenv("TRUNKLINE_CONSOLE_PORT", "3")
    monkeypatch.setenv("TRUNKLINE_LEAD_MS", "100")
    settings = load(env_file=env_file, lead_ms=120)
    assert (settings.http_port, settings.console_port, settings.lead_ms) == (1, 3, 120)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRUNKLINE_HTTP_PORT", "http"),
        ("TRUNKLINE_HTTP_PORT", "70000"),
        ("TRUNKLINE_PUBLIC_URL", "line.example.com"),
        ("TRUNKLINE_PUBLIC_URL", "https://line.example.com/?a=b"),
        ("TRUNKLINE_BUS", "udp://x"),
        ("TRUNKLINE_BUS", "ipc://relative"),
        ("TRUNKLINE_BUS", "tcp://host"),
        ("TRUNKLINE_BUS", "ipc:///" + "x" * 120),
        ("TRUNKLINE_NUMBERS", "+14155551234,0800"),
        ("TRUNKLINE_LEAD_MS", "5"),
        ("TRUNKLINE_LOG_FORMAT", "xml"),
        ("TRUNKLINE_CALLS_PER_SECOND", "0"),
        ("TRUNKLINE_VALIDATE_SIGNATURE", "perhaps"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load(env_file=None)
    assert str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)


def test_a_missing_secret_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="TWILIO_AUTH_TOKEN is not set"):
        load(env_file=None).require("auth_token")


def test_the_token_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "very-secret")
    settings = load(env_file=None)
    assert "very-secret" not in repr(settings)
    assert settings.require("auth_token") == "very-secret"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://me:pa55@x.example/?a=b", "https://***@x.example/?a=b"),
        ("me:pa55@x.example", "***@x.example"),
        ("https://me:pa55@[x.example", "https://***@[x.example"),
    ],
)
def test_a_password_in_a_wrong_url_is_not_shown(
    given: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUNKLINE_PUBLIC_URL", given)
    with pytest.raises(SettingsError) as caught:
        load(env_file=None)
    assert str(caught.value).startswith(f"TRUNKLINE_PUBLIC_URL={shown!r}: ")
    assert "pa55" not in str(caught.value)


def test_passwords_in_urls_are_in_no_repr() -> None:
    url = "https://me:pa55@x.example"
    settings = load(env_file=None, public_url=url, twilio_api_url=url)
    assert settings.public_url == url and "pa55" not in repr(settings)
    opened = m.SessionOpened(session="s", number="n", number_sid="N", account="A", public_url=url)
    assert "public_url='https://me:***@x.example'" in repr(opened)
    assert repr(m.Done()) == "Done()"


def test_the_tokens_of_a_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(env_file=None).auth_tokens == ()
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "new")
    assert load(env_file=None).auth_tokens == ("new",)
    monkeypatch.setenv("TWILIO_AUTH_TOKEN_SECONDARY", "old")
    assert load(env_file=None).auth_tokens == ("new", "old")
    assert load(env_file=None, auth_token_secondary="new").auth_tokens == ("new",)


def test_numbers_are_split_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_NUMBERS", "+14155551234, +442071838750")
    assert load(env_file=None).numbers == ("+14155551234", "+442071838750")


def test_worker_endpoints_are_never_used_twice() -> None:
    address = BusAddress.parse("ipc:///tmp/t")
    assert address.control == "ipc:///tmp/t/control"
    assert len({address.worker() for _ in range(50)}) == 50
    assert BusAddress.parse("tcp://127.0.0.1:7000").control == "tcp://127.0.0.1:7000"


def test_a_bus_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "bus"
    open_to_all.mkdir(mode=0o755)
    with pytest.raises(SettingsError, match="chmod 700"):
        BusAddress.parse(f"ipc://{open_to_all}").make_directory()
    BusAddress.parse(f"ipc://{tmp_path}/fresh/bus").make_directory()
    assert (tmp_path / "fresh/bus").stat().st_mode & 0o777 == 0o700


def test_a_bus_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be made: Not a directory"):
        BusAddress.parse(f"ipc://{tmp_path}/file/bus").make_directory()


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    first = FileLock(tmp_path / "lock", "stack one, pid 7")
    with pytest.raises(LockHeldError, match="stack one, pid 7"):
        FileLock(tmp_path / "lock", "stack two")
    first.release()
    FileLock(tmp_path / "lock", "stack two").release()


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("+14155551234", True),
        ("+1415555123412345", False),
        ("14155551234", False),
        ("+04155551234", False),
        ("+14155551234\n", False),
        (" +14155551234", False),
        ("+١٤١٥٥٥٥١٢٣٤", False),
        ("+123456", False),
    ],
)
def test_e164(text: str, right: bool) -> None:
    assert is_e164(text) is right


def test_what_may_be_shown() -> None:
    assert redact_number("+14155551234") == "***1234"
    assert redact_number("+14") == "***"
    assert redact_number(None) == "***"
    assert mask_url("https://me:pass@x.example/v?a=1") == "https://me:***@x.example/v?a=1"
    assert mask_url("https://x.example/v") == "https://x.example/v"
    assert mask_url("https://[broken@x") == "<unreadable URL>"
    text = "Url is not valid: https://me:pa:55@x.example/v?a=b@c, wss://you@y.example, a:b@c"
    assert mask_urls(text) == text.replace("pa:55", "***")
