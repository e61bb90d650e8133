"""The documents that go to Twilio by REST: inline TwiML of dials, and digits.

The controller's own: documents that answer webhooks are the gateway's.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from trunkline.bus import twiml
from trunkline.bus.digits import check_digits
from trunkline.bus.twilio_urls import status_url

#: The document of a leg that carries no stream of ours (b-leg, originate). Without a pause the
#: document would be over after its words, and Twilio would hang up.
HOLD_THE_LINE: Final = twiml.response(
    '<Say voice="Polly.Joanna">Thank you for calling. I will hold the line while you complete your '
    'scenario.</Say><Pause length="120"/>'
)


def connect(public_url: str, token: str, query: dict[str, str]) -> str:
    """An a-leg's document: our stream, then back to us for another."""
    return twiml.response(_connect(public_url, token, query))


def _connect(public_url: str, token: str, query: dict[str, str]) -> str:
    """Our stream; and behind it a redirect to us, which Twilio follows when the stream breaks."""
    return twiml.connect(twiml.stream(public_url, token), public_url, urlencode(query))


def status_callback(public_url: str, query: dict[str, str]) -> str:
    """Where Twilio says how the leg stands. The query names the dial before its SID is known."""
    return status_url(public_url, urlencode(query))


def digits(tones: str) -> str:
    """``<Play digits>`` and a pause, so that the call lives on. InvalidRequestError: bad tones. For
    "1#" it is ``<Response><Play digits="1#"/><Pause length="120"/></Response>``."""
    return f'<Response>{_play(tones)}<Pause length="120"/></Response>'


def digits_and_stream(
    public_url: str, tones: str, token: str, query: dict[str, str], listener: str | None = None
) -> str:
    """``<Play digits>``, then our stream again. ``listener``: the token of a one-way stream that
    the document is to start itself. InvalidRequestError: bad tones."""
    start = ""
    if listener is not None:
        one_way = twiml.stream(public_url, listener, ' track="inbound_track"')
        start = f"<Start>{one_way}</Start>"
    return twiml.response(start + _play(tones) + _connect(public_url, token, query))


def _play(tones: str) -> str:
    """The digits. Anything else in them could be markup, and is refused."""
    check_digits(tones)
    return f'<Play digits="{tones}"/>'
