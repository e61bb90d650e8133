"""The minutes of calls as Twilio bills them, and their price. No I/O."""

from __future__ import annotations

import math


def begun_minutes(seconds: float) -> int:
    """Begun minutes: a call of 61 seconds counts as two, and one that nobody answered (0) as
    none."""
    return math.ceil(seconds / 60)


def text(calls: int, minutes: int, price: float | None) -> str:
    """For instance "2 calls, 3 minutes, 0.05 at 0.018 a minute". ``price``: of a minute, in any
    currency; None where TRUNKLINE_PRICE_PER_MINUTE is not set."""
    told = f"{counted(calls, 'call')}, {counted(minutes, 'minute')}"
    return told if price is None else f"{told}, {minutes * price:.2f} at {price:g} a minute"


def counted(number: int, one: str) -> str:
    """``1 call``, ``2 calls``."""
    return f"{number} {one}" + ("" if number == 1 else "s")
