"""Digits that are sent: which there are, and how long they take.

The far end's menu hears one digit after the other, so those who wait for the end of a row of digits
have to know how long it is. Each digit takes 0.2 s (0.1 s of tone, then 0.1 s of silence); ``w``
waits 0.5 s and ``W`` 1 s (Twilio's documents, voice/twiml/play).
"""

from __future__ import annotations

import re
from typing import Final

from .errors import InvalidRequestError

DIGIT_SECONDS: Final = 0.2
WAIT_SECONDS: Final = {"w": 0.5, "W": 1.0}

#: Why digits fail whose call ended first.
CALL_ENDED_FIRST: Final = "the call was hung up or ended while digits were being sent"

_DIGITS: Final = re.compile(r"[0-9*#wW]+", re.ASCII)


def check_digits(text: object) -> None:
    """InvalidRequestError unless ``text`` is one or more of 0-9, ``*``, ``#``, ``w``, ``W``."""
    if not isinstance(text, str) or _DIGITS.fullmatch(text) is None:
        shown = repr(text[:40] if isinstance(text, str) else text)
        raise InvalidRequestError(
            f"DTMF tones {shown} must match [0-9*#wW]+: anything else could be XML injection "
            "where they travel in TwiML, and no telephone has a tone for it."
        )


def seconds_of(digits: str) -> float:
    """How long it takes to play ``digits``."""
    return sum(WAIT_SECONDS.get(digit, DIGIT_SECONDS) for digit in digits)


def presses(digits: str) -> list[tuple[float, str]]:
    """Each key of ``digits``, with the second at which it begins. Waits are not keys."""
    at, found = 0.0, []
    for digit in digits:
        if digit not in WAIT_SECONDS:
            found.append((at, digit))
        at += WAIT_SECONDS.get(digit, DIGIT_SECONDS)
    return found
