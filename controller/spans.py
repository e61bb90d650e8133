"""Spans of the controller: one for each traced request, from when it came until it is answered."""

from __future__ import annotations

from typing import Final

from trunkline.bus import messages as m
from trunkline.bus import tracing

#: Traced requests that are not answered yet, as far as they are looked after.
MOST: Final = 1000


class Spans:
    """Those of the requests to one stack."""

    def __init__(self, stack: str) -> None:
        self._stack = stack
        self._begun: dict[tuple[str, int], tracing.RoomSpan] = {}

    def begin(self, request: m.Request) -> None:
        """The request has come, perhaps once more."""
        key = (request.peer, request.id)
        if key in self._begun:
            return
        name = f"trunkline.controller.{type(request.body).__name__}"
        what = {"trunkline.peer": self._stack, "trunkline.client": request.peer}
        span = tracing.begin(name, request.trace, what)
        if span is not None:
            self._begun[key] = span
        if len(self._begun) > MOST:
            self._begun.pop(next(iter(self._begun))).end(error="never answered")

    def end(self, peer: str, reply: m.Reply) -> None:
        """Its answer leaves: the span says what became of the request."""
        span = self._begun.pop((peer, reply.id), None)
        if span is not None:
            sid = reply.body.sid if isinstance(reply.body, m.Dialled) else None
            error = None if reply.error is None else reply.error.kind
            span.end({"trunkline.call_sid": sid}, error=error)
