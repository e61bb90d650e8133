"""Parts of TwiML: gateways answer webhooks with them, and the controller sends them by REST."""

from __future__ import annotations

from html import escape
from typing import Final

from .twilio_urls import TOKEN_PARAMETER, stream_url, voice_url

PROLOG: Final = '<?xml version="1.0" encoding="UTF-8"?>'


def response(inside: str) -> str:
    """A whole document."""
    return f"{PROLOG}<Response>{inside}</Response>"


def stream(public_url: str, token: str, attributes: str = "") -> str:
    """One stream, with the token that lets it in. ``attributes``: more of them, as they stand in
    the document."""
    url, value = (f'"{escape(text)}"' for text in (stream_url(public_url), token))
    parameter = f'<Parameter name="{TOKEN_PARAMETER}" value={value}/>'
    return f"<Stream url={url}{attributes}>{parameter}</Stream>"


def redirect(public_url: str, query: str) -> str:
    """Has Twilio ask us what to do next. ``query`` is encoded already."""
    return f'<Redirect method="POST">{escape(voice_url(public_url, query), quote=False)}</Redirect>'


def connect(stream: str, public_url: str, query: str) -> str:
    """The call's sound goes through ``stream``. When our side closes the stream, Twilio goes on
    with the next verb. Without another verb the call would end, so an absolute redirect follows."""
    return f"<Connect>{stream}</Connect>{redirect(public_url, query)}"
