"""Twilio's signatures of webhooks and WebSocket upgrades (usage/webhooks/webhooks-security).

Twilio signs the URL that it was given, and not the one that a server behind a proxy or tunnel sees:
the configured public URL, then the request's own path and raw query. It leaves the port and the
user-info of that URL out in some signatures and not in others, so every form is tried
(:func:`url_forms`), and so is each of the account's two auth tokens during a rotation.

The HMAC itself is ``twilio.request_validator``'s. The package's code around it is not used, because
it knows port 80 but not 443 for ``wss``, cuts ``user:password@host:8443`` and IPv6 hosts at their
first colon, and takes the characters of a JSON body without ``bodySHA256`` for fields.

Everything here fails closed: a request that cannot be read counts as not signed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator
from typing import Literal
from urllib.parse import parse_qs, parse_qsl, urlsplit

from twilio.request_validator import RequestValidator

from trunkline.bus.redact import mask_url
from trunkline.bus.twilio_urls import stream_base

HEADER = b"x-twilio-signature"
#: This header comes with a request that a shared key of the account has signed instead of the auth
#: token. It reads ``key=…,algorithm=HMAC_SHA256`` (usage/webhooks/webhook-shared-keys).
SETTINGS_HEADER = b"x-twilio-webhooks-signature-settings"
#: A form or query with more fields than this is not read. A webhook of Twilio's has some 40.
MAX_FIELDS = 500

_DEFAULT_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}

#: Why a request is refused; bus/refusals.py has the words for it.
Reason = Literal[
    "shared key", "unsigned", "wrong signature", "unreadable", "odd fields", "no public URL"
]

#: Names of query fields that a log may show; a stranger can send any.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}\Z")
_SHOWN_NAMES = 8


class Form:
    """The fields of a form, in order, with blank and repeated values. ``RequestValidator`` computes
    the signature of a form that has ``__iter__``, ``__len__`` and ``getlist``."""

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
        """All values of the field, [] where it is not there."""
        return self._values.get(name, [])

    def first(self) -> dict[str, str]:
        """The first value of each field."""
        return {name: values[0] for name, values in self._values.items()}


def url_forms(url: str) -> list[str]:
    """The texts that Twilio may have signed for ``url``: as it is given, with its own (or the
    default) port and without, each with its user-info and without. Raises ValueError for a URL
    that cannot be read.

    Twilio's documents (usage/security) say that https URLs lose port and user-info, while its
    servers have been seen to keep the port in some requests; the official validators try both.
    """
    parts = urlsplit(url)
    default = _DEFAULT_PORTS.get(parts.scheme)
    if default is None or not parts.hostname:
        raise ValueError("the public URL has no scheme or host")
    user_info, at, host = parts.netloc.rpartition("@")
    if parts.port is not None:
        host = host.rpartition(":")[0]
    host = host.rstrip(":")  # an empty port
    scheme, rest = _around(url, parts.netloc)
    forms = [url]
    for user in (user_info + at, ""):
        for place in (host, f"{host}:{parts.port or default}"):
            forms.append(scheme + user + place + rest)
    return list(dict.fromkeys(forms))


def without_user_info(url: str) -> str:
    """``url`` without a user name and password."""
    netloc = urlsplit(url).netloc
    scheme, rest = _around(url, netloc)
    return scheme + netloc.rpartition("@")[2] + rest


def _around(url: str, netloc: str) -> tuple[str, str]:
    """The parts of ``url`` before and behind its ``netloc``."""
    begin = url.index("://") + 3
    return url[:begin], url[begin + len(netloc) :]


def shown(public_url: str, path: str, query: str) -> str:
    """The URL that was checked, for a log: no password, and of the query only its names."""
    names = [pair.partition("=")[0] for pair in query.split("&")] if query else []
    plain = [name if _PLAIN_NAME.match(name) else "?" for name in names[:_SHOWN_NAMES]]
    more = ["…"] if len(names) > _SHOWN_NAMES else []
    return _join(mask_url(public_url) or "", path, "&".join([f"{n}=…" for n in plain] + more))


def is_shared_key(settings: bytes | None) -> bool:
    """Whether :data:`SETTINGS_HEADER` says that a shared key has signed the request: it names a
    key, or an algorithm that no auth token is used with."""
    named = {}
    for part in (settings or b"").decode("latin-1").split(","):
        name, _, value = part.partition("=")
        named[name.strip().lower()] = value.strip()
    algorithm = named.get("algorithm", "").upper() or "HMAC_SHA1"
    return bool(named.get("key")) or algorithm != "HMAC_SHA1"


def objection(
    signature: bytes | None, settings: bytes | None, matches: Callable[[bytes], bool]
) -> Reason | None:
    """Why a request with these two headers is refused, None where it is not. ``matches``: whether
    the signature is right."""
    if is_shared_key(settings):
        return "shared key"
    if not signature:
        return "unsigned"
    return None if matches(signature) else "wrong signature"


class SignatureCheck:
    """Checks against the account's auth token, or its two during a rotation. No token ever appears
    in a repr or an error."""

    def __init__(self, *tokens: str) -> None:
        self._validators = [RequestValidator(token) for token in tokens if token]
        if not self._validators:
            raise ValueError("a signature cannot be checked without an auth token")

    def __repr__(self) -> str:
        return "SignatureCheck(token=***)"

    @property
    def tried(self) -> str:
        """The forms and tokens that each request is tried with, for a log."""
        tokens = "the auth token" if len(self._validators) == 1 else "either auth token"
        return f"with and without port and user-info, under {tokens}"

    def _matches(self, url: str, fields: Form | None, signature: bytes | None) -> bool:
        if not signature:
            return False
        found = False
        try:
            for form in url_forms(url):
                for validator in self._validators:
                    expected: str = validator.compute_signature(form, fields)
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
        """A WebSocket upgrade: signed over the wss URL as the TwiML has it, with no fields.

        Servers of others also take a signature over that URL with a slash behind it, which Twilio's
        page on security is said to name (docs/beliefs.md, habit ``signed-upgrade``).
        """
        base = stream_base(public_url)
        return any(
            self._matches(_join(base, path + end, query), None, signature) for end in ("", "/")
        )


def _join(base: str, path: str, query: str) -> str:
    return base.rstrip("/") + path + (f"?{query}" if query else "")
