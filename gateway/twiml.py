"""The TwiML that a gateway answers with (Twilio's documents voice/twiml/*).

A caller that is not allowed gets exactly ``<Response><Reject/></Response>``; every other document
begins with the XML declaration. After ``<Connect>`` comes an absolute ``<Redirect>``: when our side
closes the stream Twilio goes on with the next verb, and with none the call would end.
"""

from __future__ import annotations

from collections.abc import Container
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from trunkline.bus.messages import VoiceAnswer
from trunkline.bus.twiml import connect, redirect, response, stream

from .signature import without_user_info

#: Query field that counts how many times in a row a call was answered with a pause.
WAITED = "waited"
#: After so many pauses in a row the call is ended, because nobody will answer any more.
MAX_WAITS = 60

#: Query field that counts the streams that one call was offered. It is there only if the public URL
#: has a user name (:func:`render`).
OFFERED = "offered"


def local_path(path: str, public_url: str | None, served: Container[str]) -> str:
    """``path`` without the public URL's own path before it, if the rest is one of ``served``;
    otherwise ``path`` as it is.

    A proxy in front of us may cut the public URL's path off or pass it on; both work. ``path`` is
    decoded already.
    """
    if path in served or public_url is None:
        return path
    own = unquote(urlsplit(public_url).path.rstrip("/"))
    rest = path.removeprefix(own)
    return rest if rest in served else path


def _count(pairs: list[tuple[str, str]], name: str) -> int:
    """The number that the query field ``name`` holds; 0 where there is none."""
    counts = [value for field, value in pairs if field == name]
    if counts and counts[-1].isascii() and counts[-1].isdigit():
        return int(counts[-1][:4])
    return 0


def pause(public_url: str, query: str) -> str:
    """Wait a second, then ask again with the raw ``query`` that the request had.

    The query counts the waits; after :data:`MAX_WAITS` the answer is ``<Hangup/>``, so that a
    caller does not wait for ever for a stack that is gone.
    """
    pairs = parse_qsl(query, keep_blank_values=True)
    waited = _count(pairs, WAITED)
    if waited >= MAX_WAITS:
        return response("<Hangup/>")
    kept = [(name, value) for name, value in pairs if name != WAITED]
    again = urlencode([*kept, (WAITED, str(waited + 1))])
    return response(f'<Pause length="1"/>{redirect(public_url, again)}')


def render(answer: VoiceAnswer, public_url: str, query: str = "") -> str:
    """The document for ``answer``; ``query`` is the raw query of the request that it answers.

    Raises ValueError for a stream without a token.
    """
    if answer.kind == "reject":
        return "<Response><Reject/></Response>"
    if answer.kind == "busy":
        return response('<Reject reason="busy"/>')
    if answer.kind == "hangup":
        return response("<Hangup/>")
    asked = parse_qsl(query, keep_blank_values=True)
    redirect_query = urlencode(answer.redirect_query)
    if answer.kind == "pause":
        if not redirect_query:
            return pause(public_url, query)
        counts = [pair for pair in asked if pair[0] in (WAITED, OFFERED)]
        return pause(public_url, urlencode([*answer.redirect_query.items(), *counts]))
    if not answer.token:
        raise ValueError("a stream answer has no token")
    base = public_url
    if without_user_info(public_url) != public_url:
        # Twilio documents user-info for the URLs of webhooks and says nothing of streams. It may
        # refuse such a stream, or a proxy may demand the password. So the offers alternate: one of
        # two in a row gets through.
        offered = _count(asked, OFFERED)
        if offered % 2:
            base = without_user_info(public_url)
        redirect_query = urlencode([*answer.redirect_query.items(), (OFFERED, str(offered + 1))])
    return response(connect(stream(base, answer.token), public_url, redirect_query))
