"""``python -m tests.simulation``: run seeds, replay one with all that happened, or see whether
faults put into the product on purpose are found."""

from __future__ import annotations

import argparse
import os
import sys
import time

from .mutations import MUTATIONS
from .run import replay_command, run_seed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay one seed and print what happened")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to run (at most)")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--mutation", choices=sorted(MUTATIONS), help="a fault in the product")
    parser.add_argument(
        "--mutations", action="store_true", help="run seeds with each fault until it is found"
    )
    given = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of texts must have one order, or a run would not follow from its seed.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    if given.seed is not None:
        return _replay(given.seed, given.mutation)
    seeds = range(given.first, given.first + given.seeds * given.step, given.step)
    return _find_mutations(seeds) if given.mutations else _run(seeds, given.mutation)


def _replay(seed: int, mutation: str | None) -> int:
    outcome = run_seed(seed, mutation=mutation, tracing=True)
    print("\n".join(outcome.trace))
    print(dict(outcome.counts))
    print("\n".join(outcome.wrong) or "nothing is wrong")
    return 1 if outcome.wrong else 0


def _run(seeds: range, mutation: str | None) -> int:
    began = time.monotonic()
    bad = 0
    for seed in seeds:
        outcome = run_seed(seed, mutation=mutation)
        if outcome.wrong:
            bad += 1
            print(f"seed {seed}: {outcome.wrong[0]}")
            for line in outcome.wrong[1:4]:
                print(f"    {line}")
            print(f"    {replay_command(seed, mutation)}", flush=True)
    print(f"{len(seeds)} seeds, {bad} bad, {time.monotonic() - began:.1f} s")
    return 1 if bad else 0


def _find_mutations(seeds: range) -> int:
    missed = 0
    for mutation in MUTATIONS:
        for seed in seeds:
            outcome = run_seed(seed, mutation=mutation)
            if outcome.wrong:
                print(f"{mutation}: seed {seed}: {outcome.wrong[0][:150]}", flush=True)
                break
        else:
            missed += 1
            print(f"{mutation}: not found in {len(seeds)} seeds", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
