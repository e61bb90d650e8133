"""Which process is hit when, and how: a seeded plan within bounds. No I/O.

Faults may overlap, but one kind of process is hit again only after :data:`RECOVERS` seconds, so
that of two gateways or workers one is always left, or coming back; a killed client stays away until
its calls are hung up and its numbers are as before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["codec worker", "gateway", "controller", "client"]
How = Literal["SIGKILL", "SIGSTOP", "SIGTERM"]

#: What is hit, how, and how often beside the others. SIGTERM is a wish to the controller to end the
#: stack's work, so it is no fault that calls survive (it has a scenario of its own); to a client it
#: is as good as SIGKILL.
WEIGHTS: Final[dict[tuple[Kind, How], float]] = {
    ("codec worker", "SIGKILL"): 4.0,
    ("codec worker", "SIGSTOP"): 3.0,
    ("codec worker", "SIGTERM"): 2.0,
    ("gateway", "SIGKILL"): 4.0,
    ("gateway", "SIGSTOP"): 2.0,
    ("gateway", "SIGTERM"): 2.0,
    ("controller", "SIGKILL"): 3.0,
    ("controller", "SIGSTOP"): 2.0,
    ("client", "SIGKILL"): 1.0,
    ("client", "SIGSTOP"): 1.0,
}
#: Seconds until a kind may be hit again, after the fault is over.
RECOVERS: Final[dict[Kind, float]] = {
    "codec worker": 4.0,
    "gateway": 4.0,
    "controller": 4.0,
    "client": 15.0,
}
#: Seconds of a SIGSTOP.
STOPPED: Final = (0.3, 4.0)
#: Seconds between two faults.
BETWEEN: Final = (0.3, 2.2)


@dataclass(frozen=True)
class Fault:
    """At ``at`` seconds from the beginning; ``which`` picks one of the kind, ``seconds`` is how
    long it is stopped (0 for other signals)."""

    at: float
    kind: Kind
    how: How
    which: int
    seconds: float = 0.0


def plan(seed: int, seconds: float) -> Iterator[Fault]:
    """The faults of a run, in order of time."""
    rng = random.Random(seed)
    ready: dict[Kind, float] = dict.fromkeys(RECOVERS, 0.0)
    at = rng.uniform(*BETWEEN)
    while at < seconds:
        choices = {what: w for what, w in WEIGHTS.items() if ready[what[0]] <= at}
        if choices:
            kind, how = rng.choices(list(choices), list(choices.values()))[0]
            length = rng.uniform(*STOPPED) if how == "SIGSTOP" else 0.0
            if at + length < seconds:
                yield Fault(at, kind, how, rng.randrange(1_000), length)
                ready[kind] = at + length + RECOVERS[kind]
        at += rng.uniform(*BETWEEN)


#: What happens to the stack as a whole, in turn, from a place that the seed picks.
WHOLE: Final = (
    "supervisor SIGKILL",
    "all SIGKILL, started again",
    "controller SIGTERM",
    "stack SIGTERM, started again",
)


def whole(seed: int, rounds: int) -> list[str]:
    """The rounds of the scenario in which the stack as a whole is hit."""
    first = random.Random(f"{seed} whole").randrange(len(WHOLE))
    return [WHOLE[(first + n) % len(WHOLE)] for n in range(rounds)]
