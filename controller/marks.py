"""The voice_url that we write: it says whose it is, and what stood there before.

``<public>/twilio/voice?o=<override id>&s=<stack id>&p=<prior settings>``. The prior settings are
compressed, encrypted and authenticated (Fernet: AES-128-CBC and HMAC-SHA256) under a key derived
from the account's auth token, because a prior URL may hold a password and tunnels log URLs. So any
machine that has the token, primary or secondary, can put the number back without our journal.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from trunkline.bus.errors import TrunklineError

VOICE_PATH = "/twilio/voice"
#: Longest voice_url that we write. Twilio documents no bound for it; 2,048 is what it names for
#: URLs elsewhere.
LONGEST_URL = 2_048
#: What a sealed mark may unpack to.
_LARGEST_PRIOR = 64 * 1024


class MarkTooLongError(TrunklineError, ValueError):
    """The prior settings do not fit into a URL that Twilio takes."""


class UnreadableMarkError(TrunklineError, ValueError):
    """The mark was sealed under another token, or is damaged: what stood before is not known."""


@dataclass(frozen=True)
class Mark:
    """One override of a number, as its voice_url tells it.

    ``prior``: the number's voice fields before, by Twilio's names; None values are kept.
    """

    override: str
    stack: str
    prior: dict[str, str | None]


@dataclass(frozen=True)
class MarkedUrl:
    """A voice_url of ours, before its seal is opened. ``base`` is the public URL that it uses."""

    base: str
    override: str
    stack: str
    sealed: str


def _key(auth_token: str) -> Fernet:
    derived = HKDF(SHA256(), 32, salt=b"trunkline mark", info=b"prior settings")
    return Fernet(base64.urlsafe_b64encode(derived.derive(auth_token.encode())))


class MarkSeal:
    """Writes marks under the first token, reads those of any."""

    def __init__(self, auth_tokens: Sequence[str]) -> None:
        keys = [_key(token) for token in auth_tokens if token]
        if not keys:
            raise ValueError("a mark needs an auth token")
        self._fernet = MultiFernet(keys)

    def url(self, public_url: str, mark: Mark) -> str:
        """The voice_url that carries ``mark``.

        Raises MarkTooLongError when it would be longer than Twilio takes.
        """
        packed = zlib.compress(json.dumps(mark.prior, separators=(",", ":")).encode(), 9)
        sealed = self._fernet.encrypt(packed).decode().rstrip("=")
        query = urlencode({"o": mark.override, "s": mark.stack, "p": sealed})
        url = f"{public_url.rstrip('/')}{VOICE_PATH}?{query}"
        if len(url) > LONGEST_URL:
            raise MarkTooLongError(
                f"the number's present settings make a voice_url of {len(url)} characters, and "
                f"Twilio takes {LONGEST_URL}: shorten its voice_url or its fallback URL first"
            )
        return url

    def open(self, marked: MarkedUrl) -> Mark:
        """Read the prior settings. Raises UnreadableMarkError."""
        padded = marked.sealed + "=" * (-len(marked.sealed) % 4)
        try:
            packed = self._fernet.decrypt(padded.encode())
            unpacker = zlib.decompressobj()
            text = unpacker.decompress(packed, _LARGEST_PRIOR)
            prior = json.loads(text)
        except (InvalidToken, zlib.error, ValueError) as error:
            raise UnreadableMarkError(
                f"the mark of override {marked.override} cannot be read with this auth token "
                "(set TWILIO_AUTH_TOKEN_SECONDARY to the one it was written under)"
            ) from error
        if not isinstance(prior, dict):
            raise UnreadableMarkError(f"the mark of override {marked.override} is damaged")
        return Mark(marked.override, marked.stack, prior)


def find_mark(voice_url: str | None) -> MarkedUrl | None:
    """The mark in a voice_url; None where the URL is not one that trunkline wrote."""
    try:
        parts = urlsplit(voice_url or "")
    except ValueError:
        return None
    if not parts.path.endswith(VOICE_PATH):
        return None
    query = parse_qs(parts.query)
    values = [query.get(name, []) for name in ("o", "s", "p")]
    if any(len(value) != 1 for value in values):
        return None
    base = f"{parts.scheme}://{parts.netloc}{parts.path.removesuffix(VOICE_PATH)}"
    return MarkedUrl(base, values[0][0], values[1][0], values[2][0])
