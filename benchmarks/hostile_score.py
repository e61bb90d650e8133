"""What a hostile run found: its bounds, its problems and its table. No I/O."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from benchmarks.chaos_score import Score
from benchmarks.hostile_attacks import CAUSES, HARMLESS, LET_IN, NOT_OURS

#: Seconds for an honest webhook's answer, and from the request for a call until it is up.
WEBHOOK_WITHIN: Final = 2.0
UP_WITHIN: Final = 3.0
#: MB by which a process of the stack may grow under attack.
GROWTH: Final = 64.0
#: A machine that has much to do makes a hole now and then. The run fails where there are so many
#: more under attack that chance gives them in fewer runs than this share.
RARE: Final = 0.05
#: Seconds of a hole that a killed worker may make, because its calls go on at their standby. It may
#: begin so many seconds after the kill. All calls of the worker have such a hole at once, and how
#: long it is depends on when the kernel closes the dead worker's sockets, so chance says nothing of
#: these holes.
KILLED: Final = 0.2
BEGINS_AFTER_KILL: Final = 0.3
HEAD: Final = [
    "attack",
    "attempts",
    "refused",
    "counted",
    "honest frames lost",
    "holes",
    "slowest webhook (s)",
    "slowest call up (s)",
]
#: All attacks together, and the time before any.
TOGETHER: Final = "all of these together"
BASELINE: Final = "none"


@dataclass
class Window:
    """The time from an attack's beginning until its last attempt has ended. Times are
    monotonic."""

    attack: str
    began: float
    ended: float = math.inf
    #: how the attempts ended, and how many refusals /metrics has more than before
    outcomes: Counter[str] = field(default_factory=Counter)
    counted: int = 0
    #: names of ATTACKS that took part, and the kinds of refusals at the public port that there were
    attackers: list[str] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    #: refusals that a killed worker may have taken with it before its counters were read
    gone: int = 0

    @property
    def attempts(self) -> int:
        return self.outcomes.total()

    @property
    def refused(self) -> int:
        return sum(n for how, n in self.outcomes.items() if how not in LET_IN | HARMLESS)

    def within(self, found: Iterable[tuple[float, float]]) -> list[float]:
        """Those of (when, value) that are the window's."""
        return [value for at, value in found if self.began <= at < self.ended]


