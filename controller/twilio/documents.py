"""The documents that go to Twilio by REST: inline TwiML of dials, and digits.

The controller's own: documents that answer webhooks are the gateway's.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode
from xml.sax.saxutils import escape

from trunkline.bus.digits import are_digits
from trunkline.bus.errors import InvalidRequestError
from trunkline.bus.twilio_urls import RETRY_FRAGMENT, STATUS_PATH, STREAM_PATH, VOICE_PATH

PROLOG: Final = '<?xml version="1.0" encoding="UTF-8"?>'

#: What a leg that carries no stream of ours says and does (b-leg, originate).
HOLD_THE_LINE: Final = (
    f'{PROLOG}<Response><Say voice="Polly.Joanna">Thank you for calling. I will hold the line '
    'while you complete your scenario.</Say><Pause length="120"/></Response>'
)

_QUOTES = {'"': "&quot;", "'": "&apos;"}


def stream_url(public_url: str) -> str:
    """Twilio opens a WebSocket there, encrypted where the public URL is."""
    scheme, _, rest = public_url.rstrip("/").partition("://")
    return f"{'wss' if scheme == 'https' else 'ws'}://{rest}{STREAM_PATH}"


def connect(public_url: str, token: str, request: str) -> str:
    """An a-leg's document: our stream, then back to us for another."""
    return f"{PROLOG}<Response>{_connect(public_url, token, {'d': request})}</Response>"


def _connect(public_url: str, token: str, query: dict[str, str]) -> str:
    """Our stream; and behind it a redirect to us, which Twilio follows when the stream breaks."""
    again = f"{public_url.rstrip('/')}{VOICE_PATH}?{urlencode(query)}{RETRY_FRAGMENT}"
    return (
        f"<Connect>{_stream(public_url, token)}</Connect>"
        f'<Redirect method="POST">{escape(again)}</Redirect>'
    )


def _stream(public_url: str, token: str, attributes: str = "") -> str:
    """One stream, with the token that lets it in. It stands in a parameter: Twilio drops a URL's
    query."""
    url, nonce = (f'"{escape(text, _QUOTES)}"' for text in (stream_url(public_url), token))
    parameter = f'<Parameter name="nonce" value={nonce}/>'
    return f"<Stream url={url}{attributes}>{parameter}</Stream>"


def status_callback(public_url: str, request: str) -> str:
    """Where Twilio says how the leg stands. The query names the dial before its SID is known."""
    return f"{public_url.rstrip('/')}{STATUS_PATH}?{urlencode({'d': request})}{RETRY_FRAGMENT}"


def digits(tones: str) -> str:
    """``<Play digits>`` and a pause, so that the call lives on. InvalidRequestError: bad tones."""
    return f'<Response>{_play(tones)}<Pause length="120"/></Response>'


def digits_and_stream(
    public_url: str, tones: str, token: str, query: dict[str, str], listener: str | None = None
) -> str:
    """``<Play digits>``, then our stream again. ``listener``: the token of a one-way stream that
    the document is to start itself. InvalidRequestError: bad tones."""
    start = ""
    if listener is not None:
        one_way = _stream(public_url, listener, ' track="inbound_track"')
        start = f"<Start>{one_way}</Start>"
    back = _connect(public_url, token, query)
    return f"{PROLOG}<Response>{start}{_play(tones)}{back}</Response>"


def _play(tones: str) -> str:
    """The digits. Anything else in them could be markup, and is refused."""
    if not are_digits(tones):
        raise InvalidRequestError(
            f"DTMF tones {tones[:40]!r} must match [0-9*#wW]+ (anything else could be "
            "XML injection)"
        )
    return f'<Play digits="{tones}"/>'
