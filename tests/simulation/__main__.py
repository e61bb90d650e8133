"""``python -m tests.simulation``: run seeds, and see whether faults that are put into the product
on purpose are found; or replay some seeds with all that happened.

All seeds are run with one controller. An eighth of them is run again with the database away for a
time, and an eighth with two controllers that share a database.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, Final

from .mutations import MUTATIONS
from .run import FOUND_WITHIN, is_found, replay_command, run_seed

#: Fewer seeds are run in this process: one of a pool takes the time of ten to begin.
WORTH_PROCESSES: Final = 50
#: As the builtin ``map``.
Map = Callable[[Callable[[Any], Any], Any], Any]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, nargs="+", help="replay these, and print all of it")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--mutation", choices=sorted(MUTATIONS), help="a fault in the product")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--outage", action="store_true", help="only with the database away")
    kind.add_argument("--fleet", action="store_true", help="only with two controllers")
    parser.add_argument("--no-mutations", action="store_true", help="run seeds alone")
    given = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of texts must have one order, or a run would not follow from its seed.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    faults = {"outage": given.outage, "fleet": given.fleet}
    if given.seed is not None:
        return max([_replay(seed, given.mutation, faults) for seed in given.seed])
    seeds = range(given.first, given.first + given.seeds * given.step, given.step)
    mutations = given.mutation is None and not given.no_mutations
    if len(seeds) < WORTH_PROCESSES and not mutations:
        return _run_all(map, seeds, given.mutation, faults)
    # A seed needs nothing of another, so every core has one under way.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as cores:
        status = _run_all(cores.map, seeds, given.mutation, faults)
        if mutations:
            status |= _find_mutations(cores)
    return status


def _replay(seed: int, mutation: str | None, faults: dict[str, bool]) -> int:
    outcome = run_seed(seed, mutation=mutation, tracing=True, **faults)
    print("\n".join(outcome.trace))
    print(dict(outcome.counts))
    print("\n".join(outcome.wrong) or "nothing is wrong")
    return 1 if outcome.wrong else 0


def _run_all(of_each: Map, seeds: range, mutation: str | None, faults: dict[str, bool]) -> int:
    status = _run(of_each, seeds, mutation, faults)
    if not any(faults.values()):
        some = seeds[: -(-len(seeds) // 8)]
        for only in faults:
            status |= _run(of_each, some, mutation, faults | {only: True})
    return status


def _run(of_each: Map, seeds: range, mutation: str | None, faults: dict[str, bool]) -> int:
    began = time.monotonic()
    bad = 0
    for outcome in of_each(partial(run_seed, mutation=mutation, **faults), seeds):
        if outcome.wrong:
            bad += 1
            print(f"seed {outcome.seed}: {outcome.wrong[0]}")
            for line in outcome.wrong[1:4]:
                print(f"    {line}")
            print(f"    {replay_command(outcome.seed, mutation, **faults)}", flush=True)
    what = "".join(f" with {fault}" for fault, here in faults.items() if here)
    print(f"{len(seeds)} seeds{what}, {bad} bad, {time.monotonic() - began:.1f} s")
    return 1 if bad else 0


def _find_mutations(cores: ProcessPoolExecutor) -> int:
    """Each fault is put into the product, and seeds are run until one of them shows it."""
    began = time.monotonic()
    are_found = cores.map(is_found, MUTATIONS)
    missed = [mutation for mutation, found in zip(MUTATIONS, are_found, strict=True) if not found]
    for mutation in missed:
        print(f"{mutation}: not found in {FOUND_WITHIN} seeds")
    found = len(MUTATIONS) - len(missed)
    seconds = time.monotonic() - began
    print(f"{found} of {len(MUTATIONS)} faults put into the product were found, {seconds:.1f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
