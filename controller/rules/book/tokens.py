"""One-time stream tokens: what lets a Media Stream in, and to which call.

A token is 32 hex digits, is used up by being accepted, is void once its call has a newer one, and
is good for a time, because Twilio opens a stream as soon as it has the document that asks for it.
It is bound to the CallSid that the webhook named. An a-leg's is made before there is one: it is
bound to its dial, and good until that is over. A gateway of this stack has to show it, in its own
name (:func:`..streams.start`); to which of them Twilio connects is not known beforehand.

A one-way stream has a token of its own, which lets it in beside the other stream of its call. Only
hashes are kept, and the comparison takes the same time wherever it fails.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from math import inf


def digest(text: str) -> str:
    """SHA-256 in hex: of tokens, and of sessions' secrets."""
    return hashlib.sha256(text.encode()).hexdigest()


def same(one: str, other: str) -> bool:
    """Compared in the same time wherever they differ, so that nothing can be learnt by trying."""
    return hmac.compare_digest(one.encode(), other.encode())


@dataclass(frozen=True)
class Token:
    """``sid``: the CallSid that may use it; None: any, it becomes the dial's. ``one_way``: it lets
    in a stream that brings sound and takes none. ``until``: when it is good no longer, on the
    monotonic clock."""

    digest: str
    call: str
    sid: str | None
    until: float = inf
    one_way: bool = False


class Tokens:
    """The tokens that are good now: one for each call and kind of stream at most."""

    def __init__(self) -> None:
        self._by_digest: dict[str, Token] = {}
        self._by_call: dict[tuple[str, bool], Token] = {}

    def make(self, call: str, sid: str | None, until: float, *, one_way: bool = False) -> str:
        """A new token; an older one of the call and kind is void from now on."""
        token = secrets.token_hex(16)
        self._put(Token(digest(token), call, sid, until, one_way))
        return token

    def put(self, token_digest: str, call: str) -> None:
        """An a-leg's token is good. It is known by its digest alone, because the journal has no
        more of it."""
        self._put(Token(token_digest, call, None))

    def _put(self, token: Token) -> None:
        self.void(token.call, one_way=token.one_way)
        self._by_digest[token.digest] = self._by_call[token.call, token.one_way] = token

    def look(self, text: str, now: float) -> Token | None:
        """The token, if it is good; it stays so until ``void``, or until its time is over."""
        shown = digest(text)
        found = self._by_digest.get(shown)
        if found is None or not same(found.digest, shown) or now > found.until:
            return None
        return found

    def has_good(self, call: str, now: float) -> bool:
        """A token is out that would let the call's stream in."""
        token = self._by_call.get((call, False))
        return token is not None and now <= token.until

    def void(self, call: str, *, one_way: bool = False) -> None:
        """It is used up, or another one takes its place."""
        old = self._by_call.pop((call, one_way), None)
        if old is not None:
            del self._by_digest[old.digest]

    def void_all(self, call: str) -> None:
        """Nothing lets a stream of this call in any more."""
        self.void(call)
        self.void(call, one_way=True)
