"""One HTTP GET off the event loop, for checks. A failure of the network does not raise: it is an
answer with the status 0."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import requests

from trunkline.bus.clock import monotonic
from trunkline.bus.http import Session, reason, through

#: Seconds for one request.
HTTP_WITHIN: Final = 10.0
_LONGEST_BODY: Final = 100_000


@dataclass(frozen=True)
class Answer:
    """An HTTP answer. ``status`` is 0 where there was none; then ``body`` says why. ``date`` is the
    Date header, and ``seconds`` how long the answer took."""

    status: int
    body: bytes
    date: str | None
    seconds: float


def _get(url: str, headers: dict[str, str]) -> Answer:
    began = monotonic()

    def passed() -> float:
        return monotonic() - began

    try:
        with (
            Session() as session,
            session.get(url, headers=headers, timeout=HTTP_WITHIN, stream=True) as answer,
        ):
            body = b""
            for part in answer.iter_content(_LONGEST_BODY):
                body = (body + part)[:_LONGEST_BODY]
                if len(body) == _LONGEST_BODY:
                    break
            return Answer(answer.status_code, body, answer.headers.get("Date"), passed())
    except (requests.RequestException, ValueError) as error:
        return Answer(0, f"{reason(error)}{through(url)}".encode(), None, passed())


async def get(url: str, headers: dict[str, str] | None = None) -> Answer:
    """GET ``url`` in a thread."""
    return await asyncio.to_thread(_get, url, headers or {})
