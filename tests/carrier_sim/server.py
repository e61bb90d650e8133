"""A customer's server, and the `twilio` package's client with its base replaced."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response as TwilioResponse
from twilio.rest import Client

from trunkline.carrier_sim.bots import BotSpec
from trunkline.carrier_sim.call import Call
from trunkline.carrier_sim.sim import CarrierSim

OURS = "+14155551234"
CALLER = "+14155550000"
CALLEE = "+14155557777"

XML = '<?xml version="1.0" encoding="UTF-8"?>'
REJECT = "<Response><Reject/></Response>"
HANGUP = "<Response><Hangup/></Response>"

#: TwiML, or a function of the form that gives an answer.
Page = str | Callable[[dict[str, str]], Response]


class RewritingHttpClient(TwilioHttpClient):
    """The package's own client, with Twilio's base replaced by the carrier's."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        assert self.session is not None
        self.session.trust_env = False  # no proxy of the environment
        self._base = base_url

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> TwilioResponse:
        return super().request(
            method, url.replace("https://api.twilio.com", self._base), *args, **kwargs
        )

    def close(self) -> None:
        assert self.session is not None
        self.session.close()


@contextlib.contextmanager
def twilio_client(sim: CarrierSim, token: str) -> Iterator[Client]:
    """The package's client, under this token."""
    http = RewritingHttpClient(sim.base_url)
    yield Client(sim.account_sid, token, http_client=http)
    http.close()


@dataclass
class Customer:
    """The server's answers, and the requests that it saw."""

    base: str = ""
    #: By path.
    pages: dict[str, Page] = field(default_factory=dict)
    posts: list[tuple[str, dict[str, str], dict[str, str]]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    upgrades: list[dict[str, str]] = field(default_factory=list)
    #: Serves the stream. The default echoes media until stop.
    on_stream: Callable[[Customer, WebSocket], Any] | None = None
    socket: WebSocket | None = None
    #: Called with the URL of each webhook as it came.
    saw_url: Callable[[str], object] = lambda url: None
    #: Seconds before a webhook is answered.
    delay: float = 0.0

    @property
    def stream_url(self) -> str:
        return self.base.replace("http", "ws", 1) + "/stream"

    def connect(self, after: str = "", parameters: str = "") -> str:
        """TwiML that connects our stream."""
        return (
            f'{XML}<Response><Connect><Stream url="{self.stream_url}">{parameters}</Stream>'
            f"</Connect>{after}</Response>"
        )

    async def post(self, request: Request) -> Response:
        form = {k: str(v) for k, v in (await _form(request)).items()}
        self.posts.append((request.url.path, form, dict(request.headers)))
        self.saw_url(str(request.url))
        await asyncio.sleep(self.delay)
        page = self.pages.get(request.url.path)
        if page is None:
            return Response("no page", status_code=404)
        if isinstance(page, str):
            return Response(page, media_type="application/xml")
        return page(form)

    async def stream(self, socket: WebSocket) -> None:
        self.upgrades.append(dict(socket.headers))
        await socket.accept()
        self.socket = socket
        with contextlib.suppress(WebSocketDisconnect):
            await (self.on_stream or echo)(self, socket)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [m for m in self.messages if m["event"] == name]

    async def receive(self, socket: WebSocket) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await socket.receive_text())
        self.messages.append(message)
        return message


async def _form(request: Request) -> dict[str, str]:
    text = (await request.body()).decode() if request.method == "POST" else request.url.query
    return dict(parse_qsl(text, keep_blank_values=True))


async def echo(customer: Customer, socket: WebSocket) -> None:
    """Sends every frame back."""
    while True:
        message = await customer.receive(socket)
        if message["event"] == "media":
            # The carrier may have closed already, with frames and `stop` still to be read.
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await socket.send_text(media(message["streamSid"], message["media"]["payload"]))
        elif message["event"] == "stop":
            return


async def listen(customer: Customer, socket: WebSocket) -> None:
    """Only takes note."""
    while (await customer.receive(socket))["event"] != "stop":
        pass


def media(stream_sid: str, payload: str) -> str:
    return json.dumps({"event": "media", "streamSid": stream_sid, "media": {"payload": payload}})


async def call_in(
    sim: CarrierSim,
    customer: Customer,
    page: Page = "",
    *,
    bot: Any = "silence",
    query: str = "",
    **fields: str,
) -> Call:
    """Somebody calls our number. Its voice_url (with this query and fragment) is answered with the
    page, or with one that connects our stream."""
    customer.pages["/voice"] = page or customer.connect()
    sim.add_number(OURS, voice_url=customer.base + "/voice" + query, **fields)
    return await sim.place_inbound_call(CALLER, OURS, bot)


async def refused(ask: Callable[[], Any]) -> tuple[int, int]:
    """The HTTP status and the error of a request that REST refuses."""
    with pytest.raises(TwilioRestException) as caught:
        await asyncio.to_thread(ask)
    return caught.value.status, int(caught.value.code)


async def callbacks(
    sim: CarrierSim, customer: Customer, twilio: Client, bot: BotSpec
) -> list[tuple[dict[str, str], str]]:
    """Form and signature of each status callback of a call to such a callee, in the order of the
    events. They may arrive in another (habit ``callback-order``)."""
    sim.add_number(OURS)
    sim.add_callee(CALLEE, bot)
    customer.pages["/status"] = ""
    call = await asyncio.to_thread(
        lambda: twilio.calls.create(
            to=CALLEE,
            from_=OURS,
            twiml="<Response><Pause/></Response>",
            status_callback=customer.base + "/status",
            status_callback_event=["initiated", "ringing", "answered", "completed"],
        )
    )
    await sim.wait_for(sim.calls[str(call.sid)])
    await sim.wait_until(lambda: not sim._tasks)
    found = [(form, headers["x-twilio-signature"]) for _, form, headers in customer.posts]
    return sorted(found, key=lambda callback: int(callback[0]["SequenceNumber"]))
