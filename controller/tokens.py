"""One-time stream tokens: what lets a Media Stream in, and to which call.

A token is 32 hex digits, is used up by being accepted, and is void once its call has a newer one.
It is bound to the CallSid that the webhook named; an a-leg's is made before there is one, and is
bound to its dial. Only hashes are kept, and the comparison takes the same time wherever it fails.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass


def digest(text: str) -> str:
    """SHA-256 in hex: of tokens, and of sessions' secrets."""
    return hashlib.sha256(text.encode()).hexdigest()


def same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


@dataclass(frozen=True)
class Token:
    """``sid``: the CallSid that may use it; None: any, it becomes the dial's."""

    digest: str
    call: str
    sid: str | None


class Tokens:
    """The tokens that are good now: one for each call at most."""

    def __init__(self) -> None:
        self._by_digest: dict[str, Token] = {}
        self._by_call: dict[str, Token] = {}

    def make(self, call: str, sid: str | None) -> str:
        """A new token; an older one of the call is void from now on."""
        token = secrets.token_hex(16)
        self.put(digest(token), call, sid)
        return token

    def put(self, token_digest: str, call: str, sid: str | None) -> None:
        self.void(call)
        token = Token(token_digest, call, sid)
        self._by_digest[token_digest] = self._by_call[call] = token

    def look(self, text: str) -> Token | None:
        """The token, if it is good; it stays so until ``void``."""
        shown = digest(text)
        found = self._by_digest.get(shown)
        return found if found is not None and same(found.digest, shown) else None

    def void(self, call: str) -> None:
        old = self._by_call.pop(call, None)
        if old is not None:
            del self._by_digest[old.digest]
