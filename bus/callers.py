"""Callers, as carriers report them in a call's From: to compare them, and to show them.

From is a phone number in E.164, a short code, ``sip:…``, ``client:…``, a word such as
``anonymous``, a number that spells such a word on a keypad (``+266696687``), or empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: Longer than any caller that a carrier reports: client identities have 256 characters at most.
LONGEST_CALLER: Final = 512
_NAMED: Final = 3


def caller_key(caller: str) -> str:
    """The same text for all reports of one caller.

    Blanks around it do not count, nor does the case of a word (``Anonymous``), of a scheme or of a
    SIP host. The case of a SIP user (RFC 3261, section 19.1.4) and of a client's identity counts.
    """
    text = caller.strip()
    scheme, colon, rest = text.partition(":")
    if not colon:
        return text.lower()
    scheme = scheme.lower()
    if scheme in ("sip", "sips"):
        user, at, host = rest.rpartition("@")
        rest = user + at + host.lower()
    return f"{scheme}:{rest}"


def listed(calls: Sequence[str]) -> str:
    """The first three of ``calls``, and how many more there are: "a, b, c and 2 more"."""
    more = f" and {len(calls) - _NAMED} more" if len(calls) > _NAMED else ""
    return ", ".join(calls[:_NAMED]) + more


def caller_error(caller: object) -> str | None:
    """Why this cannot be a caller that a carrier reports; None where it can."""
    if not isinstance(caller, str):
        return f"is {type(caller).__name__}, not text"
    if not caller.strip().isprintable():
        return "has control characters"
    if len(caller) > LONGEST_CALLER:
        return f"is longer than {LONGEST_CALLER} characters"
    return None
