"""The kinds of refusals at a gateway's public port.

Gateways count by these kinds, and tell the counts with their beats. ``trunkline status`` shows them
by gateway, ``/metrics`` has their sums (``trunkline_gateway_refused_total{kind="..."}``), and the
table in docs/bus.md is drawn from this one.
"""

from __future__ import annotations

from typing import Final, Literal

Kind = Literal[
    "unsigned",
    "wrong signature",
    "shared key",
    "unreadable",
    "odd fields",
    "no public URL",
    "not found",
    "not HTTP",
    "too large",
    "too slow",
    "pushed out",
    "no descriptor",
    "asked too often",
    "leaving",
    "no start",
    "bad start",
    "wrong token",
    "nobody to ask",
    "socket pushed out",
    "too fast",
    "bad message",
]

#: kind -> why it is refused, as the log says it
KINDS: Final[dict[Kind, str]] = {
    # A request, or an upgrade of a connection to a stream's socket. The first six are HTTP 403,
    # but for JSON that cannot be read, which is HTTP 400.
    "unsigned": "it has no signature",
    "wrong signature": "its signature is wrong",
    "shared key": "a shared key has signed it, and only the auth token's signatures (HMAC-SHA1) "
    "are taken here: take this URL out of the account's Webhook Rules",
    "unreadable": "its form cannot be read",
    "odd fields": "its signature is right, and its fields are not those of a webhook of Twilio's: "
    "it may be an earlier one, cut elsewhere",
    "no public URL": "the public URL is not known yet",
    "not found": "nothing is served there, or not by this method",
    "not HTTP": "it is not HTTP, or not the WebSocket handshake that it says it is",
    "too large": "it is larger than a request may be",
    "too slow": "it did not come whole in time, or its answer was not read in time",
    # A connection. Newcomers are always let in (bus/places.py).
    "pushed out": "it was the oldest whose request was not whole, and a newer one needed its place",
    "no descriptor": "the process may not open more connections, and none of them could go",
    # A signed request, which is answered with a pause, or 503: Twilio asks again.
    "asked too often": "newer signed requests took its place while the controller was asked",
    "leaving": "this gateway ends, and another one answers",
    # A stream's socket, which had a signed upgrade.
    "no start": "no start came in time",
    "bad start": "what it sent before it was let in is not how a stream begins",
    "wrong token": "the controller refused it",
    "nobody to ask": "the controller could not be asked about it",
    "socket pushed out": "it was the oldest that was not let in, and a newer one needed its place",
    # A stream that was let in. The socket of one that is too fast is closed.
    "too fast": "it sent more than twice real time",
    "bad message": "messages that a carrier does not send were thrown away",
}
