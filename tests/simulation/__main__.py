"""``python -m tests.simulation``: run seeds, and see whether faults that are put into the product
on purpose are found; or replay some seeds with all that happened."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Final

from .mutations import IN_FLEET, MUTATIONS
from .run import replay_command, run_seed

#: Within so many seeds each fault that is put into the product is found.
FOUND_WITHIN: Final = 1500
#: Where the search for a fault begins, if few seeds show it: at 0 for all others.
FROM: Final = {"ends_are_read_in_time": 11_700}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, nargs="+", help="replay these, and print all of it")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--mutation", choices=sorted(MUTATIONS), help="a fault in the product")
    parser.add_argument("--outage", action="store_true", help="the database is away for a time")
    parser.add_argument("--fleet", action="store_true", help="two controllers, one database")
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
    status = _run(seeds, given.mutation, faults)
    if given.mutation is None and not given.no_mutations:
        status |= _find_mutations()
    return status


def _replay(seed: int, mutation: str | None, faults: dict[str, bool]) -> int:
    outcome = run_seed(seed, mutation=mutation, tracing=True, **faults)
    print("\n".join(outcome.trace))
    print(dict(outcome.counts))
    print("\n".join(outcome.wrong) or "nothing is wrong")
    return 1 if outcome.wrong else 0


def _run(seeds: range, mutation: str | None, faults: dict[str, bool]) -> int:
    began = time.monotonic()
    bad = 0
    for seed in seeds:
        outcome = run_seed(seed, mutation=mutation, **faults)
        if outcome.wrong:
            bad += 1
            print(f"seed {seed}: {outcome.wrong[0]}")
            for line in outcome.wrong[1:4]:
                print(f"    {line}")
            print(f"    {replay_command(seed, mutation, **faults)}", flush=True)
    print(f"{len(seeds)} seeds, {bad} bad, {time.monotonic() - began:.1f} s")
    return 1 if bad else 0


def _find_mutations() -> int:
    """Each fault is put into the product, and seeds are run until one of them shows it."""
    began = time.monotonic()
    missed = [mutation for mutation in MUTATIONS if not _is_found(mutation)]
    for mutation in missed:
        print(f"{mutation}: not found in {FOUND_WITHIN} seeds")
    found = len(MUTATIONS) - len(missed)
    seconds = time.monotonic() - began
    print(f"{found} of {len(MUTATIONS)} faults put into the product were found, {seconds:.1f} s")
    return 1 if missed else 0


def _is_found(mutation: str) -> bool:
    first = FROM.get(mutation, 0)
    seeds = range(first, first + FOUND_WITHIN)
    fleet = mutation in IN_FLEET
    return any(run_seed(seed, mutation=mutation, fleet=fleet).wrong for seed in seeds)


if __name__ == "__main__":
    sys.exit(main())
