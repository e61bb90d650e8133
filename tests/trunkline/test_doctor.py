"""The doctor's checks, against the stand-in carrier and sockets that are in the way."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from trunkline import doctor
from trunkline import doctor_checks as checks
from trunkline.bus import messages as m
from trunkline.bus.settings import Settings, load
from trunkline.carrier_sim.sim import ACCOUNT_SID, CarrierSim
from trunkline.doctor_checks import Answer, Finding, Known

TOKEN = "5ca1ab1e" * 4


@pytest.fixture
async def sim() -> AsyncIterator[CarrierSim]:
    async with CarrierSim(auth_token=TOKEN) as sim:
        yield sim


@pytest.fixture
def known(tmp_path: Path, sim: CarrierSim) -> Known:
    return Known(settings(tmp_path, sim))


def settings(tmp_path: Path, sim: CarrierSim, **given: Any) -> Settings:
    fields = {
        "account_sid": ACCOUNT_SID,
        "auth_token": TOKEN,
        "twilio_api_url": sim.base_url,
        "bus": f"ipc://{tmp_path}/bus",
        "state_dir": tmp_path / "state",
    }
    return load(env_file=None, **fields | given)


def states(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.state for finding in findings}


async def test_good_credentials(known: Known) -> None:
    assert states(await checks.credentials(known))["credentials"] == "ok"
    assert known.account


def test_a_clock_that_is_right() -> None:
    now = format_datetime(datetime.now(UTC), usegmt=True)
    assert checks._clock(Answer(200, b"{}", now, 0.0), "https://x").state == "ok"


async def test_a_wrong_token_is_told(tmp_path: Path, sim: CarrierSim) -> None:
    known = Known(settings(tmp_path, sim, auth_token="0" * 32))
    found = await checks.credentials(known)
    assert states(found)["credentials"] == "fail"
    assert "refuses" in found[0].text
    assert not known.account
    assert states(await doctor.numbers(known)) == {"numbers": "skip"}


async def test_missing_credentials_are_named(tmp_path: Path, sim: CarrierSim) -> None:
    (found,) = await checks.credentials(Known(settings(tmp_path, sim, auth_token="")))
    assert found.state == "fail"
    assert "TWILIO_AUTH_TOKEN is not set" in found.text


async def test_a_carrier_that_does_not_answer(tmp_path: Path, sim: CarrierSim) -> None:
    await sim.refuse_connections()
    found = await checks.credentials(Known(settings(tmp_path, sim)))
    assert states(found) == {"credentials": "fail", "clock": "skip"}


@pytest.mark.parametrize(
    ("date", "state"), [("Thu, 01 Jan 1970 00:00:00 GMT", "fail"), (None, "skip")]
)
def test_a_clock_that_is_wrong(date: str | None, state: str) -> None:
    assert checks._clock(Answer(200, b"{}", date, 0.0), "https://x").state == state


async def test_numbers_of_the_pool_must_be_the_accounts(tmp_path: Path, sim: CarrierSim) -> None:
    sim.add_number("+14155551234")
    sim.add_number("+14155551235", voice_application_sid="AP" + "1" * 32)
    known = Known(settings(tmp_path, sim, numbers="+14155551234,+14155559999"))
    known.account = True
    found = await doctor.numbers(known)
    assert [f.state for f in found] == ["ok", "fail", "warn"]
    assert "+14155559999" in found[1].text
    assert "routed to TwiML app" in found[2].text


async def test_an_account_without_numbers(known: Known) -> None:
    known.account = True
    assert states(await doctor.numbers(known)) == {"numbers": "fail"}


async def test_a_taken_port_is_a_failure_unless_a_stack_runs(
    tmp_path: Path, sim: CarrierSim
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        known = Known(settings(tmp_path, sim, http_port=port, console_port=0))
        assert states(await checks.ports(known)) == {"public port": "fail", "console port": "ok"}
        known.welcome = welcome()
        assert states(await checks.ports(known))["public port"] == "ok"
    assert states(await checks.ports(known))["public port"] == "warn"
    known.welcome = None
    assert states(await checks.ports(known))["public port"] == "ok"


async def test_no_stack_is_a_warning(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "BUS_WITHIN", 0.05)
    assert states(await checks.stack(known)) == {"stack": "warn"}
    assert states(await checks.public_url(known)) == {"public URL": "fail"}


def welcome(public_url: str | None = None) -> m.Welcome:
    return m.Welcome(
        epoch=1, controller="st1", pid=1, account=ACCOUNT_SID, public_url=public_url, lead_ms=60
    )


@pytest.mark.parametrize(
    ("status", "body", "state", "said"),
    [
        (200, b'{"ok":true,"stack":"st1"}', "ok", "answers in"),
        (200, b'{"ok":true,"stack":"st2"}', "fail", "another trunkline stack"),
        (200, b"<html>welcome</html>", "fail", "something else"),
        (502, b"bad gateway", "fail", "something else (HTTP 502)"),
        (0, b"timed out", "fail", "is not reached: timed out"),
    ],
)
async def test_the_public_url(
    known: Known,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: bytes,
    state: str,
    said: str,
) -> None:
    async def get(url: str, headers: dict[str, str] | None = None) -> Answer:
        assert url == "https://line.example.com/healthz"
        return Answer(status, body, None, 0.1)

    monkeypatch.setattr(checks, "get", get)
    known.welcome = welcome("https://line.example.com")
    (found,) = await checks.public_url(known)
    assert found.state == state
    assert said in found.text
