"""The seal: a voice_url that describes its own override, so that any machine can undo it.

``<public>/twilio/voice?o=<override id>&s=<stack id>&p=<sealed>#rc=3&rp=all``

If the machine that wrote it never comes back, its journal is lost, but the number itself still says
what to put back: ``trunkline restore --account`` reads it from there. ``sealed`` holds the fields
that the override changed, as they were before, compressed, encrypted and authenticated
(AES-256-GCM) under a key from the account's auth token.

- Encrypted, because a prior URL may hold a password, and tunnels log the URLs that they carry.
- Authenticated, because whoever can set a voice_url could otherwise have us write what they like.
- Bound to override, stack and number, because a seal that was copied to another number must not
  put the first number's fields there.

Override and stack stand in the clear. A stack without the token sees at least whose number it is.

The journal keeps the prior fields in the clear, except for the passwords of their URLs: each of
these is sealed by the same keys, in its place (``https://me:trunkline-sealed.…@agent.example.com``).
Once an override is over its row has ``***`` there, because nobody needs the password any more.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from trunkline.bus.errors import InvalidRequestError, SettingsError
from trunkline.bus.redact import redact_number
from trunkline.bus.twilio_urls import (
    OVERRIDE_FIELD,
    PRIOR_FIELD,
    STACK_FIELD,
    VOICE_PATH,
    voice_url,
)

#: Longer URLs are refused by Twilio; its documents name no number, 2,000 has been seen to work.
LONGEST_URL: Final = 2000
_FIELDS: Final = (OVERRIDE_FIELD, STACK_FIELD, PRIOR_FIELD)
_NONCE_BYTES: Final = 12
#: Decompressed priors are bounded: nine fields in a URL of 2,000 characters. Who knows the token
#: could still seal a small box that unpacks to gigabytes.
_LONGEST_PRIOR: Final = 65_536
#: A password in a URL, which may have an @ in it: it goes to the last one before the host.
_PASSWORD: Final = re.compile(r"\A([A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@:]*:)([^\s/?#]*)@")
_SEALED: Final = "trunkline-sealed."
_DROPPED: Final = "***"


@dataclass(frozen=True)
class Seal:
    """The parts of a sealed voice_url that stand in the clear. ``base``: the stack's public URL."""

    base: str = field(repr=False)
    override: str
    stack: str
    sealed: str

    @classmethod
    def read(cls, url: str) -> Seal | None:
        """The seal in ``url``, or None where it has none.

        Nobody has opened it yet: it may be forged, or made with another token.
        """
        try:
            parts = urlsplit(url)
            query = parse_qs(parts.query)
        except ValueError:
            return None
        if not parts.path.endswith(VOICE_PATH):
            return None
        found = [query.get(name, [""])[0] for name in _FIELDS]
        if not all(found):
            return None
        base = f"{parts.scheme}://{parts.netloc}{parts.path.removesuffix(VOICE_PATH)}"
        return cls(base, *found)


class SealKeys:
    """Seals with the primary token; opens with the primary or the secondary one.

    A token is only a secret here: whether Twilio still takes it does not matter. So a seal that was
    made before a rotation can be read for as long as the former token is one of the two settings.
    """

    def __init__(self, auth_token: str, secondary: str = "") -> None:
        self._ciphers = [AESGCM(_key(token)) for token in (auth_token, secondary) if token]

    def voice_url(
        self, base: str, override: str, stack: str, number: str, prior: dict[str, str]
    ) -> str:
        """The URL to write. InvalidRequestError where it would be too long for Twilio.

        It is refused before anything is written: a seal that Twilio cut off could not be opened.
        """
        # Several fields often hold the same URL, so compression saves more than base64 costs.
        packed = zlib.compress(msgspec.json.encode(prior), 9)
        sealed = self._encrypt(packed, _bound(override, stack, number))
        query = zip(_FIELDS, (override, stack, sealed), strict=True)
        url = voice_url(base, urlencode(list(query)))
        if len(url) > LONGEST_URL:
            raise InvalidRequestError(
                f"number {redact_number(number)}: its present URLs are too long to be carried in "
                f"the override ({len(url)} characters of {LONGEST_URL} at most); shorten its "
                "voice_url or voice_fallback_url, or use a shorter TRUNKLINE_PUBLIC_URL"
            )
        return url

    def prior(self, seal: Seal, number: str) -> dict[str, str] | None:
        """The fields from before; None where the seal was not made with one of these tokens."""
        packed = self._decrypt(seal.sealed, _bound(seal.override, seal.stack, number))
        if packed is None:
            return None
        plain = zlib.decompressobj().decompress(packed, _LONGEST_PRIOR)
        return msgspec.json.decode(plain, type=dict[str, str])

    def hide(self, fields: dict[str, str], override: str) -> dict[str, str]:
        """The fields for the journal: the passwords of their URLs are sealed."""

        def seal(password: str) -> str:
            return _SEALED + self._encrypt(password.encode(), _journalled(override))

        return _with_passwords(fields, seal)

    def show(self, fields: dict[str, str], override: str) -> dict[str, str]:
        """The fields as they were before :meth:`hide`. SettingsError where the passwords were
        sealed with another token."""

        def unseal(password: str) -> str:
            if not password.startswith(_SEALED):
                return password  # of an earlier version's journal
            plain = self._decrypt(password.removeprefix(_SEALED), _journalled(override))
            if plain is None:
                raise SettingsError(
                    "the journal has its prior URL's password sealed with another auth token: set "
                    "TWILIO_AUTH_TOKEN_SECONDARY to that one"
                )
            return plain.decode()

        return _with_passwords(fields, unseal)

    def _encrypt(self, plain: bytes, bound: bytes) -> str:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _text(nonce + self._ciphers[0].encrypt(nonce, plain, bound))

    def _decrypt(self, text: str, bound: bytes) -> bytes | None:
        """None where neither token opens it, or nobody sealed it."""
        sealed = _bytes(text)
        if sealed is None or len(sealed) <= _NONCE_BYTES:
            return None
        nonce, box = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(nonce, box, bound)
            except InvalidTag:
                continue
        return None


def without_passwords(fields: dict[str, str]) -> dict[str, str]:
    """The fields of an override that is over."""
    return _with_passwords(fields, lambda password: _DROPPED)


def are_whole(fields: dict[str, str]) -> bool:
    """No password was dropped from the fields, so that they may be written."""
    return not any(f":{_DROPPED}@" in value for value in fields.values())


def _with_passwords(fields: dict[str, str], change: Callable[[str], str]) -> dict[str, str]:
    """The fields, with another password in each URL that has one."""
    return {
        name: _PASSWORD.sub(lambda found: f"{found[1]}{change(found[2])}@", value)
        for name, value in fields.items()
    }


def _key(token: str) -> bytes:
    """The account's token is a secret of its own kind: it is not used as a key as it is."""
    # The salt keeps the seal's first name: another salt could not open what numbers carry by now.
    return HKDF(SHA256(), 32, salt=b"trunkline mark", info=b"prior settings").derive(token.encode())


def _journalled(override: str) -> bytes:
    """The place that a password in the journal is bound to: it opens nowhere else."""
    return f"{override} journal".encode()


def _bound(override: str, stack: str, number: str) -> bytes:
    """The place that a seal is bound to: it opens nowhere else."""
    return f"{override} {stack} {number}".encode()


def _text(data: bytes) -> str:
    """For a URL's query."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes | None:
    """None: this is no base64, so nobody sealed it."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
