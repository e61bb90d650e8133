"""The settings that ``up --sim`` fills in, and the address of the stand-in carrier."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from trunkline.bus.launch import StackInfo
from trunkline.bus.settings import load
from trunkline.cli.main import cli
from trunkline.errors import SettingsError
from trunkline.stack import stand_in

ROOT = Path(__file__).parents[2]
CARRIER = StackInfo(account_sid="AC5", auth_token="t", pid=1, sim="http://127.0.0.1:9")


def test_the_help_and_the_page_name_its_numbers_and_far_ends() -> None:
    numbers = [number for number, _, _ in pairs(stand_in.NUMBERS)]
    callees = {number: bot for number, _, bot in pairs(stand_in.CALLEES)}
    shown = CliRunner().invoke(cli, ["up", "--help"]).output.partition("With --sim, unless")[2]
    assert re.findall(r"\+\d+", shown) == [*numbers, *callees]
    page = (ROOT / "docs" / "far-end.md").read_text()
    assert dict(re.findall(r"^\| `(\+\d+)` \| `(.*?)` \|", page, re.MULTILINE)) == callees
    assert f"two numbers of its own, {' and '.join(f'`{number}`' for number in numbers)}," in page


def pairs(texts: str) -> list[tuple[str, str, str]]:
    return [text.partition("=") for text in texts.split()]


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
        public_url="http://me:pa55@localhost:9/line",
        console_port=8766,
        state_dir=tmp_path / "mine",
        lead_ms=100,
    )
    fitted = stand_in.fit(settings, CARRIER, 4711, tmp_path / "its")
    assert fitted.public_url == "http://me:pa55@localhost:9/line"
    assert (fitted.console_port, fitted.lead_ms) == (8766, 100)
    assert fitted.state_dir == tmp_path / "its"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:4711"),
        ("192.0.2.1", "http://192.0.2.1:4711"),
        ("::", "http://[::1]:4711"),
    ],
)
def test_the_public_url_is_where_the_gateways_listen(tmp_path: Path, host: str, url: str) -> None:
    fitted = stand_in.fit(load(env_file=None, http_host=host), CARRIER, 4711, tmp_path)
    assert fitted.public_url == url


def test_the_stand_in_calls_nobody_elses_public_url(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as the one of the user's own line, from .env."""
    settings = load(env_file=None, public_url="https://me:pa55@line.example.com")
    fitted = stand_in.fit(settings, CARRIER, 4711, tmp_path)
    assert fitted.public_url == "http://127.0.0.1:4711"
    (warning,) = caplog.messages
    assert warning == (
        "TRUNKLINE_PUBLIC_URL=https://me:***@line.example.com is ignored with --sim, because it is "
        "not this machine's; the stand-in carrier calls http://127.0.0.1:4711"
    )


def command(**settings: str) -> tuple[list[str], dict[str, str]]:
    return stand_in._command(load(env_file=None, **settings), Path("/ready"))


def test_the_carrier_has_the_stacks_account_and_numbers_to_play_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    credentials = ("ACCOUNT_SID", "AUTH_TOKEN", "AUTH_TOKEN_SECONDARY")
    for name in credentials:
        monkeypatch.setenv(f"TRUNKLINE_SIM_{name}", "of another carrier")
    argv, environment = command(account_sid="AC7", auth_token="token", auth_token_secondary="next")
    assert argv[-2:] == ["--ready-file", "/ready"]
    assert not {f"TRUNKLINE_SIM_{name}" for name in credentials} & environment.keys()
    assert [environment[f"TWILIO_{name}"] for name in credentials] == ["AC7", "token", "next"]
    assert environment["TRUNKLINE_SIM_NUMBERS"].startswith("+14155551234=")
    assert "+14155557777=echo" in environment["TRUNKLINE_SIM_CALLEES"]
    assert environment["TRUNKLINE_SIM_HABITS"] == "caller-id=kept"
    monkeypatch.setenv("TRUNKLINE_SIM_NUMBERS", "+14155550001")
    monkeypatch.setenv("TRUNKLINE_SIM_HABITS", "seam=0.3")
    _, environment = command()
    assert environment["TRUNKLINE_SIM_HABITS"] == "seam=0.3"
    assert environment["TRUNKLINE_SIM_NUMBERS"] == "+14155550001"
    assert "TRUNKLINE_SIM_CALLEES" not in environment


def test_it_listens_where_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def at(**settings: str) -> tuple[str, str]:
        argv, _ = command(**settings)
        return argv[argv.index("--host") + 1], argv[argv.index("--port") + 1]

    assert at() == ("127.0.0.1", "0")
    monkeypatch.setenv("TRUNKLINE_SIM_PORT", "9081")
    assert at() == ("127.0.0.1", "9081")
    assert at(twilio_api_url="http://127.0.0.1:9080") == ("127.0.0.1", "9080")
    assert at(twilio_api_url="http://[::1]:9080") == ("::1", "9080")
    for url in ("https://127.0.0.1:9080", "http://192.0.2.1:9080", "http://127.0.0.1:9080/api"):
        with pytest.raises(SettingsError, match=f"TRUNKLINE_TWILIO_API_URL={url}: with --sim"):
            at(twilio_api_url=url)
    with pytest.raises(SettingsError, match=r"=http://me:\*\*\*@192\.0\.2\.1: with --sim"):
        at(twilio_api_url="http://me:pa55@192.0.2.1")
