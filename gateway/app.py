"""The HTTP side: Twilio's webhooks and the health check, as a Starlette application.

``POST /twilio/voice`` and ``POST /twilio/status`` are checked by signature before anything else is
made of them, and then by :mod:`.twilio_forms`, because a signature alone does not say where one
field ends; then the controller is asked, and its answer rendered. When it does not answer in
time the caller hears a second of silence and Twilio asks again. ``GET /healthz`` names the stack.
All else is 404; the paths are served under the public URL's own path too, because a proxy may pass
that on. Bodies, waiting requests and times are bounded. Numbers are logged by their last digits,
URLs without password and values, tokens never.

Media Streams never come this way: :mod:`.websocket` takes their connections from uvicorn before
Starlette sees them. :class:`~.authenticator.Authenticator` judges their upgrades too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from trunkline.bus import messages as m
from trunkline.bus.errors import TrunklineError
from trunkline.bus.redact import redact_number
from trunkline.bus.twilio_urls import HEALTH_PATH, STATUS_PATH, VOICE_PATH

from . import signature, twilio_forms, twiml
from .authenticator import Authenticator

log = logging.getLogger("trunkline.gateway")

_SERVED: Final = frozenset((VOICE_PATH, STATUS_PATH, HEALTH_PATH))

MAX_BODY_BYTES: Final = 64 * 1024
#: Seconds for the body to arrive.
BODY_WITHIN: Final = 5.0
#: Seconds for the controller to answer; Twilio waits 15 s for us.
ANSWER_WITHIN: Final = 2.5
#: Requests whose body is being read, and signed requests that wait for the controller.
MAX_READING: Final = 200
MAX_ASKING: Final = 500

_T = TypeVar("_T")


class Ask(Protocol):
    """``ControlClient.request``."""

    async def __call__(
        self, body: m.RequestBody, expect: type[_T], *, timeout: float | None = None
    ) -> _T: ...


@dataclass
class _Webhook:
    """A webhook whose signature is right."""

    form: dict[str, str]
    query: dict[str, str]
    raw_query: str
    public_url: str


class GatewayApp:
    """The ASGI application. An :class:`HTTPException` anywhere in it is the request's answer.

    ``stack``: the stack's id, None until a controller has been heard. ``ready``: a controller
    answers now.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        ask: Ask,
        *,
        stack: Callable[[], str | None],
        ready: Callable[[], bool],
    ) -> None:
        self._authenticator = authenticator
        self._ask_controller = ask
        self._stack = stack
        self._ready = ready
        self._reading = 0
        #: how long each request that waits for the controller may go on waiting
        self._asking: set[asyncio.Timeout] = set()
        self._leaving = False
        self._routes = Starlette(
            routes=[
                Route(VOICE_PATH, self._voice, methods=["POST"]),
                Route(STATUS_PATH, self._status, methods=["POST"]),
                Route(HEALTH_PATH, self._health),
            ]
        )
        # All else is 404: "/twilio/voice/" is not redirected to "/twilio/voice".
        self._routes.router.redirect_slashes = False

    def leave(self) -> None:
        """The gateway ends: requests wait for the controller no longer, and are answered as when
        there is none (Twilio asks again, and another gateway answers)."""
        self._leaving = True
        for patience in self._asking:
            patience.reschedule(0.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["path"] = twiml.local_path(scope["path"], self._authenticator.public_url(), _SERVED)
        await self._routes(scope, receive, send)

    async def _health(self, request: Request) -> Response:
        body = msgspec.json.encode({"ok": self._ready(), "stack": self._stack()})
        return Response(body, media_type="application/json")

    # ------------------------------------------------------------------ reading a webhook

    async def _webhook(self, request: Request) -> _Webhook:
        """Read the body and check the signature; any doubt is 403."""
        body = await self._body(request)
        scope = request.scope
        path = scope["path"]
        raw_query = scope["query_string"].decode("latin-1")
        headers = dict(scope["headers"])
        is_json = headers.get(b"content-type", b"").split(b";")[0].strip() == b"application/json"
        public_url = self._authenticator.public_url()
        checked = public_url and signature.shown(public_url, path, raw_query)
        try:
            form = signature.Form([]) if is_json else signature.Form.parse(body)
            query = signature.Form.parse(scope["query_string"]).first()
        except ValueError:
            raise self._forbidden(path, "unreadable", checked) from None
        fields = form.first()
        number = fields.get("From")
        if public_url is None:
            raise self._forbidden(path, "no public URL", None, number)
        check = self._authenticator.check
        if check is not None:
            matches = partial(check.form, public_url, path, raw_query, form)
            if is_json:
                matches = partial(check.json, public_url, path, raw_query, body)
            why = signature.objection(
                headers.get(signature.HEADER), headers.get(signature.SETTINGS_HEADER), matches
            )
            if why is not None:
                self._authenticator.refused_voice(fields.get("To") if path == VOICE_PATH else None)
                raise self._forbidden(path, why, checked, number)
        if is_json:
            form = _flat_json(body)
            fields = form.first()
        fault = twilio_forms.fault(form, self._authenticator.account())
        if fault is not None:
            raise self._forbidden(f"{path} ({fault})", "odd fields", checked, number)
        return _Webhook(fields, query, raw_query, public_url)

    async def _body(self, request: Request) -> bytes:
        """The request's body, within the bounds of its size, its time, and of how many are read."""
        if self._reading >= MAX_READING:
            raise HTTPException(503, "busy", {"retry-after": "1"})
        self._reading += 1
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_WITHIN), aclosing(request.stream()) as pieces:
                async for piece in pieces:
                    body += piece
                    if len(body) > MAX_BODY_BYTES:
                        raise HTTPException(413, "too large", {"connection": "close"})
        except TimeoutError:
            raise HTTPException(408, "too slow", {"connection": "close"}) from None
        except ClientDisconnect:
            raise HTTPException(400, "") from None  # nobody is there to read it
        finally:
            self._reading -= 1
        return bytes(body)

    def _forbidden(
        self, path: str, why: signature.Reason, checked: str | None, number: str | None = None
    ) -> HTTPException:
        self._authenticator.forbidden(f"POST {path}", why, checked, number)
        return HTTPException(403, "forbidden")

    # ------------------------------------------------------------------ asking the controller

    async def _voice(self, request: Request) -> Response:
        hook = await self._webhook(request)
        number = redact_number(hook.form.get("From"))
        answer = await self._ask(m.VoiceWebhook(form=hook.form, query=hook.query), m.VoiceAnswer)
        if answer is None:
            document = twiml.pause(hook.public_url, hook.raw_query)
        else:
            if answer.kind in ("reject", "busy"):
                log.info("a call from %s was answered with %s", number, answer.kind)
            document = twiml.render(answer, hook.public_url, hook.raw_query)
        return Response(document, media_type="application/xml")

    async def _status(self, request: Request) -> Response:
        hook = await self._webhook(request)
        done = await self._ask(m.StatusCallback(form=hook.form, query=hook.query), m.Done)
        if done is None:  # Twilio asks again: the URL's connection overrides say so
            raise HTTPException(503, "try again", {"retry-after": "1"})
        return Response(status_code=204)

    async def _ask(self, body: m.RequestBody, expect: type[_T]) -> _T | None:
        """The controller's answer; None when there is none in time."""
        if len(self._asking) >= MAX_ASKING:
            return None
        patience = asyncio.timeout(0.0 if self._leaving else None)
        self._asking.add(patience)
        try:
            async with patience:
                return await self._ask_controller(body, expect, timeout=ANSWER_WITHIN)
        except (TrunklineError, TimeoutError) as error:
            why = error if isinstance(error, TrunklineError) else "this gateway ends"
            log.warning("the controller did not answer %s: %s", type(body).__name__, why)
            return None
        finally:
            self._asking.discard(patience)


def _flat_json(body: bytes) -> signature.Form:
    """The top-level fields of a signed JSON body that are text."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise HTTPException(400, "not JSON") from None
    if not isinstance(found, dict):
        raise HTTPException(400, "not a JSON object")
    return signature.Form([(n, value) for n, value in found.items() if isinstance(value, str)])
