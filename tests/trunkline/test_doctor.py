"""The doctor's checks, against the stand-in carrier and sockets that are in the way."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.bus import messages as m
from trunkline.bus.settings import Settings, load
from trunkline.carrier_sim.sim import ACCOUNT_SID, CarrierSim
from trunkline.doctor import account, run, stack
from trunkline.doctor.finding import Finding, Known, json_object
from trunkline.stack.http_get import Answer

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
    assert states(await account.credentials(known))["credentials"] == "ok"
    assert known.account


@pytest.mark.parametrize(
    "date",
    ["yesterday", "", "Mon, 99 Jan 2026 00:00:00 GMT", f"Mon, 01 Jan 2026 00:00:00 +{'9' * 20}"],
)
def test_a_time_that_is_none_tells_nothing_of_the_clock(date: str) -> None:
    assert account._clock(Answer(200, b"{}", date, 0.0), "https://x").state == "skip"


def test_an_answer_of_brackets_is_no_json_object() -> None:
    """Whatever answers at the public URL is read."""
    assert json_object(b"[" * 100_000) == {}


def test_a_clock_that_is_right() -> None:
    now = format_datetime(datetime.now(UTC), usegmt=True)
    assert account._clock(Answer(200, b"{}", now, 0.0), "https://x").state == "ok"


async def test_a_wrong_token_is_told(tmp_path: Path, sim: CarrierSim) -> None:
    known = Known(settings(tmp_path, sim, auth_token="0" * 32))
    found = await account.credentials(known)
    assert states(found)["credentials"] == "fail"
    assert "refuses" in found[0].text
    assert not known.account
    assert states(await account.numbers(known)) == {"numbers": "skip"}


@pytest.mark.parametrize(
    ("good", "state", "said"),
    [
        (("one", "two"), "ok", "takes both auth tokens"),
        (("one",), "ok", "takes TWILIO_AUTH_TOKEN, and answers HTTP 401 to TWILIO_AUTH_TOKEN_SEC"),
        (("two",), "warn", "takes TWILIO_AUTH_TOKEN_SECONDARY, and answers HTTP 401 to TWILIO_A"),
    ],
)
async def test_which_token_of_a_rotation_is_taken(
    tmp_path: Path, good: tuple[str, ...], state: str, said: str
) -> None:
    tokens = {"one": "1" * 32, "two": "2" * 32}
    accepted = [tokens[name] for name in good]
    async with CarrierSim(auth_token=accepted[0], auth_token_secondary=accepted[-1]) as sim:
        sim.add_number("+14155551234")
        both = {"auth_token": tokens["one"], "auth_token_secondary": tokens["two"]}
        known = Known(settings(tmp_path, sim, **both))
        found = {finding.name: finding for finding in await account.credentials(known)}
        assert (found["credentials"].state, known.account) == ("ok", True)
        assert found["tokens"].state == state and said in found["tokens"].text
        # What else asks Twilio does so with the token that is good.
        assert states(await account.numbers(known)) == {"numbers": "ok"}


async def test_neither_token_is_taken(tmp_path: Path, sim: CarrierSim) -> None:
    both = {"auth_token": "1" * 32, "auth_token_secondary": "2" * 32}
    known = Known(settings(tmp_path, sim, **both))
    found = states(await account.credentials(known))
    assert found["credentials"] == "fail" and "tokens" not in found and not known.account


async def test_missing_credentials_are_named(tmp_path: Path, sim: CarrierSim) -> None:
    (found,) = await account.credentials(Known(settings(tmp_path, sim, auth_token="")))
    assert found.state == "fail"
    assert "TWILIO_AUTH_TOKEN is not set" in found.text


async def test_a_carrier_that_does_not_answer(tmp_path: Path, sim: CarrierSim) -> None:
    await sim.refuse_connections()
    found = await account.credentials(Known(settings(tmp_path, sim)))
    assert states(found) == {"credentials": "fail", "clock": "skip"}


@pytest.mark.parametrize(
    ("date", "state"), [("Thu, 01 Jan 1970 00:00:00 GMT", "fail"), (None, "skip")]
)
def test_a_clock_that_is_wrong(date: str | None, state: str) -> None:
    assert account._clock(Answer(200, b"{}", date, 0.0), "https://x").state == state


async def test_numbers_of_the_pool_must_be_the_accounts(tmp_path: Path, sim: CarrierSim) -> None:
    sim.add_number("+14155551234")
    sim.add_number("+14155551235", voice_application_sid="AP" + "1" * 32)
    known = Known(settings(tmp_path, sim, numbers="+14155551234,+14155559999"))
    known.account = True
    found = await account.numbers(known)
    assert [f.state for f in found] == ["ok", "fail", "warn"]
    assert "+14155559999" in found[1].text
    assert "routed to TwiML app" in found[2].text


async def test_an_account_without_numbers(known: Known) -> None:
    known.account = True
    assert states(await account.numbers(known)) == {"numbers": "fail"}


async def test_a_port_that_may_not_be_had_is_named_by_its_own_setting(
    tmp_path: Path, sim: CarrierSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*address: Any, **options: Any) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    public, console = await stack.ports(
        Known(settings(tmp_path, sim, http_port=80, console_port=81))
    )
    assert (public.state, console.state) == ("fail", "fail")
    assert public.text == (
        "TRUNKLINE_HTTP_HOST=127.0.0.1 TRUNKLINE_HTTP_PORT=80: cannot listen there: "
        "Permission denied"
    )
    assert console.text == "TRUNKLINE_CONSOLE_PORT=81: cannot listen there: Permission denied"


async def test_a_taken_port_is_a_failure_unless_a_stack_runs(
    tmp_path: Path, sim: CarrierSim
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        known = Known(settings(tmp_path, sim, http_port=port, console_port=0))
        assert states(await stack.ports(known)) == {"public port": "fail", "console port": "ok"}
        known.welcome = welcome()
        assert states(await stack.ports(known))["public port"] == "ok"
    assert states(await stack.ports(known))["public port"] == "warn"
    known.welcome = None
    assert states(await stack.ports(known))["public port"] == "ok"


async def test_no_stack_is_a_warning(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "BUS_WITHIN", 0.05)
    assert states(await stack.stack(known)) == {"stack": "warn"}
    assert states(await stack.public_url(known)) == {"public URL": "fail"}


async def test_a_running_stack_is_told_with_its_parts(
    known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = {"controller": {"pid": 7}, "gateways": [{}], "codec_workers": [{}, {}], "calls": []}

    @contextlib.asynccontextmanager
    async def controller(chosen: Settings, timeout: float) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(welcome=welcome())

    async def get_status(client: SimpleNamespace) -> dict[str, Any]:
        return running

    monkeypatch.setattr(stack, "controller_client", controller)
    monkeypatch.setattr(stack, "get_status", get_status)
    (found,) = await stack.stack(known)
    assert found == Finding(
        "stack", "ok", "controller (pid 7), 1 gateway, 2 codec workers, 0 calls"
    )
    assert known.status is running and known.welcome == welcome()


async def test_beside_a_stack_with_a_stand_in_nothing_is_asked_of_twilio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Its account, its ports and its public URL are none of this shell's settings."""
    told = {"controller": {"pid": 7, "stand_in": "http://127.0.0.1:9080"}, "overrides": []}
    both: dict[str, Any] = {"gateways": [{}], "codec_workers": [{}, {}], "calls": []}

    @contextlib.asynccontextmanager
    async def controller(chosen: Settings, timeout: float) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(welcome=welcome("http://127.0.0.1:8765"))

    async def get_status(client: SimpleNamespace) -> dict[str, Any]:
        return told | both

    monkeypatch.setattr(stack, "controller_client", controller)

    async def get(url: str) -> Answer:
        assert url == "http://127.0.0.1:9080/sim/numbers"
        return Answer(200, json.dumps([{"phone_number": "+14155551234"}]).encode(), None, 0.0)

    monkeypatch.setattr(stack, "get_status", get_status)
    monkeypatch.setattr(stack, "get", get)
    plain = load(env_file=None, bus=f"ipc://{tmp_path}/bus", state_dir=tmp_path / "state")
    assert await run.run(lambda: plain, as_json=True) == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)["findings"]}
    assert found["carrier"]["text"].startswith("the stack's is the stand-in at http://127.0.0.1:90")
    assert found["carrier"]["text"].endswith("; its numbers: +14155551234")
    assert not {"public port", "credentials", "numbers", "public URL"} & found.keys()
    assert found["overrides"]["state"] == "ok"
    both["codec_workers"] = []
    assert await run.run(lambda: plain, as_json=True) == 1
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)["findings"]}
    assert (found["stack"]["state"], found["carrier"]["state"]) == ("fail", "ok")
    # This shell names the carrier, so its settings are those of the stack.
    named = Known(plain.changed(twilio_api_url="http://127.0.0.1:9080"), status=told)
    assert named.stand_in is None and Known(plain).stand_in is None


