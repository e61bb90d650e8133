"""The webhooks: what is refused, what is asked, what is answered."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar
from urllib.parse import urlencode

import pytest

from trunkline.bus import messages as m
from trunkline.bus.errors import StackUnavailableError, TimedOutError, TrunklineError
from trunkline.bus.testing import until
from trunkline.gateway import app as gateway_app
from trunkline.gateway.app import GatewayApp
from trunkline.gateway.authenticator import Authenticator
from trunkline.gateway.refusals import Refusals
from trunkline.gateway.signature import SignatureCheck

from .stack import ACCOUNT, BASE, FORM, TOKEN, sign

_T = TypeVar("_T")


class Controller:
    """Answers as it was told to."""

    def __init__(self) -> None:
        self.asked: list[m.RequestBody] = []
        #: the stack that each request was for
        self.stacks: list[str] = []
        self.answer: m.ReplyBody | TrunklineError = m.VoiceAnswer(kind="busy")
        self.stands_still = False

    async def request(
        self,
        body: m.RequestBody,
        expect: type[_T],
        *,
        timeout: float | None = None,
        stack: str = "",
    ) -> _T:
        self.asked.append(body)
        self.stacks.append(stack)
        assert timeout == gateway_app.ANSWER_WITHIN
        if self.stands_still:
            await asyncio.Event().wait()
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
        self.stacks: list[str] | None = None
        self.takes_calls = True
        #: functions that are to be called later, and after how many seconds
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.refusals = Refusals(lambda seconds, call: self.later.append((seconds, call)))
        self.authenticator = Authenticator(
            check=SignatureCheck(TOKEN, secondary) if checked else None,
            public_url=lambda: self.public_url,
            refusals=self.refusals,
            account=lambda: ACCOUNT,
        )
        self.app = GatewayApp(
            self.authenticator,
            controller.request,
            stack=lambda: self.stack,
            stacks=lambda: self.stacks,
            ready=lambda: self.stack is not None,
            takes_calls=lambda: self.takes_calls,
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
        ends: bool = True,
        host: str = "127.0.0.1",
    ) -> tuple[int, dict[str, str], bytes]:
        """``ends``: the body is sent whole."""
        scope = {
            "type": "http",
            "client": (host, 50_000),
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(k.encode(), v.encode()) for k, v in (headers or {}).items()],
        }
        size = max(1, -(-len(body) // pieces))
        parts = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            if not parts:
                await asyncio.Event().wait()
            part = parts.pop(0)
            more = bool(parts) or not ends
            return {"type": "http.request", "body": part, "more_body": more}

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
    assert status == 403
    assert controller.asked == []
    assert client.refusals.counts.total() == 1
    kind = {"missing": "unsigned", "form": "unreadable"}.get(wrong, "wrong signature")
    url = BASE + path + ("?x=…" if wrong == "query" else "")
    assert answer.decode() == f"forbidden: {kind} (checked: {url})"
    assert f"(checked: {url}" in caplog.text
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


async def test_the_users_name_is_in_no_answer(controller: Controller) -> None:
    client = Client(controller, public_url="https://user:word@line.example.com/base")
    status, _, answer = await client.post("/twilio/voice", FORM, token="other")
    assert status == 403
    assert b"(checked: https://line.example.com/base/twilio/voice)" in answer


async def test_a_flood_of_strangers_does_not_flood_the_log(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(100):
        await client.post("/twilio/voice", FORM, token="x")
    assert len(caplog.records) == 1
    assert client.refusals.counts == {"wrong signature": 100}
    # Another kind has a line of its own.
    await client.request("POST", "/twilio/voice", body=b"From=%FF")
    assert len(caplog.records) == 2
    # The rest is told a minute later, and then the next minute begins.
    (seconds, tell), _ = client.later
    assert seconds == 60.0
    tell()
    assert "refused 99 more like it in 60 s; the last: POST" in caplog.records[2].getMessage()
    await client.post("/twilio/voice", FORM, token="x")
    assert len(caplog.records) == 3
    # After a minute without any, the first one is logged at once again.
    client.later[2][1]()
    client.later[3][1]()
    assert "refused 1 more" in caplog.records[3].getMessage()
    await client.post("/twilio/voice", FORM, token="x")
    assert len(caplog.records) == 5


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
    await client.post("/twilio/status", form, query="r=7&s=stack-2")
    assert controller.stacks == ["", "stack-2"]  # the stack that the URL names is asked
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
    assert (status, answer) == (403, f"forbidden: odd fields (checked: {url})".encode())
    assert controller.asked == []
    assert client.refusals.counts == {"odd fields": 1}
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
    assert client.refusals.counts == {"not found": 17}


async def test_health_names_the_stack(client: Client) -> None:
    status, headers, body = await client.request("GET", "/healthz")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == {"ok": True, "stack": "stack-1"}
    assert (await client.request("HEAD", "/healthz"))[0] == 200
    client.stack = None
    assert json.loads((await client.request("GET", "/healthz"))[2]) == {"ok": False, "stack": None}
    client.stack, client.stacks = "stack-1", ["stack-2"]
    said = json.loads((await client.request("GET", "/healthz"))[2])
    assert said == {"ok": True, "stack": "stack-1", "stacks": ["stack-2"]}


async def test_a_load_balancer_sees_by_the_status_whether_calls_may_come(client: Client) -> None:
    assert (await client.request("GET", "/healthz", query="ready"))[0] == 200
    client.takes_calls = False
    status, _, body = await client.request("GET", "/healthz", query="ready")
    assert (status, json.loads(body)) == (503, {"ok": True, "stack": "stack-1"})
    assert (await client.request("GET", "/healthz"))[0] == 200, "the process lives"


async def test_bodies_are_bounded(controller: Controller, client: Client) -> None:
    form = {"a": "x" * (gateway_app.MAX_BODY_BYTES + 1)}
    assert (await client.post("/twilio/voice", form, pieces=20))[0] == 413
    assert client.refusals.counts == {"too large": 1}
    assert controller.asked == []


async def test_half_a_body_costs_nobody_else_an_answer(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger sends as many half bodies as can be read at a time, and one more."""
    monkeypatch.setattr(gateway_app, "MAX_READING", 20)
    client = Client(controller)

    async def half() -> int:
        return (await client.request("POST", "/twilio/voice", body=b"a=b", ends=False))[0]

    halves = [asyncio.create_task(half()) for _ in range(20)]
    await asyncio.sleep(0)
    assert (await client.post("/twilio/voice", FORM, pieces=3))[0] == 200
    assert await halves[0] == 408
    assert client.refusals.counts == {"pushed out": 1}
    assert not any(one.done() for one in halves[1:])
    for one in halves[1:]:
        one.cancel()
    await asyncio.gather(*halves[1:], return_exceptions=True)


