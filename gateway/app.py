"""The HTTP side: Twilio's webhooks and the health check, as a Starlette application.

Webhooks come as ``POST /twilio/voice`` and ``POST /twilio/status``. First the signature is checked.
Then :mod:`.twilio_forms` checks the fields, because a signature alone does not say where one field
ends. Only then is the controller asked, and its answer rendered. When the controller does not
answer a voice webhook in time, the caller hears a second of silence and Twilio asks again.
``GET /healthz`` names the stack. All other paths are 404, and other methods 405. The paths are
served under the public URL's own path too, because a proxy may pass that on. Bodies, waiting
requests and times are bounded. The log shows only the last digits of a caller's number, and no
password, no value of a query field and no token.

Media Streams never come this way: :mod:`.websocket` takes their connections from uvicorn before
Starlette sees them. :class:`~.authenticator.Authenticator` judges their upgrades too.
"""

from __future__ import annotations

import asyncio
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

from trunkline.bus import hosts
from trunkline.bus import messages as m
from trunkline.bus.cassettes import Cassettes
from trunkline.bus.clock import monotonic
from trunkline.bus.errors import TrunklineError
from trunkline.bus.places import Places
from trunkline.bus.redact import redact_number
from trunkline.bus.refusals import Kind
from trunkline.bus.twilio_urls import CALL_FIELD, HEALTH_PATH, STACK_FIELD, STATUS_PATH, VOICE_PATH

from . import signature, twilio_forms, twiml
from .authenticator import Authenticator

_SERVED: Final = frozenset((VOICE_PATH, STATUS_PATH, HEALTH_PATH))

MAX_BODY_BYTES: Final = 64 * 1024
#: The body has to arrive within this many seconds.
BODY_WITHIN: Final = 5.0
#: The controller has to answer within this many seconds; Twilio waits 15 s for us.
ANSWER_WITHIN: Final = 2.5
#: Requests whose body is being read, in all and from one address; each may hold MAX_BODY_BYTES.
MAX_READING: Final = 500
MAX_READING_OF_ONE: Final = 125
#: Signed requests that wait for the controller, in all and of one call.
MAX_ASKING: Final = 500
MAX_ASKING_OF_ONE: Final = 8

_T = TypeVar("_T")


class Ask(Protocol):
    """``Fleet.request``."""

    async def __call__(
        self, body: m.RequestBody, expect: type[_T], *, timeout: float | None = None, stack: str
    ) -> _T: ...


@dataclass
class _Webhook:
    """A webhook whose signature and fields are right. It came at ``asked`` of the monotonic clock,
    and ``form`` and ``query`` have the first value of each field."""

    asked: float
    form: dict[str, str]
    query: dict[str, str]
    raw_query: str
    public_url: str


