"""``python -m tests.simulation``: run seeds, or replay one with all that happened."""

from __future__ import annotations

import argparse
import os
import sys
import time

from .run import replay_command, run_seed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay one seed and print what happened")
    parser.add_argument("--seeds", type=int, default=100, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--mutation")
    given = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of texts must have one order, or a run would not follow from its seed.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    if given.seed is not None:
        outcome = run_seed(given.seed, mutation=given.mutation, tracing=True)
        print("\n".join(outcome.trace))
        print(dict(outcome.counts))
        print("\n".join(outcome.wrong) or "nothing is wrong")
        return 1 if outcome.wrong else 0
    began = time.monotonic()
    bad = 0
    for seed in range(given.first, given.first + given.seeds * given.step, given.step):
        outcome = run_seed(seed, mutation=given.mutation)
        if outcome.wrong:
            bad += 1
            print(f"seed {seed}: {outcome.wrong[0]}")
            for line in outcome.wrong[1:4]:
                print(f"    {line}")
            print(f"    {replay_command(seed, given.mutation)}")
    print(f"{given.seeds} seeds, {bad} bad, {time.monotonic() - began:.1f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
