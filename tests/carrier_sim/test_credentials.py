"""Signatures and their tokens, the tokens that REST takes, and the way of a URL's password."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import Counter

import pytest
from starlette.responses import Response
from twilio.base.exceptions import TwilioRestException
from twilio.request_validator import RequestValidator

from trunkline.carrier_sim.beliefs import Beliefs
from trunkline.carrier_sim.call import Call
from trunkline.carrier_sim.client import SimClient, SimError
from trunkline.carrier_sim.habits import HABITS, Habits
from trunkline.carrier_sim.signature import SHARED_KEY, Credentials, Signer, sign, signed_url
from trunkline.carrier_sim.sim import CarrierSim

from .server import CALLER, OURS, REJECT, Customer, call_in, twilio_client

URL = "https://u:p@x.example:8443/base/voice?a=1&b=2"
BASIC = "Basic " + base64.b64encode(b"me:pa55").decode()


# ---------------------------------------------------------------------- the signature

DOCUMENTED = [
    ("Digits", "1234"),
    ("CallSid", "CA1234567890ABCDE"),
    ("To", "+18005551212"),
    ("Caller", "+14158675309"),
    ("From", "+14158675309"),
]


def test_the_documented_value() -> None:
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    assert sign("12345", url, DOCUMENTED) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="
    assert sign("12345", url + "#rc=3&rp=all", DOCUMENTED) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def test_blank_and_repeated_fields_as_the_package_has_them() -> None:
    form = {"FromCity": "", "B": "2", "A": "ü"}
    validator = RequestValidator("token")
    assert sign("token", "https://x.example/a", form.items()) == validator.compute_signature(
        "https://x.example/a", form
    )
    repeated = [("A", "2"), ("A", "1"), ("A", "2")]
    assert sign("t", "u", repeated) == sign("t", "u", [("A", "1"), ("A", "2")])


# ---------------------------------------------------------------------- the signed text


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("given", URL),
        ("port", URL),
        ("no-port", "https://u:p@x.example/base/voice?a=1&b=2"),
        ("port-no-user", "https://x.example:8443/base/voice?a=1&b=2"),
        ("no-port-no-user", "https://x.example/base/voice?a=1&b=2"),
    ],
)
def test_the_forms_of_a_url(form: str, text: str) -> None:
    assert signed_url(URL, form) == text


@pytest.mark.parametrize(
    ("url", "with_port"),
    [
        ("https://x.example/v", "https://x.example:443/v"),
        ("wss://x.example/v", "wss://x.example:443/v"),
        ("http://http/v", "http://http:80/v"),
        ("ws://[::1]/v", "ws://[::1]:80/v"),
        ("ws://[::1]:8765/v", "ws://[::1]:8765/v"),
    ],
)
def test_the_port_that_is_added_and_left_out(url: str, with_port: str) -> None:
    assert signed_url(url, "port") == signed_url(url, "port-no-user") == with_port
    assert signed_url(with_port, "no-port") == url.replace(":8765", "")


def test_forms_and_tokens_are_drawn_by_seed() -> None:
    def drawn(seed: int, secondary: str) -> list[str]:
        signer = Signer(Credentials("one", secondary), Habits(seed), Beliefs())
        return [signer.headers(URL, [("A", "1")])[0][1] for _ in range(100)]

    texts = {form: signed_url(URL, form) for form in HABITS["signed-url"]}
    assert len(set(texts.values())) == 4
    assert drawn(7, "") == drawn(7, "") != drawn(8, "")
    assert set(drawn(7, "")) == {sign("one", text, [("A", "1")]) for text in texts.values()}
    both = set(drawn(7, "two"))
    assert both == {sign(key, t, [("A", "1")]) for t in texts.values() for key in ("one", "two")}


def test_a_pinned_form() -> None:
    pinned = {"signed-url": "no-port", "signing-token": "secondary"}
    signer = Signer(Credentials("one", "two"), Habits(1, pinned), Beliefs())
    text = "https://u:p@x.example/base/voice?a=1&b=2"
    assert Counter(signer.headers(URL)[0][1] for _ in range(20)) == {sign("two", text): 20}


def test_contradicted_a_shared_key_signs() -> None:
    beliefs = Beliefs(["the-auth-token-signs"])
    signer = Signer(Credentials("one"), Habits(1, {"signed-url": "given"}), beliefs)
    (_, signature), (name, settings) = signer.headers(URL, [("A", "1")])
    assert name == "X-Twilio-Webhooks-Signature-Settings"
    assert settings.endswith(",algorithm=HMAC_SHA256") and settings.startswith("key=webhooks_shar")
    assert signature == sign(SHARED_KEY, URL, [("A", "1")], hashlib.sha256)
    validator = RequestValidator(SHARED_KEY)
    assert validator.compute_signature(URL, {"A": "1"}, "HMAC_SHA256") == signature


def test_contradicted_the_query_is_not_signed() -> None:
    beliefs = Beliefs(["signed-url-is-the-given-one"])
    signer = Signer(Credentials("one"), Habits(1, {"signed-url": "given"}), beliefs)
    assert signer.headers(URL)[0][1] == sign("one", URL.partition("?")[0])


# ---------------------------------------------------------------------- REST


@pytest.fixture
async def rotating() -> CarrierSim:
    return CarrierSim(auth_token="one", auth_token_secondary="two")


async def taken(sim: CarrierSim) -> dict[str, int]:
    """HTTP status of a request with each token."""
    found = {}
    for token in ("one", "two"):
        with twilio_client(sim, token) as client:
            try:
                await asyncio.to_thread(client.api.accounts(sim.account_sid).fetch)
                found[token] = 200
            except TwilioRestException as refused:
                assert refused.code == 20003
                found[token] = refused.status
    return found


async def test_a_rotation(rotating: CarrierSim) -> None:
    async with rotating as sim:
        assert await taken(sim) == {"one": 200, "two": 200}

        def promote() -> None:
            with SimClient(sim.base_url) as client:
                client.promote_token()
                with pytest.raises(SimError, match="no secondary auth token"):
                    client.promote_token()

        await asyncio.to_thread(promote)
        assert await taken(sim) == {"one": 401, "two": 200}
        assert sim.auth_token == "two"
        assert sim.signer.headers("https://x.example")[0][1] in {
            sign("two", url) for url in ("https://x.example", "https://x.example:443")
        }


async def test_contradicted_rest_takes_the_primary_alone(
    rotating: CarrierSim,
) -> None:
    async with rotating as sim:
        sim.exchange.beliefs.contradict(["rest-takes-both-tokens"])
        assert await taken(sim) == {"one": 200, "two": 401}


# ---------------------------------------------------------------------- a password in a URL


async def locked_call(sim: CarrierSim, customer: Customer, fragment: str = "") -> Call:
    """A call whose voice_url has the password that its page asks for."""

    def page(form: dict[str, str]) -> Response:
        if customer.posts[-1][2].get("authorization") == BASIC:
            return Response(REJECT, media_type="text/xml")
        return Response(status_code=401, headers={"WWW-Authenticate": 'Basic realm="line"'})

    customer.pages["/voice"] = page
    url = customer.base.replace("://", "://me:pa55@", 1) + "/voice" + fragment
    sim.add_number(OURS, voice_url=url)
    return await sim.place_inbound_call(CALLER, OURS, "silence")


async def test_a_webhooks_password_is_sent_once_the_server_asks(
    sim: CarrierSim, customer: Customer
) -> None:
    call = await locked_call(sim, customer)
    assert await sim.wait_for(call) == "no-answer"
    first, second = (headers for _, _, headers in customer.posts)
    assert "authorization" not in first and second["authorization"] == BASIC
    assert "me:" not in second["host"]
    assert sim.errors == []


async def test_contradicted_a_webhooks_password_is_never_sent(
    sim: CarrierSim, customer: Customer
) -> None:
    sim.exchange.beliefs.contradict(["webhook-user-info"])
    call = await locked_call(sim, customer, "#rc=0")
    assert await sim.wait_for(call) == "failed"
    assert all("authorization" not in headers for _, _, headers in customer.posts)
    assert sim.judge.codes() == [11200]


async def test_a_streams_password_comes_with_the_upgrade(
    sim: CarrierSim, customer: Customer
) -> None:
    call = await call_in(sim, customer, customer.connect().replace("ws://", "ws://me:pa55@"))
    await sim.wait_for_stream(call)
    assert customer.upgrades[0]["authorization"] == BASIC
    assert "me:" not in customer.upgrades[0]["host"]


@pytest.mark.parametrize(
    ("belief", "code", "user"),
    [("stream-user-info", 31923, "me:pa55@"), ("stream-port", 31901, "")],
)
async def test_contradicted_such_a_stream_does_not_start(
    sim: CarrierSim, customer: Customer, belief: str, code: int, user: str
) -> None:
    sim.exchange.beliefs.contradict([belief])
    call = await call_in(sim, customer, customer.connect().replace("ws://", f"ws://{user}"))
    assert await sim.wait_for(call) == "completed"
    assert sim.judge.codes() == [code]
    assert "pa55" not in sim.errors[0].text
    assert customer.upgrades == []
