"""Runs seeds: one, or many in several processes."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .clock import OutOfTime
from .faults import Chaos
from .judge import judge
from .mutations import mutated
from .world import REST_WITHIN, World


@dataclass
class Outcome:
    """What became of one seed. ``wrong``: what is not as it has to be."""

    seed: int
    wrong: list[str]
    trace: list[str]
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    events: int = 0


def run_seed(seed: int, *, mutation: str | None = None, tracing: bool = False) -> Outcome:
    """Simulate one seed to its rest, and judge it."""
    gc.freeze()  # what is there already need not be looked at again and again
    gc.disable()  # what dead processes leave is collected at the end, not in the middle
    try:
        return contextvars.copy_context().run(_run_seed, seed, mutation, tracing)
    finally:
        with _without_last_words():
            gc.collect()
        gc.enable()
        gc.unfreeze()


def _run_seed(seed: int, mutation: str | None, tracing: bool) -> Outcome:
    world = World(seed, tracing=tracing)
    wrong = []
    with world.patched(), mutated(mutation), world.loop.running():
        chaos = Chaos(world)
        chaos.plan()
        try:
            world.loop.run_until(1000.0 + chaos.seconds)
            world.loop.run_until(
                1000.0 + chaos.seconds + REST_WITHIN, over=lambda: not world.unrest()
            )
        except OutOfTime as error:
            wrong.append(str(error))
        wrong += judge(world)
    counts = world.counts + world.exchange.counts + world.twilio.counts
    seconds = world.loop.time() - 1000.0
    return Outcome(seed, wrong, list(world.trace), counts, seconds, world.loop.events)


@contextlib.contextmanager
def _without_last_words() -> Iterator[None]:
    """Coroutines of processes that were killed are closed here, and may protest."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda unraisable: None
    try:
        yield
    finally:
        sys.unraisablehook = before


def run_seeds(seeds: Iterable[int], *, mutation: str | None = None) -> tuple[list[Outcome], int]:
    """All seeds, one after the other; returns those that went wrong, and how many were run."""
    bad = []
    count = 0
    for seed in seeds:
        outcome = run_seed(seed, mutation=mutation)
        count += 1
        if outcome.wrong:
            bad.append(outcome)
    return bad, count


def replay_command(seed: int, mutation: str | None = None) -> str:
    extra = "" if mutation is None else f" --mutation {mutation}"
    return f"python -m tests.simulation --seed {seed}{extra}"


def in_children(arguments: list[list[str]]) -> list[tuple[int, str]]:
    """Run ``python -m tests.simulation`` with each list of arguments, all at once; returns
    exit statuses and outputs. Sets of texts have one order there: a run follows from its seed."""
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.simulation", *given],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for given in arguments
    ]
    found = []
    for child in children:
        output, _ = child.communicate()
        found.append((child.returncode, output))
    return found
