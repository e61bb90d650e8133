"""One HTTP request on a connection of its own, with the timeouts of a webhook."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

import httptools
import msgspec

#: Longest body that is read.
MAX_BODY: Final = 4 * 1024 * 1024


class NotReached(Exception):
    """No answer: ``stage`` is connect (ct in connection overrides), read (rt) or host."""

    def __init__(self, stage: str, text: str) -> None:
        super().__init__(text)
        self.stage = stage


class Answer(msgspec.Struct, frozen=True):
    """Status, headers in lower case, body."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Reader:
    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


async def request(
    method: str,
    url: str,
    headers: list[tuple[str, str]],
    *,
    body: bytes,
    connect_timeout: float,
    read_timeout: float,
    tls: Callable[[], Awaitable[ssl.SSLContext]],
) -> Answer:
    """Send a request and read its whole answer. The URL's fragment is not sent. ``tls`` says whom
    to trust, and is asked for https alone. Raises NotReached."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host = parts.hostname or ""
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    context = await tls() if secure else None
    try:
        async with asyncio.timeout(connect_timeout):
            reader, writer = await asyncio.open_connection(
                host, parts.port or (443 if secure else 80), ssl=context
            )
    except TimeoutError:
        raise NotReached("connect", f"no connection to {host} in {connect_timeout:g} s") from None
    except socket.gaierror as e:
        raise NotReached("host", f"host name {host}: {e.strerror}") from None
    except OSError as e:
        at = parts.netloc.rpartition("@")[2]
        raise NotReached("connect", f"connection to {at}: {e}") from None
    try:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc.rpartition('@')[2]}"]
        lines += [f"{name}: {value}" for name, value in headers]
        lines += [f"Content-Length: {len(body)}", "Connection: close"]
        writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        async with asyncio.timeout(read_timeout):
            return await _read(reader)
    except TimeoutError:
        raise NotReached("read", f"no answer from {url} in {read_timeout:g} s") from None
    except (OSError, httptools.HttpParserError) as e:
        raise NotReached("read", f"answer of {url}: {e or type(e).__name__}") from None
    finally:
        writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> Answer:
    state = _Reader()
    parser = httptools.HttpResponseParser(state)
    while not state.complete and len(state.body) <= MAX_BODY:
        data = await reader.read(65536)
        if not data:
            # A body without a length ends with the connection.
            if parser.get_status_code() and "content-length" not in state.headers:
                break
            raise ConnectionResetError("connection closed before the answer was complete")
        parser.feed_data(data)
    return Answer(parser.get_status_code(), state.headers, bytes(state.body))
