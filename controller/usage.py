"""The dials of the stack, counted against its caps.

All clients together are counted, and every way to dial. Each dial is counted from when it was
accepted, so that a hundred at once cannot slip under a cap of ten. Three caps:

- Calls at a time: dials whose leg may still be up.
- Calls in an hour: of any 60 minutes, not of the clock's hour.
- Minutes in a day: of any 24 hours. Begun minutes count, as Twilio bills them. A dial whose leg may
  still be up counts with the longest that its call may last, because a cap that a call may pass
  afterwards is none.

For example, with a cap of 10 minutes, 4 used and one call of 5 minutes at most under way, a dial of
5 minutes is refused, and one of 60 seconds is not. Times are Unix times: the journal has them, so
that a restart forgets nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

from .journal.rows import DialRow

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
#: Twilio ends a call by itself after its longest duration. Ringing comes before that, and the news
#: of the end may get lost. So a dial's leg is over in any case this long (seconds) after it was
#: asked for and its longest duration has passed.
OVER_WITHIN: Final = 180.0


@dataclass(frozen=True)
class Caps:
    """None: there is no cap."""

    calls: int | None = None
    calls_per_hour: int | None = None
    minutes_per_day: int | None = None


@dataclass(frozen=True)
class _Use:
    """One dial. ``asked`` None: Twilio has not been asked. ``seconds``: how long its call may last;
    once it is ``over``, how long it lasted."""

    asked: float | None
    seconds: float
    over: bool = False

    def may_be_up(self, wall: float) -> bool:
        """Its leg may still cost."""
        if self.over:
            return False
        return self.asked is None or wall < self.asked + self.seconds + OVER_WITHIN

    def since(self, since: float) -> bool:
        """Twilio was asked then or later, or is still to be asked."""
        return self.asked is None or self.asked >= since

    @property
    def minutes(self) -> int:
        return math.ceil(self.seconds / 60)


@dataclass(frozen=True)
class _Used:
    """How much all dials together have taken. ``held_minutes``: those that calls under way may
    still take."""

    up: int
    of_hour: int
    minutes: int
    held_minutes: int


class Usage:
    """The dials that a cap may still count, by request: those of the last day at most."""

    def __init__(self, caps: Caps) -> None:
        self._caps = caps
        self._uses: dict[str, _Use] = {}
        #: how long a dial that is over is counted (seconds)
        self._kept = DAY if caps.minutes_per_day is not None else HOUR
        if caps.minutes_per_day is None and caps.calls_per_hour is None:
            self._kept = 0.0

    def accept(self, row: DialRow) -> None:
        """A dial is accepted, or was found in the journal. Where nobody has noted how long its call
        lasted, it may have been the longest."""
        if self._caps == Caps():
            return  # nobody asks
        self._uses[row.request] = _Use(row.asked or None, row.max_duration)
        if row.state == "closed":
            self.over(row.request, row.seconds if row.sid is not None else 0.0)

    def asked(self, request: str, wall: float) -> None:
        """Twilio is asked for it now."""
        use = self._uses.get(request)
        if use is not None:
            self._uses[request] = replace(use, asked=wall)

    def over(self, request: str, seconds: float | None) -> None:
        """Its leg is over; it lasted so long. None: nobody knows. A dial that Twilio was never
        asked for has cost nothing, and counts no more."""
        use = self._uses.get(request)
        if use is None:
            return
        if use.asked is None:
            del self._uses[request]
            return
        lasted = use.seconds if seconds is None else seconds
        self._uses[request] = replace(use, over=True, seconds=lasted)

    def refusal(self, longest: float, wall: float) -> str | None:
        """Which cap a call of ``longest`` seconds at most would pass; None: it may be dialled."""
        if self._caps == Caps():
            return None
        used, caps = self._used(wall), self._caps
        if caps.calls is not None and used.up >= caps.calls:
            return f"TRUNKLINE_MAX_CALLS={caps.calls} calls at a time are up or being dialled"
        if caps.calls_per_hour is not None and used.of_hour >= caps.calls_per_hour:
            return (
                f"TRUNKLINE_MAX_CALLS_PER_HOUR={caps.calls_per_hour} calls were dialled within the "
                "last hour"
            )
        most = caps.minutes_per_day
        more = math.ceil(longest / 60)
        if most is not None and used.minutes + used.held_minutes + more > most:
            return (
                f"TRUNKLINE_MAX_MINUTES_PER_DAY={most}: {used.minutes} min were used within 24 "
                f"hours, calls under way may take {used.held_minutes} min, and this one {more} min"
            )
        return None

    def standing(self, wall: float) -> list[dict[str, Any]]:
        """Of each cap that is set: its setting, its most, and how much is used and left. The
        minutes that calls under way may still take count as used."""
        if self._caps == Caps():
            return []
        used, caps = self._used(wall), self._caps
        minutes = used.minutes + used.held_minutes
        rows = (
            ("TRUNKLINE_MAX_CALLS", caps.calls, used.up),
            ("TRUNKLINE_MAX_CALLS_PER_HOUR", caps.calls_per_hour, used.of_hour),
            ("TRUNKLINE_MAX_MINUTES_PER_DAY", caps.minutes_per_day, minutes),
        )
        return [
            {"setting": setting, "most": most, "used": count, "left": max(0, most - count)}
            for setting, most, count in rows
            if most is not None
        ]

    def _used(self, wall: float) -> _Used:
        kept = wall - self._kept
        self._uses = {r: use for r, use in self._uses.items() if use.since(kept) or not use.over}
        uses = self._uses.values()
        of_day = [use for use in uses if use.since(wall - DAY)]
        return _Used(
            up=sum(use.may_be_up(wall) for use in uses),
            of_hour=sum(use.since(wall - HOUR) for use in uses),
            minutes=sum(use.minutes for use in of_day if use.over),
            held_minutes=sum(use.minutes for use in of_day if not use.over),
        )
