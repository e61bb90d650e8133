"""The account's numbers: their SIDs, as far as they are known, and who waits to learn one.

A SID that was found is remembered for a while. Many who seek one number at once are one request.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

#: A number's SID is remembered this long.
LOOKUP_KEPT: Final = 60.0


@dataclass(frozen=True)
class Seeker:
    """Who looks a number up: a session, for itself or (``dial``) for a b-leg dial of it."""

    session: str
    dial: str | None = None


class LookUps:
    """All numbers that were or are looked up."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, float]] = {}  # number -> (sid, until)
        self._seekers: dict[str, list[Seeker]] = {}

    def sid(self, number: str, now: float) -> str | None:
        """The number's SID, if it was found not too long ago."""
        sid, until = self._known.get(number, ("", 0.0))
        return sid if now < until else None

    def note(self, numbers: Iterable[tuple[str, str]], now: float) -> None:
        """These (number, SID) are on the account."""
        for number, sid in numbers:
            self._known[number] = (sid, now + LOOKUP_KEPT)

    def ask(self, number: str, seeker: Seeker) -> bool:
        """Wait for the number. True: nobody did before, so REST has to be asked."""
        waiting = self._seekers.setdefault(number, [])
        waiting.append(seeker)
        return len(waiting) == 1

    def take_seekers(self, number: str) -> list[Seeker]:
        """Those who wait for the number; whoever takes them answers them."""
        return self._seekers.pop(number, [])
