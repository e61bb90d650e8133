"""The webhooks: what is refused, what is asked, what is answered."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import MutableMapping
from typing import Any, TypeVar
from urllib.parse import urlencode

import pytest

from trunkline.bus import messages as m
from trunkline.bus.errors import StackUnavailableError, TimedOutError, TrunklineError
from trunkline.gateway import app as gateway_app
from trunkline.gateway.app import GatewayApp
from trunkline.gateway.authenticator import Authenticator
from trunkline.gateway.signature import SignatureCheck

from .stack import ACCOUNT, BASE, FORM, TOKEN, sign

_T = TypeVar("_T")


class Controller:
    """Answers as it was told to."""

    def __init__(self) -> None:
        self.asked: list[m.RequestBody] = []
        self.answer: m.ReplyBody | TrunklineError = m.VoiceAnswer(kind="busy")

    async def request(
        self, body: m.RequestBody, expect: type[_T], *, timeout: float | None = None
    ) -> _T:
        self.asked.append(body)
        assert timeout == gateway_app.ANSWER_WITHIN
        if isinstance(self.answer, TrunklineError):
            raise self.answer
        assert isinstance(self.answer, expect)
        return self.answer


class Client:
    """Speaks ASGI to the application, signing what it posts."""

    def __init__(
        self,
        controller: Controller,
        *,
        checked: bool = True,
        public_url: str = BASE,
        secondary: str = "",
    ) -> None:
        self.public_url: str | None = public_url
        self.stack: str | None = "stack-1"
        self.authenticator = Authenticator(
            check=SignatureCheck(TOKEN, secondary) if checked else None,
            public_url=lambda: self.public_url,
            account=lambda: ACCOUNT,
        )
        self.app = GatewayApp(
            self.authenticator,
            controller.request,
            stack=lambda: self.stack,
            ready=lambda: self.stack is not None,
        )

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        pieces: int = 1,
    ) -> tuple[int, dict[str, str], bytes]:
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(k.encode(), v.encode()) for k, v in (headers or {}).items()],
        }
        size = max(1, -(-len(body) // pieces))
        parts = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        found = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
        return sent[0]["status"], found, sent[1]["body"]

    async def post(
        self,
        path: str,
        form: dict[str, str],
        *,
        query: str = "",
        token: str = TOKEN,
        base: str = BASE,
        pieces: int = 1,
    ) -> tuple[int, dict[str, str], bytes]:
        url = base + path + ("?" + query if query else "")
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            "x-twilio-signature": sign(url, form, token),
        }
        body = urlencode(form).encode()
        return await self.request(
            "POST", path, query=query, body=body, headers=headers, pieces=pieces
        )


@pytest.fixture
def controller() -> Controller:
    return Controller()


@pytest.fixture
def client(controller: Controller) -> Client:
    return Client(controller)


async def test_a_call_is_answered_as_the_controller_says(
    controller: Controller, client: Client
) -> None:
    controller.answer = m.VoiceAnswer(kind="stream", token="t", redirect_query={"c": "1"})
    status, headers, body = await client.post("/twilio/voice", FORM, query="m=a%2Fb&e=", pieces=3)
    assert (status, headers["content-type"]) == (200, "application/xml")
    assert headers["content-length"] == str(len(body))
    assert b'<Parameter name="nonce" value="t"/>' in body
    assert controller.asked == [m.VoiceWebhook(form=FORM, query={"m": "a/b", "e": ""})]


@pytest.mark.parametrize("path", ["/twilio/voice", "/twilio/status"])
@pytest.mark.parametrize("wrong", ["missing", "token", "url", "query", "field", "form"])
async def test_a_wrong_signature_is_forbidden(
    controller: Controller,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    path: str,
    wrong: str,
) -> None:
    if wrong == "missing":
        body = urlencode(FORM).encode()
        status, _, answer = await client.request("POST", path, body=body)
    elif wrong == "token":
        status, _, answer = await client.post(path, FORM, token="other")
    elif wrong == "url":
        status, _, answer = await client.post(path, FORM, base="http://127.0.0.1:8765")
    elif wrong == "form":
        status, _, answer = await client.request("POST", path, body=b"From=%FF")
    else:
        client.public_url = BASE
        form = FORM if wrong == "query" else {**FORM, "Extra": "1"}
        query = "x=1" if wrong == "query" else ""
        body = urlencode(FORM).encode()
        headers = {"x-twilio-signature": sign(BASE + path, form)}
        status, _, answer = await client.request(
            "POST", path, query=query, body=body, headers=headers
        )
    assert (status, answer) == (403, b"forbidden")
    assert controller.asked == []
    assert client.authenticator.objections.total() == 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "4155551234" not in caplog.text
    assert TOKEN not in caplog.text
    if wrong not in ("form",):
        assert "***1234" in caplog.text


async def test_without_a_public_url_nothing_is_believed(
    controller: Controller, client: Client
) -> None:
    client.public_url = None
    assert (await client.post("/twilio/voice", FORM))[0] == 403
    assert controller.asked == []


async def test_a_flood_of_strangers_does_not_flood_the_log(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    client.authenticator.clock = lambda: now
    client.authenticator.__post_init__()
    for _ in range(100):
        await client.post("/twilio/voice", FORM, token="x")
    assert len(caplog.records) == 10
    now = 1.5
    await client.post("/twilio/voice", FORM, token="x")
    assert "90 more" in caplog.records[10].getMessage()
    assert len(caplog.records) == 12


async def test_unchecked_only_when_told_so(controller: Controller) -> None:
    client = Client(controller, checked=False)
    status, _, _ = await client.request("POST", "/twilio/voice", body=urlencode(FORM).encode())
    assert status == 200
    assert controller.asked == [m.VoiceWebhook(form=FORM)]


@pytest.mark.parametrize("error", [TimedOutError("late"), StackUnavailableError("gone")])
async def test_a_caller_waits_while_the_controller_is_away(
    controller: Controller, client: Client, error: TrunklineError
) -> None:
    controller.answer = error
    status, _, body = await client.post("/twilio/voice", FORM, query="m=1")
    assert status == 200
    assert b'<Pause length="1"/><Redirect method="POST">https://line.example.com/' in body
    assert b"?m=1&amp;waited=1#rc=3" in body


async def test_a_status_callback(controller: Controller, client: Client) -> None:
    controller.answer = m.Done()
    form = {**FORM, "CallStatus": "busy"}
    assert await client.post("/twilio/status", form, query="r=7") == (204, {}, b"")
    assert controller.asked == [m.StatusCallback(form=form, query={"r": "7"})]
    controller.answer = TimedOutError("late")
    assert (await client.post("/twilio/status", form))[0] == 503


async def test_a_json_callback(controller: Controller, client: Client) -> None:
    controller.answer = m.Done()
    body = json.dumps({**FORM, "n": 5}).encode()
    query = "bodySHA256=" + hashlib.sha256(body).hexdigest()
    headers = {
        "content-type": "application/json; charset=utf-8",
        "x-twilio-signature": sign(f"{BASE}/twilio/status?{query}"),
    }
    found = await client.request("POST", "/twilio/status", query=query, body=body, headers=headers)
    assert found[0] == 204
    asked = controller.asked[0]
    assert isinstance(asked, m.StatusCallback)
    assert asked.form == FORM
    found = await client.request(
        "POST", "/twilio/status", query=query, body=body + b" ", headers=headers
    )
    assert found[0] == 403


async def test_a_signed_webhook_that_is_cut_elsewhere_is_forbidden(
    controller: Controller, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """The signature covers names and values without what stands between them: it still holds."""
    cut = {name: value for name, value in FORM.items() if name != "CallStatus"}
    cut["CallSid"] += "CallStatusringing"
    url = f"{BASE}/twilio/voice"
    assert sign(url, cut) == sign(url, FORM)
    status, _, answer = await client.post("/twilio/voice", cut)
    assert (status, answer) == (403, b"forbidden")
    assert controller.asked == []
    assert client.authenticator.objections == {"odd fields": 1}
    assert "POST /twilio/voice (CallSid is not written as Twilio writes it)" in caplog.text
    assert FORM["CallSid"] not in caplog.text


async def test_everything_else_is_404(client: Client) -> None:
    for path in (
        "/",
        "/twilio",
        "/twilio/voice/",
        "/twilio/stream",
        "/metrics",
        "/docs",
        "/health",
    ):
        for method in ("GET", "POST"):
            assert (await client.request(method, path))[0] == 404
    assert (await client.request("GET", "/twilio/voice"))[0] == 405
    assert (await client.request("GET", "/twilio/status"))[0] == 405
    assert (await client.request("POST", "/healthz"))[0] == 405


async def test_health_names_the_stack(client: Client) -> None:
    status, headers, body = await client.request("GET", "/healthz")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == {"ok": True, "stack": "stack-1"}
    assert (await client.request("HEAD", "/healthz"))[0] == 200
    client.stack = None
    assert json.loads((await client.request("GET", "/healthz"))[2]) == {"ok": False, "stack": None}


async def test_bodies_are_bounded(controller: Controller, client: Client) -> None:
    form = {"a": "x" * (gateway_app.MAX_BODY_BYTES + 1)}
    assert (await client.post("/twilio/voice", form, pieces=20))[0] == 413
    assert controller.asked == []


async def test_waiting_requests_are_bounded(
    controller: Controller, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_app, "MAX_ASKING", 0)
    _, _, body = await client.post("/twilio/voice", FORM)
    assert b"<Pause" in body
    monkeypatch.setattr(gateway_app, "MAX_READING", 0)
    assert (await client.post("/twilio/voice", FORM))[0] == 503
    assert controller.asked == []