async def test_how_much_is_left_of_the_caps(known: Known) -> None:
    assert states(await stack.caps(known)) == {"caps": "skip"}
    known.status = {"calls": []}
    assert states(await stack.caps(known)) == {"caps": "ok"}
    known.status["caps"] = [
        {"setting": "TRUNKLINE_MAX_CALLS", "most": 5, "used": 2, "left": 3},
        {"setting": "TRUNKLINE_MAX_MINUTES_PER_DAY", "most": 60, "used": 60, "left": 0},
    ]
    some, none = await stack.caps(known)
    assert (some.state, some.text) == ("ok", "TRUNKLINE_MAX_CALLS=5: 3 left")
    assert (none.state, none.text) == ("warn", "TRUNKLINE_MAX_MINUTES_PER_DAY=60: 0 left")


def welcome(public_url: str | None = None) -> m.Welcome:
    return m.Welcome(
        epoch=1, stack="st1", pid=1, account=ACCOUNT_SID, public_url=public_url, lead_ms=60
    )


@pytest.mark.parametrize(
    ("status", "body", "state", "said"),
    [
        (200, b'{"ok":true,"stack":"st1"}', "ok", "answers in"),
        (200, b'{"ok":true,"stack":"st2"}', "fail", "another trunkline stack"),
        (200, b'{"ok":true,"stack":"st2","stacks":["st1","st2"]}', "ok", "answers in"),
        (200, b"<html>welcome</html>", "fail", "something else"),
        (502, b"bad gateway", "fail", "something else (HTTP 502)"),
        (0, b"timed out", "fail", "cannot be reached: timed out"),
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

    monkeypatch.setattr(stack, "get", get)
    known.welcome = welcome("https://line.example.com")
    (found,) = await stack.public_url(known)
    assert found.state == state
    assert said in found.text


async def test_a_password_and_a_port_in_the_public_url(
    known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password is used and not shown. Parts that streams may not get are named."""
    asked = []

    async def get(url: str, headers: dict[str, str] | None = None) -> Answer:
        asked.append(url)
        return Answer(200, b'{"ok":true,"stack":"st1"}', None, 0.1)

    monkeypatch.setattr(stack, "get", get)
    known.welcome = welcome("https://me:pa55@line.example.com:8443/base")
    answered, port, user = await stack.public_url(known)
    assert asked == ["https://me:pa55@line.example.com:8443/base/healthz"]
    assert answered.text.startswith("https://me:***@line.example.com:8443/base answers in")
    assert (answered.state, port.state, user.state) == ("ok", "warn", "warn")
    assert "port 8443" in port.text and "port 443 where streams go" in port.text
    assert "user name" in user.text and "/twilio/stream" in user.hint
    for status, body in ((0, b"timed out"), (502, b""), (200, b'{"stack":"st2"}')):

        async def refused(
            url: str, headers: Any = None, status: int = status, body: bytes = body
        ) -> Answer:
            return Answer(status, body, None, 0.1)

        monkeypatch.setattr(stack, "get", refused)
        found = await stack.public_url(known)
        assert found[0].state == "fail"
        assert "pa55" not in repr(found)


async def test_an_ordinary_public_url_gets_no_word_more(tmp_path: Path, sim: CarrierSim) -> None:
    for url in ("https://line.example.com", "https://line.example.com:443/base"):
        known = Known(settings(tmp_path, sim, public_url=url))
        assert states(await stack.public_url(known)) == {"public URL": "skip"}
        assert len(await stack.public_url(known)) == 1


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (
            [{"shared key": 2}, {"shared key": 1, "unsigned": 9}],
            ["3 requests were refused because"],
        ),
        ([{"wrong signature": 4}, {}], ["4 requests were refused for a wrong signature"]),
        ([{"wrong signature": 1, "shared key": 1}], ["a shared key", "a wrong signature"]),
    ],
)
async def test_refused_signatures_are_explained(
    known: Known, refused: list[dict[str, int]], said: list[str]
) -> None:
    known.status = {"gateways": [{"id": "g", "refused": each} for each in refused]}
    found = await stack.refusals(known)
    assert [finding.state for finding in found] == ["warn"] * len(said)
    for finding, text in zip(found, said, strict=True):
        assert text in finding.text
    if "shared key" in refused[0]:
        assert "HMAC_SHA256" in found[0].text and "Webhook Rules" in found[0].hint


async def test_strangers_without_a_signature_are_no_mistake(known: Known) -> None:
    assert states(await stack.refusals(known)) == {"signatures": "skip"}
    known.status = {"gateways": [{"id": "g1"}, {"id": "g2", "refused": {"unsigned": 3}}]}
    assert states(await stack.refusals(known)) == {"signatures": "ok"}
