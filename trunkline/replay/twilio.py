"""A stand-in for Twilio's REST during a replay. Its account has one number, and one call.

The replay's stack sends its REST requests here. Each request that changes something is written down
in the cassette of the run, and counted for the call's player.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trunkline.bus import hosts
from trunkline.bus.clock import monotonic
from trunkline.bus.listener import Bounds, Server
from trunkline.gateway.signature import Form

from .call import Asked, CallPlayer, Lines
from .cassette import Exchange

_BOUNDS: Final = Bounds(waiting=64, request_bytes=64 * 1024, request_within=10.0, leave_within=0.2)
_NUMBER_SID: Final = "PN" + "1" * 32
#: Parameter of a request -> the field of a number that it writes.
_FIELDS: Final = {
    "VoiceUrl": "voice_url",
    "VoiceMethod": "voice_method",
    "VoiceFallbackUrl": "voice_fallback_url",
    "VoiceFallbackMethod": "voice_fallback_method",
    "StatusCallback": "status_callback",
    "StatusCallbackMethod": "status_callback_method",
}


class Twilio:
    """``account``: its SID. ``number``: the account's only number. ``call``: the SID of the call
    that is played."""

    def __init__(self, account: str, number: str, call: str, lines: Lines, asked: Asked) -> None:
        self._account = account
        self._sid = call
        self._lines = lines
        self._asked = asked
        self._number: dict[str, Any] = {
            "sid": _NUMBER_SID,
            "account_sid": account,
            "phone_number": number,
            "friendly_name": "replay",
            "voice_url": "",
            "voice_method": "POST",
            "voice_fallback_url": "",
            "voice_fallback_method": "POST",
            "status_callback": "",
            "status_callback_method": "POST",
            "voice_application_sid": None,
            "trunk_sid": None,
            "voice_receive_mode": "voice",
            "capabilities": {"voice": True, "sms": False, "mms": False, "fax": False},
        }
        self._call: dict[str, Any] = {"sid": call, "status": "in-progress", "direction": "inbound"}
        self._streams = 0
        #: set once the stack has placed the call
        self.created = asyncio.Event()
        #: plays the call; set before the first request comes
        self.player: CallPlayer | None = None

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Listen on a free port of this machine during the block; yields the base URL."""
        base = "/2010-04-01/Accounts/{account}"
        call = base + "/Calls/{sid}"
        app = Starlette(
            routes=[
                Route(base + ".json", self._account_of),
                Route(base + "/IncomingPhoneNumbers.json", self._numbers),
                Route(
                    base + "/IncomingPhoneNumbers/{sid}.json",
                    self._one_number,
                    methods=["GET", "POST"],
                ),
                Route(base + "/Calls.json", self._calls, methods=["GET", "POST"]),
                Route(call + ".json", self._one_call, methods=["GET", "POST"]),
                Route(call + "/Streams.json", self._stream, methods=["POST"]),
                Route(call + "/Streams/{stream}.json", self._stream, methods=["POST"]),
            ]
        )
        listening = hosts.listen("127.0.0.1", 0)
        server = Server(app, _BOUNDS)
        serving = asyncio.create_task(server.serve([listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.leave()
            await serving

    # ------------------------------------------------------------------ the account

    async def _account_of(self, request: Request) -> Response:
        return JSONResponse({"sid": self._account, "status": "active", "type": "Full"})

    async def _numbers(self, request: Request) -> Response:
        wanted = request.query_params.get("PhoneNumber", "").lstrip("+")
        found = [self._number] if wanted in self._number["phone_number"] else []
        return _page(request, "incoming_phone_numbers", found)

    async def _one_number(self, request: Request) -> Response:
        if request.method == "POST":
            form = await _form(request)
            changed = {_FIELDS[name]: value for name, value in form.items() if name in _FIELDS}
            self._number |= changed
            if "/twilio/voice" in str(changed.get("voice_url")):
                self._lines.voice_url = str(changed["voice_url"])
        return JSONResponse(self._number)

    # ------------------------------------------------------------------ the call

    async def _calls(self, request: Request) -> Response:
        if request.method == "GET":
            return _page(request, "calls", [self._call] if self.created.is_set() else [])
        form = await _form(request)
        self._call |= {"direction": "outbound-api", "status": "queued"}
        self._call |= {"to": form["To"], "from": form["From"]}
        self._lines.status_url = form.get("StatusCallback", "") or None
        self._lines.answered(form.get("Twiml", ""))
        self.created.set()
        return self._told(request, form, 201)

    async def _one_call(self, request: Request) -> Response:
        if request.method == "GET":
            return JSONResponse(self._shown())
        form = await _form(request)
        if form.get("Status"):
            self._call["status"] = "completed"
        if form.get("Twiml"):
            self._lines.answered(form["Twiml"])
        return self._told(request, form, 200)

    async def _stream(self, request: Request) -> Response:
        form = await _form(request)
        if "Url" in form:
            self._streams += 1
            names = [name for name in form if name.endswith(".Name")]
            given = {form[n]: form.get(n[:-4] + "Value", "") for n in names}
            self._lines.started.append((form["Url"], given))
        sid = f"MZ{self._streams:032x}"
        answer = {"sid": sid, "call_sid": self._sid, "account_sid": self._account}
        return self._told(request, form, 201, answer | {"status": "in-progress"})

    def _told(
        self,
        request: Request,
        form: dict[str, str],
        status: int,
        answer: dict[str, Any] | None = None,
    ) -> Response:
        """Write down a request that changed something, count it, and answer it."""
        assert self.player is not None
        now = self.player.now
        at = monotonic() - self.player.began
        made = Exchange(at, request.url.path, dict(form), status=status)
        made.answer = self._shown() if answer is None else answer
        now.rest.append(made)
        self._asked.add()
        return JSONResponse(made.answer, status)

    def _shown(self) -> dict[str, Any]:
        when = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S +0000")
        return {"account_sid": self._account, "date_created": when} | self._call


async def _form(request: Request) -> dict[str, str]:
    return Form.parse(await request.body()).first()


def _page(request: Request, key: str, rows: list[dict[str, Any]]) -> Response:
    return JSONResponse(
        {
            key: rows,
            "page": 0,
            "page_size": 50,
            "start": 0,
            "end": max(0, len(rows) - 1),
            "uri": request.url.path,
            "first_page_uri": request.url.path,
            "next_page_uri": None,
            "previous_page_uri": None,
        }
    )
