"""What may be shown: phone numbers by their last four digits, URLs without passwords."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

_E164 = re.compile(r"\+[1-9][0-9]{6,14}\Z")


def is_e164(number: str) -> bool:
    """True for a plus sign and 7 to 15 ASCII digits, the first of them not 0 (ITU-T E.164)."""
    return _E164.match(number) is not None


def redact_number(number: str | None) -> str:
    """``***`` and the last four digits; ``***`` alone where there are fewer than four."""
    digits = re.sub(r"[^0-9]", "", number or "")
    return f"***{digits[-4:]}" if len(digits) >= 4 else "***"


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
