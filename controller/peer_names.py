"""Which connection has which peer's name. No I/O but the one question whether a connection stands.

Names stand in logs, so knowing one must not be enough to speak for its peer: to hang up its calls,
to hear its events, or to turn the controller's answers away from it. The rules:

1. A name belongs to the connection that said it first, in a Hello. Until that connection is gone,
   or goes to another stack that is served here, no other one gets it, and messages in its name on
   another one are dropped.
2. A process that lost its connection comes back on another. It shows the key that it made at its
   start, and gets its name at once, even where the controller has not seen the old connection
   break. Hellos of its older connections, which can be read late, are known by their number.
3. A name that was said with a key is kept for that key until the peer is forgotten. Until then
   there may be answers, sessions and streams of its own. It is forgotten a minute after its last
   word, or as soon as its connection is gone and nothing here is its own.
4. A connection has one name. So it costs a connection to have one more peer remembered.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from typing import Final, Literal

from trunkline.bus import messages as m

#: Why a Hello is dropped. These words are also the names under which /metrics counts it.
Objection = Literal["names in use", "late hellos", "second names", "too many peers"]

#: Names that are held at once. A name costs its peer a connection, and a connection a descriptor,
#: so this bounds what a stranger on the bus can have us remember.
MOST_PEERS: Final = 10_000


@dataclass(frozen=True)
class _Holder:
    """Who has a name. ``identity``: the connection, by its ZeroMQ routing id; None: it is at
    another stack by now. ``key``: what the peer showed with its first Hello on it; "": it has
    none."""

    identity: bytes | None
    key: str
    #: the number of its connection, by the peer's own count
    connection: int


class PeerNames:
    """``is_up``: whether a connection is still there, by its ZeroMQ identity."""

    def __init__(self, is_up: Callable[[bytes], bool]) -> None:
        self._is_up = is_up
        self._holders: dict[str, _Holder] = {}
        self._names: dict[bytes, str] = {}

    def objection(self, hello: m.Hello, identity: bytes) -> Objection | None:
        """Why this Hello may not be heard; None: it may, and :meth:`bind` comes next.

        For example, ``a1`` said Hello on a connection that broke, and comes back on another. With
        its key it is let in. Without it, or with another key, it is "names in use" until the peer
        is forgotten. If ``a1`` had shown no key, it is so only while the old connection is up.
        """
        if self._names.get(identity, hello.peer) != hello.peer:
            return "second names"
        holder = self._holders.get(hello.peer)
        if holder is None:
            return "too many peers" if len(self._holders) >= MOST_PEERS else None
        if holder.identity == identity:
            return None
        if not holder.key:
            in_use = holder.identity is not None and self._is_up(holder.identity)
            return "names in use" if in_use else None
        if not hmac.compare_digest(holder.key, hello.key):
            return "names in use"
        return "late hellos" if hello.connection < holder.connection else None

    def bind(self, hello: m.Hello, identity: bytes) -> None:
        """The connection has the name from now on."""
        former = self._holders.get(hello.peer)
        if former is not None and former.identity is not None:
            self._names.pop(former.identity, None)
        key = hello.key if former is None or former.identity != identity else former.key
        self._holders[hello.peer] = _Holder(identity, key, hello.connection)
        self._names[identity] = hello.peer

    def let_go(self, identity: bytes) -> str | None:
        """The connection goes to another stack. Returns the name that it had here, which is reached
        nowhere now; None: it had none."""
        peer = self._names.pop(identity, None)
        if peer is not None:
            self._holders[peer] = replace(self._holders[peer], identity=None)
        return peer

    def has(self, peer: str, identity: bytes) -> bool:
        """The connection has this name."""
        return self._names.get(identity) == peer

    def has_any(self, identity: bytes) -> bool:
        """The connection has a name."""
        return identity in self._names

    def unknown(self, peer: str) -> bool:
        """Nobody has this name."""
        return peer not in self._holders

    def connection(self, peer: str) -> bytes | None:
        """Where the peer is reached."""
        holder = self._holders.get(peer)
        return None if holder is None else holder.identity

    def forget_all_but(self, known: Container[str]) -> None:
        """Names of peers that are remembered no longer are free."""
        for peer in [peer for peer in self._holders if peer not in known]:
            identity = self._holders.pop(peer).identity
            if identity is not None:
                del self._names[identity]
