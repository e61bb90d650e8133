"""Twilio's signatures of webhooks and WebSocket upgrades (usage/webhooks/webhooks-security).

What is signed is the URL that Twilio was given, not the one that a server behind a proxy or tunnel
sees: the configured public URL, then the request's own path and raw query. The HMAC itself is
``twilio.request_validator``'s; what is around it there is not used, because it knows port 80 but
not 443 for ``wss``, cuts IPv6 hosts at a colon, takes a dict's one value of a repeated field, and
iterates over a JSON body without ``bodySHA256``.

Everything here fails closed: what cannot be read is not signed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from urllib.parse import parse_qs, parse_qsl, urlsplit

from twilio.request_validator import RequestValidator

HEADER = b"x-twilio-signature"
#: A webhook of Twilio has some 40 fields.
MAX_FIELDS = 500

_DEFAULT_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}


class Form:
    """The fields of a form, in order, with blank and repeated values."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    @classmethod
    def parse(cls, body: bytes) -> Form:
        """Read ``application/x-www-form-urlencoded``. ValueError: not readable, too many fields."""
        return cls(
            parse_qsl(
                body.decode("utf-8"),
                keep_blank_values=True,
                encoding="utf-8",
                errors="strict",
                max_num_fields=MAX_FIELDS,
            )
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def getlist(self, name: str) -> list[str]:
        return self._values[name]

    def first(self) -> dict[str, str]:
        """The first value of each field."""
        return {name: values[0] for name, values in self._values.items()}


def stream_base(public_url: str) -> str:
    """``public_url`` with its scheme as a WebSocket's: https to wss, http to ws."""
    if public_url.startswith("https://"):
        return "wss://" + public_url.removeprefix("https://")
    return "ws://" + public_url.removeprefix("http://")


def url_forms(url: str) -> list[str]:
    """``url``, and the same with (or without) the default port of its scheme: Twilio's servers
    sign either. Raises ValueError for a URL that cannot be read."""
    parts = urlsplit(url)
    default = _DEFAULT_PORTS.get(parts.scheme)
    if default is None or not parts.hostname:
        raise ValueError("the public URL has no scheme or host")
    if parts.port is None:
        other = parts._replace(netloc=f"{parts.netloc.rstrip(':')}:{default}")
    elif parts.port == default:
        other = parts._replace(netloc=parts.netloc.rpartition(":")[0])
    else:
        return [url]
    return [url, url.replace(parts.netloc, other.netloc, 1)]


class SignatureCheck:
    """Checks against one auth token. ``token`` never appears in a repr or an error."""

    def __init__(self, token: str) -> None:
        self._validator = RequestValidator(token)

    def __repr__(self) -> str:
        return "SignatureCheck(token=***)"

    def _matches(self, url: str, fields: Form | None, signature: bytes | None) -> bool:
        if not signature:
            return False
        found = False
        try:
            for form in url_forms(url):
                expected: str = self._validator.compute_signature(form, fields)
                found |= hmac.compare_digest(expected.encode(), signature)
        except ValueError:  # an unreadable URL, or text that has no UTF-8 form
            return False
        return found

    def form(
        self, public_url: str, path: str, query: str, fields: Form, signature: bytes | None
    ) -> bool:
        """A form POST to ``path`` (which begins with a slash) with the raw ``query``."""
        return self._matches(_join(public_url, path, query), fields, signature)

    def json(
        self, public_url: str, path: str, query: str, body: bytes, signature: bytes | None
    ) -> bool:
        """A JSON POST: the URL is signed, and its ``bodySHA256`` is the body's."""
        digests = parse_qs(query).get("bodySHA256", [])
        if len(digests) != 1:
            return False
        digest = hashlib.sha256(body).hexdigest().encode()
        right_body = hmac.compare_digest(digest, digests[0].lower().encode())
        return self._matches(_join(public_url, path, query), None, signature) and right_body

    def upgrade(self, public_url: str, path: str, query: str, signature: bytes | None) -> bool:
        """A WebSocket upgrade: signed over the wss URL as the TwiML has it, with no fields."""
        return self._matches(_join(stream_base(public_url), path, query), None, signature)


def _join(base: str, path: str, query: str) -> str:
    return base.rstrip("/") + path + (f"?{query}" if query else "")
