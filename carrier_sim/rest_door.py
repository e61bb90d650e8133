"""The way to REST through the fault rules: an answer, a late one, none, or a broken connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from .beliefs import Beliefs
from .faults import Fault, Faults
from .http_message import Request, Response
from .rest import Refused, RestApi, RestLogEntry, refusal

#: How long a request that is never answered is kept open.
HANG_SECONDS: Final = 60.0


class RestDoor:
    """Takes requests in, applies the faults, and keeps the log."""

    def __init__(
        self, rest: RestApi, faults: Faults, beliefs: Beliefs, clock: Callable[[], float]
    ) -> None:
        self._rest = rest
        self._faults = faults
        self._beliefs = beliefs
        self._clock = clock
        self.log: list[RestLogEntry] = []

    async def handle(self, request: Request) -> Response | None:
        """Answer one request. None: its connection is to be reset."""
        fault = self._faults.match("rest", request.method, request.target)
        if fault is None:
            return self._answer(request)
        kind = fault.kind
        if kind == "status":
            return self._refuse(request, fault)
        if kind == "latency":
            await asyncio.sleep(fault.seconds)
            return self._answer(request, kind)
        if kind in ("timeout_after", "reset_after"):
            self._answer(request, kind)
        else:
            self._note(request, 0, 0, kind)
        if kind in ("reset", "reset_after"):
            return None
        if kind == "late_effect":
            # The effect comes even if the client is gone by then.
            loop = asyncio.get_running_loop()
            loop.call_later(fault.seconds, lambda: self._answer(request, kind))
        wait = fault.seconds if kind.startswith("timeout") and fault.seconds else HANG_SECONDS
        await asyncio.sleep(wait)
        return None

    def _refuse(self, request: Request, fault: Fault) -> Response:
        code, text = 20500, "An internal server error has occurred"
        if fault.status == 429:
            code, text = 20429, "Too Many Requests"
            if not self._beliefs.hold("429-is-not-processed"):
                self._rest.handle(request, self._clock())
        self._note(request, fault.status, code, fault.kind)
        answer = refusal(Refused(fault.status, code, text))
        if fault.retry_after is None:
            return answer
        headers = (("Retry-After", f"{fault.retry_after:g}"),)
        return msgspec.structs.replace(answer, headers=headers)

    def _answer(self, request: Request, fault: str = "") -> Response:
        response = self._rest.handle(request, self._clock())
        failed = response.status >= 400
        code = int(msgspec.json.decode(response.body)["code"]) if failed else 0
        self._note(request, response.status, code, fault)
        return response

    def _note(self, request: Request, status: int, code: int, fault: str) -> None:
        self.log.append(
            RestLogEntry(
                time=self._clock(),
                method=request.method,
                path=request.path,
                query=request.query,
                form=request.form,
                status=status,
                code=code,
                fault=fault,
            )
        )
