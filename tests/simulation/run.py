"""Runs seeds: one here, or many in a process of their own."""

from __future__ import annotations

import contextvars
import gc
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from .clock import OutOfTime
from .faults import Chaos
from .judge import judge
from .mutations import FIRST_SEED, IN_FLEET, mutated
from .world import REST_WITHIN, World

#: Within so many seeds each fault that is put into the product is found.
FOUND_WITHIN: Final = 1500


@dataclass
class Outcome:
    """What became of one seed. ``wrong``: what is not as it has to be."""

    seed: int
    wrong: list[str]
    trace: list[str]
    counts: Counter[str] = field(default_factory=Counter)


def run_seed(
    seed: int,
    *,
    mutation: str | None = None,
    tracing: bool = False,
    outage: bool = False,
    fleet: bool = False,
) -> Outcome:
    """Simulate one seed to its rest, and judge it."""
    gc.freeze()  # what is there already need not be looked at again and again
    gc.disable()  # what dead processes leave is collected at the end, not in the middle
    try:
        return contextvars.copy_context().run(_run_seed, seed, mutation, tracing, outage, fleet)
    finally:
        gc.collect()
        gc.enable()
        gc.unfreeze()


def _run_seed(seed: int, mutation: str | None, tracing: bool, outage: bool, fleet: bool) -> Outcome:
    world = World(seed, tracing=tracing, fleet=fleet)
    wrong = []
    with world.patched(), mutated(mutation), world.loop.running():
        chaos = Chaos(world, outage=outage)
        chaos.plan()
        try:
            world.loop.run_until(1000.0 + chaos.seconds)
            world.loop.run_until(
                1000.0 + chaos.seconds + REST_WITHIN, over=lambda: not world.unrest()
            )
        except OutOfTime as error:
            wrong.append(str(error))
        wrong += judge(world)
        trace = list(world.trace)
        world.loop.forget()
    counts = world.counts + world.exchange.counts + world.twilio.counts
    return Outcome(seed, wrong, trace, counts)


def is_found(mutation: str) -> bool:
    """Whether a seed shows this fault of the product."""
    first = FIRST_SEED.get(mutation, 0)
    fleet = mutation in IN_FLEET
    seeds = range(first, first + FOUND_WITHIN)
    return any(run_seed(seed, mutation=mutation, fleet=fleet).wrong for seed in seeds)


def replay_command(
    seed: int, mutation: str | None = None, *, outage: bool = False, fleet: bool = False
) -> str:
    extra = "" if mutation is None else f" --mutation {mutation}"
    extra += " --outage" if outage else ""
    extra += " --fleet" if fleet else ""
    return f'make simulate SIMULATE="--seed {seed}{extra}"'


def in_a_process(*arguments: str) -> tuple[int, str]:
    """``python -m tests.simulation`` with these arguments; returns its exit status and what it
    said. Warnings are errors there, and sets of texts have one order."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.simulation", *arguments],
        env=os.environ | {"PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout
