"""The URLs that Twilio calls, and the one by which stacks know one another.

The gateway serves them, and gateway and controller write them into answers, numbers, calls and
documents.

A query field's name is one letter, because a URL that seals a number's prior settings must stay
within the length that Twilio takes. Numbers carry these letters already, so they stay.
"""

from __future__ import annotations

from typing import Final

VOICE_PATH: Final = "/twilio/voice"
STATUS_PATH: Final = "/twilio/status"
STREAM_PATH: Final = "/twilio/stream"
#: Where a gateway names its stack to whoever asks: that is how stacks find out who lives.
HEALTH_PATH: Final = "/healthz"

#: On a number: the id of the override that wrote the URL, the id of its stack, and the settings
#: from before, sealed (``controller/twilio/seal.py``). Where the controller is one of a fleet, the
#: stack's id also stands in all other URLs, and in front of tokens: a gateway asks the controller
#: that they name.
OVERRIDE_FIELD: Final = "o"
STACK_FIELD: Final = "s"
PRIOR_FIELD: Final = "p"
#: In the URLs of a dial: its request id. Callbacks come before the call's SID is known.
DIAL_FIELD: Final = "d"
#: In a redirect back to us: the id of the call that is to get its next stream.
CALL_FIELD: Final = "c"

#: The parameter of a stream that holds the token which lets it in. Twilio drops the query of a
#: stream's URL, and passes parameters on in its `start` message.
TOKEN_PARAMETER: Final = "nonce"  # noqa: S105  # a name, and no secret

#: Asks Twilio to try a webhook up to three more times, whatever went wrong: ``rc`` is the number of
#: retries, ``rp`` the policy (usage/webhooks/webhooks-connection-overrides in Twilio's documents).
#: A gateway that is just being started again then costs a caller a second instead of the call.
#: Twilio reads the fragment itself: it neither sends nor signs it.
RETRY_FRAGMENT: Final = "#rc=3&rp=all"


def named_token(stack: str, token: str) -> str:
    """A stream's token that also says which stack made it."""
    return f"{stack}.{token}"


def stack_of(token: str) -> str:
    """The stack that made this token; "" where it names none."""
    return token.rpartition(".")[0]


def voice_url(public_url: str, query: str) -> str:
    """Where Twilio asks what to do with a call. ``query`` is encoded already."""
    return _webhook(public_url, VOICE_PATH, query)


def status_url(public_url: str, query: str) -> str:
    """Where Twilio says how a call that we asked for stands."""
    return _webhook(public_url, STATUS_PATH, query)


def _webhook(public_url: str, path: str, query: str) -> str:
    return f"{public_url.rstrip('/')}{path}{'?' + query if query else ''}{RETRY_FRAGMENT}"


def stream_base(public_url: str) -> str:
    """``public_url`` with its scheme as a WebSocket's: https to wss, http to ws."""
    scheme, _, rest = public_url.partition("://")
    return f"{'wss' if scheme == 'https' else 'ws'}://{rest}"


def stream_url(public_url: str) -> str:
    """Where Twilio opens a stream's WebSocket: no query, which it would drop."""
    return stream_base(public_url).rstrip("/") + STREAM_PATH