class GatewayApp:
    """The ASGI application. An :class:`HTTPException` anywhere in it is the request's answer.

    ``stack``: the stack's id, None until a controller has said it. ``stacks``: the ids of the
    stacks in the fleet whose controllers are connected, None without a fleet. ``ready``: a
    controller is heard, and has a codec worker that moves sound. ``takes_calls``: a load balancer
    may send calls here. ``cassettes`` gets each webhook with its answer.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        ask: Ask,
        *,
        stack: Callable[[], str | None],
        stacks: Callable[[], list[str] | None],
        ready: Callable[[], bool],
        takes_calls: Callable[[], bool],
        cassettes: Cassettes | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._ask_controller = ask
        self._stack = stack
        self._stacks = stacks
        self._ready = ready
        self._takes_calls = takes_calls
        self._cassettes = cassettes
        #: the timeout of each request whose body is being read. To push a request out, for a newer
        #: one, its timeout is made to expire
        self._reading: Places[asyncio.Timeout] = Places(MAX_READING, MAX_READING_OF_ONE)
        #: the timeout of each request that waits for the controller; a request's owner is its call
        self._asking: Places[asyncio.Timeout] = Places(MAX_ASKING, MAX_ASKING_OF_ONE)
        self._leaving = False
        self._routes = Starlette(
            routes=[
                Route(VOICE_PATH, self._voice, methods=["POST"]),
                Route(STATUS_PATH, self._status, methods=["POST"]),
                Route(HEALTH_PATH, self._health),
            ],
            exception_handlers={404: self._nothing_here, 405: self._nothing_here},
        )
        # All else is 404: "/twilio/voice/" is not redirected to "/twilio/voice".
        self._routes.router.redirect_slashes = False

    def leave(self) -> None:
        """The gateway ends: requests wait for the controller no longer, and are answered as if no
        controller were there. Twilio asks again, and another gateway answers."""
        self._leaving = True
        for patience in self._asking:
            _end(patience)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["path"] = twiml.local_path(scope["path"], self._authenticator.public_url(), _SERVED)
        await self._routes(scope, receive, send)

    async def _nothing_here(self, request: Request, error: Exception) -> Response:
        """Starlette found no route for the path, or only one for another method."""
        assert isinstance(error, HTTPException)
        self._authenticator.refusals.add("not found", "a request")
        return Response(error.detail, error.status_code, error.headers)

    async def _health(self, request: Request) -> Response:
        """Answer 200, whatever the state, to anybody who asks which stack this is. ``?ready`` is
        for a load balancer, which looks at the status alone: 503 where calls should go to another
        gateway."""
        stacks = self._stacks()
        said = {"ok": self._ready(), "stack": self._stack()}
        body = msgspec.json.encode(said if stacks is None else said | {"stacks": stacks})
        away = "ready" in request.query_params and not self._takes_calls()
        return Response(body, 503 if away else 200, media_type="application/json")

    # ------------------------------------------------------------------ reading a webhook

    async def _webhook(self, request: Request) -> _Webhook:
        """Read the webhook and check it. A doubt about its signature or its fields is 403, and JSON
        that cannot be read is 400."""
        asked = monotonic()
        body = await self._body(request)
        scope = request.scope
        path = scope["path"]
        raw_query = scope["query_string"].decode("latin-1")
        headers = dict(scope["headers"])
        is_json = headers.get(b"content-type", b"").split(b";")[0].strip() == b"application/json"
        public_url = self._authenticator.public_url()
        checked = None if public_url is None else (public_url, path, raw_query)
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
                if path == VOICE_PATH:
                    self._authenticator.refused_voice(why, fields.get("To"))
                raise self._forbidden(path, why, checked, number)
        if is_json:
            try:
                form = _flat_json(body)
            except ValueError as error:
                self._authenticator.refusals.add("unreadable", f"POST {path}", str(error))
                raise HTTPException(400, str(error)) from None
            fields = form.first()
        account, of_voice = self._authenticator.account(), path == VOICE_PATH
        fault = twilio_forms.fault(form, account, of_voice=of_voice)
        if fault is not None:
            if of_voice:
                self._authenticator.refused_voice("odd fields", fields.get("To"))
            raise self._forbidden(f"{path} ({fault})", "odd fields", checked, number)
        return _Webhook(asked, fields, query, raw_query, public_url)

    async def _body(self, request: Request) -> bytes:
        """The request's body. Its size, the time that it takes, and how many bodies are read at a
        time are bounded."""
        body = bytearray()
        patience = asyncio.timeout(BODY_WITHIN)
        owner = None if request.client is None else hosts.owner_of(request.client.host)
        _end(self._reading.enter(patience, owner))
        try:
            async with patience, aclosing(request.stream()) as pieces:
                async for piece in pieces:
                    body += piece
                    if len(body) > MAX_BODY_BYTES:
                        raise self._refused("too large", 413)
        except TimeoutError:
            here = patience in self._reading
            raise self._refused("too slow" if here else "pushed out", 408) from None
        except ClientDisconnect:
            raise HTTPException(400, "") from None  # nobody is there to read it
        finally:
            self._reading.leave(patience)
        return bytes(body)

    def _refused(self, kind: Kind, status: int) -> HTTPException:
        self._authenticator.refusals.add(kind, "a request")
        return HTTPException(status, kind, {"connection": "close"})

    def _forbidden(
        self,
        path: str,
        why: signature.Reason,
        checked: tuple[str, str, str] | None,
        number: str | None = None,
    ) -> HTTPException:
        body = self._authenticator.forbidden(f"POST {path}", why, checked, number)
        return HTTPException(403, body)

    # ------------------------------------------------------------------ asking the controller

    async def _voice(self, request: Request) -> Response:
        hook = await self._webhook(request)
        number = redact_number(hook.form.get("From"))
        asked = m.VoiceWebhook(form=hook.form, query=hook.query)
        answer = await self._ask(asked, m.VoiceAnswer)
        if answer is None:
            document = twiml.pause(hook.public_url, hook.raw_query)
        else:
            if answer.kind in ("reject", "busy"):
                self._authenticator.refusals.turned_away(answer.kind, number)
            document = twiml.render(answer, hook.public_url, hook.raw_query)
        self._keep(VOICE_PATH, hook, 200, document)
        return Response(document, media_type="application/xml")

    async def _status(self, request: Request) -> Response:
        hook = await self._webhook(request)
        done = await self._ask(m.StatusCallback(form=hook.form, query=hook.query), m.Done)
        self._keep(STATUS_PATH, hook, 503 if done is None else 204)
        if done is None:  # Twilio asks again: the URL's connection overrides say so
            raise HTTPException(503, "try again", {"retry-after": "1"})
        return Response(status_code=204)

    def _keep(self, path: str, hook: _Webhook, status: int, body: str = "") -> None:
        """Put a webhook and its answer into the call's cassette."""
        if self._cassettes is not None:
            rings = hook.form.get("CallStatus") in ("ringing", "queued")
            self._cassettes.webhook(
                path,
                hook.raw_query,
                hook.form,
                asked=hook.asked,
                status=status,
                body=body,
                begins=path == VOICE_PATH and rings and CALL_FIELD not in hook.query,
            )

    async def _ask(self, body: m.VoiceWebhook | m.StatusCallback, expect: type[_T]) -> _T | None:
        """The controller's answer. None: the controller cannot be asked or does not answer in time,
        newer requests took this one's place, or this gateway ends. All requests of one call share
        the places of that call. So a captured webhook that is sent again and again takes places
        from its own call only."""
        patience = asyncio.timeout(0.0 if self._leaving else None)
        _end(self._asking.enter(patience, body.form.get("CallSid")))
        what = type(body).__name__
        try:
            async with patience:
                stack = body.query.get(STACK_FIELD, "")
                return await self._ask_controller(body, expect, timeout=ANSWER_WITHIN, stack=stack)
        except TrunklineError as error:
            self._authenticator.refusals.add("nobody to ask", f"a {what}", str(error))
        except TimeoutError:
            kind: Kind = "leaving" if patience in self._asking else "asked too often"
            self._authenticator.refusals.add(kind, f"a {what}")
        finally:
            self._asking.leave(patience)
        return None


def _end(patience: asyncio.Timeout | None) -> None:
    """Let a request's time expire, unless it has expired by itself."""
    if patience is not None and not patience.expired():
        patience.reschedule(0.0)


def _flat_json(body: bytes) -> signature.Form:
    """The top-level fields of a JSON body that are text. ValueError: it is no JSON object."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return signature.Form([(n, value) for n, value in found.items() if isinstance(value, str)])