async def test_half_bodies_of_one_address_cost_no_other_address_its_place(client: Client) -> None:
    async def half(host: str) -> int:
        asked = client.request("POST", "/twilio/voice", body=b"a=b", ends=False, host=host)
        return (await asked)[0]

    share = gateway_app.MAX_READING_OF_ONE
    hosts = ["198.51.101.1", *["203.0.114.1"] * (share + 1)]
    other, oldest, *halves = (asyncio.create_task(half(host)) for host in hosts)
    assert await oldest == 408
    assert client.refusals.counts == {"pushed out": 1}
    assert not any(one.done() for one in (other, *halves))
    for one in (other, *halves):
        one.cancel()
    await asyncio.gather(other, *halves, return_exceptions=True)


async def test_half_a_body_has_its_time(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_app, "BODY_WITHIN", 0.01)
    assert (await client.request("POST", "/twilio/voice", body=b"a=b", ends=False))[0] == 408
    assert client.refusals.counts == {"too slow": 1}


async def test_a_call_that_is_turned_away_again_and_again_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = Client(Controller())
    caplog.set_level(logging.INFO, "trunkline.gateway")
    for _ in range(100):
        await client.post("/twilio/voice", FORM)
    ((after, tell),) = client.later
    assert after == 60.0
    tell()
    first, rest = caplog.messages
    assert first.startswith("answered with busy a call from ***")
    assert rest.startswith("answered with busy 99 more like it in 60 s; the last: a call from ***")
    assert not client.refusals.counts


async def test_a_call_that_is_asked_about_again_and_again_harms_no_other(
    controller: Controller, client: Client
) -> None:
    """Somebody sends a captured webhook again and again, and the controller stands still."""
    controller.stands_still = True
    replays = [
        asyncio.create_task(client.post("/twilio/voice", FORM))
        for _ in range(2 * gateway_app.MAX_ASKING)
    ]
    await until(lambda: len(controller.asked) == len(replays))
    other = asyncio.create_task(client.post("/twilio/voice", {**FORM, "CallSid": "CA" + "2" * 32}))
    await until(lambda: len(controller.asked) == len(replays) + 1)
    answered = [one for one in replays if one.done()]
    assert len(answered) == len(replays) - gateway_app.MAX_ASKING_OF_ONE
    assert all(b"<Pause" in one.result()[2] for one in answered)
    assert client.refusals.counts == {"asked too often": len(answered)}
    assert not other.done()
    client.app.leave()
    assert b"<Pause" in (await other)[2]


async def test_signed_requests_that_wait_are_bounded(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_app, "MAX_ASKING", 2)
    client = Client(controller)
    controller.stands_still = True
    calls = [
        asyncio.create_task(client.post("/twilio/voice", {**FORM, "CallSid": f"CA{n:032}"}))
        for n in range(3)
    ]
    assert b"<Pause" in (await calls[0])[2]
    assert not calls[1].done() and not calls[2].done()
    client.app.leave()
    await asyncio.gather(*calls)
    assert client.refusals.counts == {"asked too often": 1, "leaving": 2}
    late = await asyncio.wait_for(client.post("/twilio/voice", FORM), 1.0)
    assert b"<Pause" in late[2], "its connection had been there before"
