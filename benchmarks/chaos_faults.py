"""Which process is hit when, and how: seeded plans within bounds. No I/O.

:func:`alone` has each kind of fault once, to be carried out one by one. In :func:`plan` faults may
overlap, but one kind of process is hit again only after :data:`RECOVERS` seconds, so
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

#: Process and signal -> how often, beside the others. The controller is sent no SIGTERM here: that
#: asks it to end the stack's work, so calls do not survive it, and it has a scenario of its own. A
#: client is sent none because SIGKILL shows the same.
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
#: Seconds of a SIGSTOP, from and to; and of one that is alone.
STOPPED: Final = (0.3, 4.0)
STOPPED_ALONE: Final = 2.0
#: Seconds between two faults, from and to.
BETWEEN: Final = (0.3, 2.2)


@dataclass(frozen=True)
class Fault:
    """A signal at ``at`` seconds from the beginning. ``which`` picks one process of the kind. It is
    stopped for ``seconds`` (0 for other signals)."""

    at: float
    kind: Kind
    how: How
    which: int
    seconds: float = 0.0


def alone(seed: int) -> Iterator[Fault]:
    """Each kind of fault once. Their times are 0: each comes when the last one has been mended."""
    rng = random.Random(f"{seed} alone")
    for kind, how in WEIGHTS:
        length = STOPPED_ALONE if how == "SIGSTOP" else 0.0
        yield Fault(0.0, kind, how, rng.randrange(1_000), length)


def plan(seed: int, seconds: float) -> Iterator[Fault]:
    """Faults that may overlap, in order of time."""
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


#: Faults of the stack as a whole. They come in this order, and the seed picks the first.
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
