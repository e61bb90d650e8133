"""Callers, as carriers report them in a call's From: to compare them, and to show them.

From is a phone number in E.164, a short code, ``sip:…``, ``client:…``, a word such as
``anonymous``, a number that spells such a word on a keypad (``+266696687``), or empty.
"""

from __future__ import annotations

from typing import Final

#: Longer than any caller that a carrier reports: client identities have 256 characters at most.
LONGEST_CALLER: Final = 512


def caller_key(caller: str) -> str:
    """What two reports of one caller have in common: blanks around it do not count, nor the case of
    a word (``Anonymous``), of a scheme, or of a SIP host. The case of a client's identity and of a
    SIP user does."""
    text = caller.strip()
    scheme, colon, rest = text.partition(":")
    if not colon:
        return text.lower()
    scheme = scheme.lower()
    if scheme in ("sip", "sips"):
        user, at, host = rest.rpartition("@")
        rest = user + at + host.lower()
    return f"{scheme}:{rest}"


def caller_error(caller: object) -> str | None:
    """Why this cannot be a caller that a carrier reports; None where it can."""
    if not isinstance(caller, str):
        return f"is {type(caller).__name__}, not text"
    if not caller.strip().isprintable():
        return "has control characters"
    if len(caller) > LONGEST_CALLER:
        return f"is longer than {LONGEST_CALLER} characters"
    return None
