"""The mark: a voice_url that describes its own override, so that any machine can undo it.

``<public>/twilio/voice?o=<override id>&s=<stack id>&p=<prior>``: ``p`` holds the number's fields
from before, compressed, encrypted and authenticated (AES-256-GCM) under a key from the account's
auth token, bound to override, stack and number. A prior URL may hold a password, and tunnels log
URLs, so it never stands there in the clear; and nobody without the token can make us write
anything to a number.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import zlib
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from trunkline.bus.errors import InvalidRequestError
from trunkline.bus.redact import redact_number

VOICE_PATH: Final = "/twilio/voice"
#: Connection overrides (TD usage/webhooks/webhooks-connection-overrides): three retries, on any
#: failure. They stand in the fragment, which Twilio neither sends nor signs.
OVERRIDES: Final = "#rc=3&rp=all"
#: Longer URLs are refused by Twilio; its documents name no number, 2,000 has been seen to work.
LONGEST_URL: Final = 2000
_NONCE_BYTES: Final = 12
#: Decompressed priors are bounded: what they hold is nine short fields.
_LONGEST_PRIOR: Final = 65_536


@dataclass(frozen=True)
class Mark:
    """What a marked voice_url says in the clear. ``base``: the public URL of the stack."""

    base: str = field(repr=False)
    override: str
    stack: str
    sealed: str


class MarkKeys:
    """Seals with TWILIO_AUTH_TOKEN, and opens what either token has sealed.

    A token is only a secret here: whether Twilio still takes it does not matter. So a mark that was
    sealed before a rotation can be read for as long as the former token is one of the two settings.
    """

    def __init__(self, auth_token: str, secondary: str = "") -> None:
        self._ciphers = [AESGCM(_key(token)) for token in (auth_token, secondary) if token]

    def voice_url(
        self, base: str, override: str, stack: str, number: str, prior: dict[str, str]
    ) -> str:
        """The URL to write. InvalidRequestError where it would be too long for Twilio."""
        packed = zlib.compress(msgspec.json.encode(prior), 9)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        bound = _bound(override, stack, number)
        sealed = nonce + self._ciphers[0].encrypt(nonce, packed, bound)
        query = urlencode({"o": override, "s": stack, "p": _text(sealed)})
        url = f"{base}{VOICE_PATH}?{query}{OVERRIDES}"
        if len(url) > LONGEST_URL:
            raise InvalidRequestError(
                f"number {redact_number(number)}: its present URLs are too long to be carried in "
                f"the override ({len(url)} characters of {LONGEST_URL} at most); shorten its "
                "voice_url or voice_fallback_url, or use a shorter TRUNKLINE_PUBLIC_URL"
            )
        return url

    def prior(self, mark: Mark, number: str) -> dict[str, str] | None:
        """The fields from before; None where the mark was not made with one of these tokens."""
        sealed = _bytes(mark.sealed)
        if sealed is None or len(sealed) <= _NONCE_BYTES:
            return None
        nonce, box = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        for cipher in self._ciphers:
            try:
                packed = cipher.decrypt(nonce, box, _bound(mark.override, mark.stack, number))
            except InvalidTag:
                continue
            plain = zlib.decompressobj().decompress(packed, _LONGEST_PRIOR)
            return msgspec.json.decode(plain, type=dict[str, str])
        return None


def read(url: str) -> Mark | None:
    """The mark in ``url``, or None where it has none."""
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
    except ValueError:
        return None
    if not parts.path.endswith(VOICE_PATH):
        return None
    found = [query.get(name, [""])[0] for name in ("o", "s", "p")]
    if not all(found):
        return None
    path = parts.path.removesuffix(VOICE_PATH)
    return Mark(f"{parts.scheme}://{parts.netloc}{path}", found[0], found[1], found[2])


def _key(token: str) -> bytes:
    return HKDF(SHA256(), 32, salt=b"trunkline mark", info=b"prior settings").derive(token.encode())


def _bound(override: str, stack: str, number: str) -> bytes:
    return f"{override} {stack} {number}".encode()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes | None:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
