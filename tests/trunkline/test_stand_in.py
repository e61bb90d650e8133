"""What ``up --sim`` fills in, and where the stand-in carrier listens."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline import stand_in
from trunkline.bus.launch import StackInfo
from trunkline.bus.settings import load
from trunkline.errors import SettingsError

CARRIER = StackInfo(account_sid="AC5", auth_token="t", pid=1, sim="http://127.0.0.1:9")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRUNKLINE_PUBLIC_URL", "TRUNKLINE_SIM_PORT", "TRUNKLINE_TWILIO_API_URL"):
        monkeypatch.delenv(name, raising=False)


def test_what_is_missing_is_filled_in(tmp_path: Path) -> None:
    fitted = stand_in.fit(load(env_file=None), CARRIER, 4711, tmp_path)
    assert fitted.account_sid == "AC5"
    assert fitted.require("auth_token") == "t"
    assert fitted.twilio_api_url == "http://127.0.0.1:9"
    assert fitted.public_url == "http://127.0.0.1:4711"
    assert (fitted.http_port, fitted.console_port) == (4711, 0)
    assert fitted.state_dir == tmp_path


def test_what_is_set_is_kept_but_for_the_journal(tmp_path: Path) -> None:
    """The stand-in knows no number of a real account: its journal must not be met beside it."""
    settings = load(
        env_file=None,
        public_url="https://line.example.com",
        console_port=8766,
        state_dir=tmp_path / "mine",
        lead_ms=100,
    )
    fitted = stand_in.fit(settings, CARRIER, 4711, tmp_path / "its")
    assert fitted.public_url == "https://line.example.com"
    assert (fitted.console_port, fitted.lead_ms) == (8766, 100)
    assert fitted.state_dir == tmp_path / "its"


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:4711"), ("192.0.2.1", "http://192.0.2.1:4711")],
)
def test_the_public_url_is_where_the_gateways_listen(tmp_path: Path, host: str, url: str) -> None:
    fitted = stand_in.fit(load(env_file=None, http_host=host), CARRIER, 4711, tmp_path)
    assert fitted.public_url == url


def command(**settings: str) -> tuple[list[str], dict[str, str]]:
    return stand_in._command(load(env_file=None, **settings), Path("/ready"))


def test_the_carrier_has_the_stacks_account_and_numbers_to_play_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRUNKLINE_SIM_ACCOUNT_SID", "AC of another carrier")
    argv, environment = command(account_sid="AC7", auth_token="token")
    assert argv[-2:] == ["--ready-file", "/ready"]
    assert "TRUNKLINE_SIM_ACCOUNT_SID" not in environment
    assert environment["TWILIO_ACCOUNT_SID"] == "AC7"
    assert environment["TWILIO_AUTH_TOKEN"] == "token"
    assert environment["TRUNKLINE_SIM_NUMBERS"].startswith("+14155551234=")
    assert "+14155557777=echo" in environment["TRUNKLINE_SIM_CALLEES"]
    monkeypatch.setenv("TRUNKLINE_SIM_NUMBERS", "+14155550001")
    _, environment = command()
    assert environment["TRUNKLINE_SIM_NUMBERS"] == "+14155550001"
    assert "TRUNKLINE_SIM_CALLEES" not in environment


def test_it_listens_where_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def port(**settings: str) -> str:
        argv, _ = command(**settings)
        assert argv[argv.index("--host") + 1] == "127.0.0.1"
        return argv[argv.index("--port") + 1]

    assert port() == "0"
    monkeypatch.setenv("TRUNKLINE_SIM_PORT", "9081")
    assert port() == "9081"
    assert port(twilio_api_url="http://127.0.0.1:9080") == "9080"
    for url in ("https://127.0.0.1:9080", "http://192.0.2.1:9080", "http://127.0.0.1:9080/api"):
        with pytest.raises(SettingsError, match=f"TRUNKLINE_TWILIO_API_URL={url}: with --sim"):
            port(twilio_api_url=url)
