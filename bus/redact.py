"""Makes texts fit to be shown: phone numbers keep their last four digits, other callers their kind,
URLs lose their passwords, and nothing is left that a terminal would obey."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

_E164 = re.compile(r"\+[1-9][0-9]{6,14}\Z")
#: A text that was meant as a phone number: it begins with +, or has digits and the marks between
#: them.
_NUMBER = re.compile(r"\+|[0-9 ().\-/]*\Z")
_SCHEMES = ("sip", "sips", "client")
#: Carriers report these where the caller withholds the number.
_WITHHELD = ("anonymous", "restricted", "unavailable", "unknown", "private", "blocked")


def is_e164(number: str) -> bool:
    """True for a plus sign and 7 to 15 ASCII digits, the first of them not 0 (ITU-T E.164)."""
    return _E164.match(number) is not None


def not_e164(shown: str) -> str:
    """Why a number is refused that is not E.164. ``shown`` is the number: redacted, because errors
    reach logs, unless its user has just typed it and reads this."""
    return (
        f"{shown} is not in E.164 format (expected e.g. '+14155551234': a leading '+', then 7 to "
        "15 digits, the first of them not 0)"
    )


def is_withheld(caller: str) -> bool:
    """A carrier's word for a caller who withholds the number."""
    return caller.strip().lower() in _WITHHELD


def redact_number(number: str | None) -> str:
    """A caller or callee without what identifies it.

    A phone number becomes ``***`` and its last four digits (``***`` alone where there are fewer),
    a SIP or client address ``sip:***`` or ``client:***``. A word that stands for a withheld number
    is shown in lower case. Anything else is ``***``.
    """
    text = (number or "").strip()
    if _NUMBER.match(text):
        digits = re.sub(r"[^0-9]", "", text)
        return f"***{digits[-4:]}" if len(digits) >= 4 else "***"
    word = text.lower()
    if is_withheld(word):
        return word
    scheme = word.partition(":")[0]
    return f"{scheme}:***" if ":" in word and scheme in _SCHEMES else "***"


def printable(text: str) -> str:
    """``text`` for a terminal: characters that are not printable become escapes (``\\x1b``)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def mask_url(url: str | None) -> str | None:
    """``url`` with the password of its user-info replaced by ``***``; other text is unchanged.

    A URL that cannot be parsed is shown as ``<unreadable URL>``: it may hold anything.
    """
    if not url or "@" not in url:
        return url
    try:
        parts = urlsplit(url)
        if parts.password is None:
            return url
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))
    except ValueError:
        return "<unreadable URL>"


_PASSWORD_IN_TEXT = re.compile(r"(://[^\s/?#@:]*:)[^\s/?#@]*@")


def mask_urls(text: str) -> str:
    """``text``, which others wrote, with the password of each URL in it replaced by ``***``."""
    return _PASSWORD_IN_TEXT.sub(r"\1***@", text)
