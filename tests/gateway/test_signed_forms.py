"""Webhooks and upgrades in every form that Twilio signs, and what is said of refused ones."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlencode

import pytest

from trunkline.bus import messages as m
from trunkline.gateway.shell import Shell
from trunkline.gateway.stream_socket import StreamSocket
from trunkline.gateway.websocket import Refusal, Upgrade

from .stack import FORM, TOKEN, sign
from .test_app import Client, Controller

NOTHING: Any = None
SECONDARY = "the-other-secret"
PUBLIC = "https://user:pa55@line.example.com:8443/base"
FORMS = [
    "https://user:pa55@line.example.com:8443/base",
    "https://user:pa55@line.example.com/base",
    "https://line.example.com:8443/base",
    "https://line.example.com/base",
]
SHARED = {"x-twilio-webhooks-signature-settings": "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"}


def signed(
    url: str, token: str = TOKEN, form: dict[str, str] | None = None, **headers: str
) -> dict[str, str]:
    return {"x-twilio-signature": sign(url, form, token), **headers}


@pytest.fixture
def controller() -> Controller:
    return Controller()


@pytest.fixture
def client(controller: Controller) -> Client:
    return Client(controller, public_url=PUBLIC, secondary=SECONDARY)


async def post(
    client: Client, path: str, headers: dict[str, str], query: str = "o=1", form: Any = FORM
) -> int:
    body = urlencode(form).encode()
    status, _, _ = await client.request("POST", path, query=query, body=body, headers=headers)
    return status


@pytest.mark.parametrize("token", [TOKEN, SECONDARY])
@pytest.mark.parametrize("base", FORMS)
@pytest.mark.parametrize("proxy", ["cuts the path off", "passes it on"])
async def test_webhooks(
    controller: Controller, client: Client, token: str, base: str, proxy: str
) -> None:
    prefix = "" if proxy == "cuts the path off" else "/base"
    headers = signed(f"{base}/twilio/voice?o=1", token, FORM)
    assert await post(client, f"{prefix}/twilio/voice", headers) == 200
    controller.answer = m.Done()
    headers = signed(f"{base}/twilio/status?o=1", token, FORM)
    assert await post(client, f"{prefix}/twilio/status", headers) == 204
    assert controller.asked == [
        m.VoiceWebhook(form=FORM, query={"o": "1"}),
        m.StatusCallback(form=FORM, query={"o": "1"}),
    ]
    assert client.refusals.counts == {}


async def test_what_twilio_was_given_is_checked_and_not_what_arrives(client: Client) -> None:
    """A signature over the path without the public URL's own is not Twilio's."""
    headers = signed("https://line.example.com/twilio/voice?o=1", TOKEN, FORM)
    assert await post(client, "/twilio/voice", headers) == 403


# ---------------------------------------------------------------------- upgrades


async def upgrade(
    client: Client, path: str, headers: dict[str, str], query: str = ""
) -> StreamSocket | Refusal:
    shell = Shell("g1", client.authenticator, NOTHING, NOTHING, clock=lambda: 100.0)
    return shell.accept(Upgrade(path, query, headers))


@pytest.mark.parametrize("token", [TOKEN, SECONDARY])
@pytest.mark.parametrize("base", FORMS)
@pytest.mark.parametrize("path", ["/twilio/stream", "/base/twilio/stream"])
async def test_upgrades(client: Client, token: str, base: str, path: str) -> None:
    url = base.replace("https", "wss") + "/twilio/stream"
    assert isinstance(await upgrade(client, path, signed(url, token)), StreamSocket)
    assert client.refusals.counts == {}


async def test_upgrades_elsewhere_are_404(client: Client) -> None:
    for path in ("/stream", "/base/stream", "/other/twilio/stream", "/base/base/twilio/stream"):
        assert await upgrade(client, path, {}) == Refusal(404, "not found")


@pytest.mark.parametrize(
    ("headers", "reason", "said"),
    [
        ({}, "unsigned", "it has no signature"),
        ({"x-twilio-signature": "\udcff"}, "wrong signature", "its signature is wrong"),
        (
            signed("wss://b.example/base/twilio/stream"),
            "wrong signature",
            "either auth token",
        ),
        (
            signed("wss://line.example.com/base/twilio/stream", **SHARED),
            "shared key",
            "a shared key has signed it",
        ),
    ],
)
async def test_a_refused_upgrade_says_why(
    client: Client,
    caplog: pytest.LogCaptureFixture,
    headers: dict[str, str],
    reason: str,
    said: str,
) -> None:
    checked = "wss://line.example.com:8443/base/twilio/stream?x=…"
    refusal = Refusal(403, f"forbidden: {reason} (checked: {checked})")
    assert await upgrade(client, "/twilio/stream", headers, "x=hidden") == refusal
    assert client.refusals.counts == {reason: 1}
    (line,) = caplog.messages
    assert line.startswith("refused a WebSocket: ") and said in line
    assert "wss://user:***@line.example.com:8443/base/twilio/stream?x=…" in line
    assert "pa55" not in line and "hidden" not in line


# ---------------------------------------------------------------------- what is said of refusals


async def test_a_refused_webhook_says_which_url_was_checked_and_why(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    headers = signed("https://elsewhere.example/twilio/voice?o=1", TOKEN, FORM)
    assert await post(client, "/base/twilio/voice", headers, "o=1&p=sealed-prior") == 403
    assert caplog.record_tuples == [
        (
            "trunkline.gateway",
            logging.WARNING,
            "refused POST /twilio/voice from ***1234: its signature is wrong (checked: "
            "https://user:***@line.example.com:8443/base/twilio/voice?o=…&p=…, with and without "
            "port and user-info, under either auth token)",
        )
    ]


@pytest.mark.parametrize("path", ["/twilio/voice", "/twilio/status"])
async def test_a_shared_key_is_refused_by_name(
    controller: Controller, client: Client, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """Even where an auth token's signature would be right: Twilio says that it is none."""
    headers = signed(f"{PUBLIC}{path}?o=1", TOKEN, FORM, **SHARED)
    assert await post(client, path, headers) == 403
    assert controller.asked == []
    assert client.refusals.counts == {"shared key": 1}
    assert caplog.messages == [
        f"refused POST {path} from ***1234: a shared key has signed it, and only the auth token's "
        "signatures (HMAC-SHA1) are taken here: take this URL out of the account's Webhook Rules "
        f"(checked: https://user:***@line.example.com:8443/base{path}?o=…)"
    ]


async def test_reasons_are_counted(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    assert await post(client, "/twilio/voice", {}) == 403
    assert await post(client, "/twilio/voice", signed("https://x.example")) == 403
    assert await post(client, "/twilio/voice", signed("https://x.example")) == 403
    assert (await client.request("POST", "/twilio/voice", body=b"From=%FF"))[0] == 403
    client.public_url = None
    assert await post(client, "/twilio/voice", signed("https://x.example")) == 403
    assert (await client.request("POST", "/base/twilio/voice"))[0] == 404
    assert await upgrade(client, "/twilio/stream", {}) == Refusal(403, "forbidden")
    assert client.refusals.counts == {
        "unsigned": 1,
        "wrong signature": 2,
        "unreadable": 1,
        "no public URL": 2,
        "not found": 1,
    }
    assert len(caplog.messages) == 5, "each kind has one line"
    assert "the public URL is not known yet" in caplog.messages[3]
    assert TOKEN not in caplog.text and SECONDARY not in caplog.text
