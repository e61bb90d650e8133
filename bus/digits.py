"""Digits that are sent: which there are, and how long they take.

The far end's menu hears one digit after the other, so those who wait for the end of a row of digits
have to know how long it is. Each digit takes 0.2 s (0.1 s of tone, then 0.1 s of silence); ``w``
waits 0.5 s and ``W`` 1 s (Twilio's documents, voice/twiml/play).
"""

from __future__ import annotations

import re
from typing import Final

DIGIT_SECONDS: Final = 0.2
WAIT_SECONDS: Final = {"w": 0.5, "W": 1.0}

_DIGITS: Final = re.compile(r"[0-9*#wW]+", re.ASCII)


def are_digits(text: object) -> bool:
    """One or more of ``0-9``, ``*``, ``#``, ``w``, ``W``, and nothing else."""
    return isinstance(text, str) and _DIGITS.fullmatch(text) is not None


def seconds_of(digits: str) -> float:
    """How long it takes to play ``digits``."""
    return sum(WAIT_SECONDS.get(digit, DIGIT_SECONDS) for digit in digits)
