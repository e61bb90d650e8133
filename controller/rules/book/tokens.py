"""One-time stream tokens. Each lets one Media Stream in, to one call.

A token is 32 hex digits. In a fleet the id of its stack stands in front of them. It is void once a
stream was accepted with it, or once its call has a newer one. It is good for a limited time only
(:data:`..webhooks.TOKEN_GOOD_FOR`, say), because Twilio opens a stream as soon as it has the
document that asks for it.

A token is bound to the CallSid that the webhook named. The token of an a-leg call is made before
there is a CallSid, so it is bound to its dial, and is good until the dial's call is over. Any
gateway of this stack may show a token, in its own name (:func:`..streams.start`), because nobody
knows beforehand to which gateway Twilio will connect.

A one-way stream has a token of its own, which lets it in beside the other stream of its call.

Only hashes of tokens are kept, so nobody can read one out of a book or a journal and use it. A
token is looked up by its hash, and how long that takes says nothing about the token: two tokens
that differ in their last digit alone have hashes that differ everywhere. So nobody can guess a
token digit by digit.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from math import inf

from trunkline.bus.twilio_urls import named_token


def digest(text: str) -> str:
    """SHA-256 in hex: of tokens, and of sessions' secrets."""
    return hashlib.sha256(text.encode()).hexdigest()


def same(one: str, other: str) -> bool:
    """Compared in the same time wherever they differ, so that nothing can be learnt by trying."""
    return hmac.compare_digest(one.encode(), other.encode())


@dataclass(frozen=True)
class Token:
    """``sid``: the CallSid that may use it. None: any may, and becomes the dial's. ``one_way``: it
    lets in a stream that brings sound and takes none. ``until``: it is void after this time of the
    monotonic clock."""

    digest: str
    call: str
    sid: str | None
    until: float = inf
    one_way: bool = False


class Tokens:
    """The tokens that are good now. A call has one at most for each kind of stream. ``stack``: it
    stands in front of each token, for gateways that know several; None: it does not."""

    def __init__(self, stack: str | None = None) -> None:
        self._stack = stack
        self._by_digest: dict[str, Token] = {}
        self._by_call: dict[tuple[str, bool], Token] = {}

    def new(self) -> str:
        """A token that nobody has had."""
        token = secrets.token_hex(16)
        return token if self._stack is None else named_token(self._stack, token)

    def make(self, call: str, sid: str | None, until: float, *, one_way: bool = False) -> str:
        """A new token. An older one of the same call and kind is void from now on."""
        token = self.new()
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
        """The token, if it is good. Looking does not use it up: :meth:`void` does that."""
        found = self._by_digest.get(digest(text))
        if found is None or now > found.until:
            return None
        return found

    def has_good(self, call: str, now: float) -> bool:
        """Somebody holds a token that would let the call's stream in."""
        token = self._by_call.get((call, False))
        return token is not None and now <= token.until

    def void(self, call: str, *, one_way: bool = False) -> None:
        """Forget the call's token: it is used up, or another one takes its place."""
        old = self._by_call.pop((call, one_way), None)
        if old is not None:
            del self._by_digest[old.digest]

    def void_all(self, call: str) -> None:
        """Nothing lets a stream of this call in any more."""
        self.void(call)
        self.void(call, one_way=True)
