"""The documents that go to Twilio by REST: inline TwiML of dials, and digits.

The controller's own: documents that answer webhooks are the gateway's.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlencode
from xml.sax.saxutils import escape

from trunkline.bus.errors import InvalidRequestError
from trunkline.bus.twilio_urls import RETRY_FRAGMENT

from .seal import VOICE_PATH

PROLOG: Final = '<?xml version="1.0" encoding="UTF-8"?>'
STATUS_PATH: Final = "/twilio/status"
STREAM_PATH: Final = "/twilio/stream"
#: Inline TwiML may be this long (error 32018 above it).
LONGEST_TWIML: Final = 4000

#: What a leg that carries no stream of ours says and does (b-leg, originate).
HOLD_THE_LINE: Final = (
    f'{PROLOG}<Response><Say voice="Polly.Joanna">Thank you for calling. I will hold the line '
    'while you complete your scenario.</Say><Pause length="120"/></Response>'
)

_DIGITS = re.compile(r"[0-9*#wW]+")
_QUOTES = {'"': "&quot;", "'": "&apos;"}


def stream_url(public_url: str) -> str:
    scheme, _, rest = public_url.rstrip("/").partition("://")
    return f"{'wss' if scheme == 'https' else 'ws'}://{rest}{STREAM_PATH}"


def connect(public_url: str, token: str, request: str) -> str:
    """An a-leg's document: our stream, then back to us for another."""
    url, nonce = (f'"{escape(text, _QUOTES)}"' for text in (stream_url(public_url), token))
    again = f"{public_url.rstrip('/')}{VOICE_PATH}?{urlencode({'d': request})}{RETRY_FRAGMENT}"
    return (
        f"{PROLOG}<Response><Connect><Stream url={url}>"
        f'<Parameter name="nonce" value={nonce}/></Stream></Connect>'
        f'<Redirect method="POST">{escape(again)}</Redirect></Response>'
    )


def status_callback(public_url: str, request: str) -> str:
    return f"{public_url.rstrip('/')}{STATUS_PATH}?{urlencode({'d': request})}{RETRY_FRAGMENT}"


def digits(tones: str) -> str:
    """``<Play digits>`` and a pause, so that the call lives on. InvalidRequestError: bad tones."""
    if not tones.isascii() or _DIGITS.fullmatch(tones) is None:
        raise InvalidRequestError(
            f"DTMF tones {tones[:40]!r} must match [0-9*#wW]+ (anything else could be "
            "XML injection)"
        )
    return f'<Response><Play digits="{tones}"/><Pause length="120"/></Response>'
