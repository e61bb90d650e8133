"""One HTTP GET off the event loop, for checks: what the network does is an answer, not an error."""

from __future__ import annotations

import asyncio
import base64
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

from trunkline.bus.clock import monotonic

#: Seconds for one request.
HTTP_WITHIN: Final = 10.0
_LONGEST_BODY: Final = 100_000


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; ``status`` 0: there was none, and ``body`` says why."""

    status: int
    body: bytes
    date: str | None
    seconds: float


def _get(url: str, headers: dict[str, str]) -> Answer:
    began = monotonic()

    def passed() -> float:
        return monotonic() - began

    try:
        request = _request(url, headers)
        with urllib.request.urlopen(request, timeout=HTTP_WITHIN) as answer:
            body = answer.read(_LONGEST_BODY)
            return Answer(answer.status, body, answer.headers.get("Date"), passed())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(
                error.code, error.read(_LONGEST_BODY), error.headers.get("Date"), passed()
            )
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return Answer(0, str(reason).encode(), None, passed())


def _request(url: str, headers: dict[str, str]) -> urllib.request.Request:
    """A request with the URL's user-info in a header: urllib takes it for a part of the host."""
    parts = urlsplit(url)
    if parts.username is not None:
        user_info = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        basic = base64.b64encode(user_info.encode()).decode()
        headers = {"Authorization": f"Basic {basic}"} | headers
        url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return urllib.request.Request(url, headers=headers)


async def get(url: str, headers: dict[str, str] | None = None) -> Answer:
    """GET in a thread; never raises for what the network does."""
    return await asyncio.to_thread(_get, url, headers or {})
