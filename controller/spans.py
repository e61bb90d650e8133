"""Spans of the controller: one for each traced request, from when it came until it is answered.

A test that is traced sends the context of its span with each request (W3C Trace Context's
``traceparent``). So its trace shows how much of, say, ``place_call`` was spent here and at Twilio::

    trunkline.controller.Dial  1.9 s   trunkline.client=a1, trunkline.call_sid=CA…
"""

from __future__ import annotations

from typing import Final

from trunkline.bus import messages as m
from trunkline.bus import tracing

#: Traced requests that are not answered yet. A client that dies leaves some that never will be; of
#: more than these the oldest is ended as "never answered".
MOST: Final = 1000


class Spans:
    """The spans of the requests to one stack. :mod:`.shell` begins and ends them; the core, which
    has no I/O, knows nothing of traces."""

    def __init__(self, stack: str) -> None:
        self._stack = stack
        self._begun: dict[tuple[str, int], tracing.RoomSpan] = {}

    def begin(self, request: m.Request) -> None:
        """The request has come. A client that lost its connection asks again under the same number,
        and that is the same span."""
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
