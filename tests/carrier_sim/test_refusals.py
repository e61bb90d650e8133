"""What the real Twilio refuses, by number: docs/refusals.md has each number that the carrier knows,
and the test that it names shows it. Here are those that no other file has."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import pytest

from trunkline.carrier_sim.http_message import Request
from trunkline.carrier_sim.judge import NAMES
from trunkline.carrier_sim.sim import CarrierSim

from .bench import Bench
from .server import CALLEE, OURS, Customer, call_in

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "refusals.md").read_text()
ROW = re.compile(r"\| (\d{5}) \| ([^|]+) \| ([^|]+) \| `([^`|]+)` \|")
CALLS = "/2010-04-01/Accounts/{}/Calls.json"


def rows() -> dict[int, tuple[str, str, str]]:
    found = [ROW.fullmatch(line) for line in PAGE.splitlines() if re.match(r"\| \d", line)]
    assert all(found), "a row of another form"
    return {int(m[1]): (m[2], m[3], m[4]) for m in found if m}


def test_the_page_has_every_number_in_order() -> None:
    assert list(rows()) == sorted(NAMES)


@pytest.mark.parametrize("code", sorted(NAMES))
def test_a_row_says_when_who_says_so_and_which_test_shows_it(code: int) -> None:
    when, source, test = rows()[code]
    assert len(when.split()) >= 4
    assert re.match(r"TD |package twilio |inferred", source)
    assert str(code) in (ROOT / test).read_text(), f"{test} does not have {code}"


def ask(sim: CarrierSim, method: str, path: str, **fields: str) -> tuple[int, int]:
    """Status and error of a raw request."""
    basic = base64.b64encode(f"{sim.account_sid}:{sim.auth_token}".encode()).decode()
    headers = {"authorization": f"Basic {basic}"}
    body = urlencode(fields).encode()
    answer = sim.rest.handle(Request(method, path.format(sim.account_sid), headers, body), 0.0)
    return answer.status, int(msgspec.json.decode(answer.body)["code"])


async def test_requests_that_are_no_call(sim: CarrierSim) -> None:
    sim.add_number(OURS)
    usual = {"To": CALLEE, "From": OURS, "Twiml": "<Response/>"}

    def without(name: str) -> dict[str, str]:
        return {field: value for field, value in usual.items() if field != name}

    assert ask(sim, "POST", CALLS, **without("To")) == (400, 21201)
    assert ask(sim, "POST", CALLS, **without("From")) == (400, 21213)
    assert ask(sim, "POST", CALLS, **usual, ApplicationSid="AP1") == (400, 21218)
    assert ask(sim, "POST", CALLS, **usual, StatusCallbackMethod="PUT") == (400, 21209)
    assert ask(sim, "PUT", CALLS) == (405, 20004)
    assert ask(sim, "GET", CALLS + "?PageSize=many") == (400, 20001)
    sim.add_fault("rest", "status", status=503, count=1)
    answer = await sim._door.handle(Request("GET", CALLS.format(sim.account_sid), {}))
    assert msgspec.json.decode(answer.body)["code"] == 20500  # type: ignore[union-attr]  # an error
    assert sim.calls == {}


def test_a_redirect_that_is_no_url() -> None:
    bench = Bench()
    call = bench.inbound()
    bench.answer("<Response><Redirect>ftp://h/x</Redirect></Response>")
    assert bench.judge.codes(call.sid) == [11100]


async def test_a_webhook_whose_host_nobody_knows(sim: CarrierSim, customer: Customer) -> None:
    call = await call_in(
        sim, customer, "<Response><Redirect>http://nobody.invalid/x</Redirect></Response>"
    )
    await sim.wait_for(call)
    assert sim.judge.codes(call.sid) == [11210]