@dataclass
class HostileScore:
    """The honest calls' score, and what happened beside it."""

    honest: Score
    windows: list[Window] = field(default_factory=list)
    #: (when, seconds) of each honest webhook's answer; those that had none, by call
    webhooks: list[tuple[float, float]] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    #: by role: the most MB that one of its processes had without attackers, and with them
    before: dict[str, float] = field(default_factory=dict)
    during: dict[str, float] = field(default_factory=dict)

    def _holes(self, *, attacked: bool) -> int:
        """Holes that far ends heard in our speech, without attackers and with them, but for those
        of killed workers."""
        found = [hole for hole in self._all_holes() if not self._is_a_kills(hole[0])]
        return sum(len(w.within(found)) for w in self.windows if attacked != (w.attack == BASELINE))

    def _all_holes(self) -> list[tuple[float, float]]:
        return [hole for verdict in self.honest.verdicts for hole in verdict.holes]

    def _is_a_kills(self, began: float) -> bool:
        return any(0 <= began - kill.at <= BEGINS_AFTER_KILL for kill in self.honest.faults)

    def _seconds(self, *, attacked: bool) -> float:
        return sum(w.ended - w.began for w in self.windows if attacked != (w.attack == BASELINE))

    def problems(self) -> list[str]:
        """Why the run fails."""
        found = list(self.honest.problems)
        for way, lost in (
            ("to the far end", sum(v.lost_out for v in self.honest.verdicts)),
            ("to the client", sum(v.lost_in for v in self.honest.verdicts)),
        ):
            if lost:
                found.append(f"{lost} honest frames were lost {way}")
        before, with_them = self._holes(attacked=False), self._holes(attacked=True)
        under, calm = self._seconds(attacked=True), self._seconds(attacked=False)
        if _by_chance(with_them, before, under / max(1e-9, under + calm)) < RARE:
            found.append(
                f"{with_them} holes under attack in {under:.0f} s; {before} without in {calm:.0f} s"
            )
        for began, seconds in self._all_holes():
            if self._is_a_kills(began) and seconds > KILLED:
                found.append(f"a killed worker made a hole of {seconds:.2f} s, not {KILLED:g} s")
                break
        for what, bound, times in (
            ("an honest webhook was answered", WEBHOOK_WITHIN, self.webhooks),
            ("a new call was up", UP_WITHIN, self.honest.ups),
        ):
            late = [seconds for _, seconds in times if seconds > bound]
            if late:
                found.append(f"{len(late)} times {what} after {max(late):.1f} s, not {bound:g} s")
            if not times:
                found.append(f"never: {what}")
        found += [f"an honest webhook got no answer: {what}" for what in self.unanswered]
        for role, most in self.during.items():
            grown = most - self.before.get(role, most)
            if grown > GROWTH:
                found.append(f"a {role} grew by {grown:.0f} MB, and {GROWTH:g} are allowed")
        for window in self.windows:
            if window.attack == BASELINE:
                continue
            if not window.attempts:
                found.append(f"{window.attack}: no attempt was made")
            missing = {CAUSES[name] for name in window.attackers if name in CAUSES} - window.kinds
            found += [f"{window.attack}: nothing was refused as {kind}" for kind in sorted(missing)]
            let_in = {how: n for how, n in window.outcomes.items() if how in LET_IN}
            if let_in:
                found.append(f"{window.attack}: not refused: {let_in}")
            ours = window.refused - window.outcomes[NOT_OURS] - window.gone
            if window.counted < ours:
                found.append(f"{window.attack}: {ours} refused by us, {window.counted} counted")
        return found

    def rows(self) -> list[list[str]]:
        """The table, a row an attack."""
        rows = []
        gaps = [gap for verdict in self.honest.verdicts for gap in verdict.gaps]
        for window in self.windows:
            calm = window.attack == BASELINE
            lost = sum(window.within([(at, float(n)) for at, n in gaps]))
            rows.append(
                [
                    window.attack,
                    *("–" if calm else f"{n:,}" for n in _numbers(window)),
                    f"{lost:.0f}",
                    f"{len(window.within(self._all_holes()))}",
                    _slowest(window.within(self.webhooks)),
                    _slowest(window.within(self.honest.ups)),
                ]
            )
        return rows

    def memory_rows(self) -> list[list[str]]:
        """By role: MB without attackers, with them, and the growth."""
        return [
            [role, f"{self.before[role]:.0f}", f"{most:.0f}", f"{most - self.before[role]:+.0f}"]
            for role, most in sorted(self.during.items())
            if role in self.before
        ]

    def summary(self) -> str:
        """The whole run in one line."""
        verdicts = self.honest.verdicts
        lost = sum(v.lost_out + v.lost_in for v in verdicts)
        return (
            f"{len(verdicts)} honest calls, {self.honest.most_at_once} at once: {lost} frames "
            f"lost; {self._holes(attacked=True)} holes under attack in "
            f"{self._seconds(attacked=True):.0f} s, {self._holes(attacked=False)} without in "
            f"{self._seconds(attacked=False):.0f} s"
        )


def _by_chance(under: int, calm: int, share: float) -> float:
    """How likely it is that of so many holes as there were, or more, fall into the time under
    attack, which is this share of the whole, where attackers make no difference."""
    holes = under + calm
    return sum(
        math.comb(holes, n) * share**n * (1 - share) ** (holes - n) for n in range(under, holes + 1)
    )


def _numbers(window: Window) -> tuple[int, int, int]:
    return window.attempts, window.refused, window.counted


def _slowest(seconds: list[float]) -> str:
    return f"{max(seconds):.2f}" if seconds else "–"
