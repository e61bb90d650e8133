"""``python -m tests.fuzz``: look for inputs that no target stands, for 5 minutes.

    python -m tests.fuzz --seconds 20 --seed 1
    python -m tests.fuzz --target forms --seconds 600

Targets that take bytes are fuzzed by atheris where it is installed: in a process of its own,
because it does not return. hypothesis draws for the others, and for all where there is no atheris.
Bytes that were a fault go to the target's corpus, which the suite runs as tests: commit them with
the mend. Of built values hypothesis prints the smallest, for a test of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from typing import Any, Final

import hypothesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import targets
from .targets import Target, corpus

#: Inputs of one round of hypothesis.
ROUND: Final = 100
_SETTINGS: Final[dict[str, Any]] = {
    "database": None,
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="for all targets together")
    parser.add_argument("--seed", type=int, help="default: a new one")
    parser.add_argument("--target", action="append", help="only this one; may be repeated")
    asked = parser.parse_args()
    logging.disable()  # what is refused is logged, a thousand times here
    seed = random.SystemRandom().randrange(1_000_000) if asked.seed is None else asked.seed
    names = asked.target or list(targets.TARGETS)
    print(f"seed {seed}", flush=True)
    led = importlib.util.find_spec("atheris") is not None
    bad = 0
    for name in names:
        target, seconds = targets.TARGETS[name], asked.seconds / len(names)
        if led and target.draws is None:
            bad += _by_atheris(name, seconds, seed)
        else:
            bad += by_hypothesis(name, target, seconds, seed)
    print(f"{len(names)} targets, {bad} with a fault")
    return 1 if bad else 0


def by_hypothesis(name: str, target: Target, seconds: float, seed: int) -> int:
    """1 if a fault was found, which is printed."""
    draws = _like(corpus(name)) if target.draws is None else target.draws
    until = time.monotonic() + seconds
    rounds = 0
    while rounds == 0 or time.monotonic() < until:
        test = given(draws)(target.check)
        test = hypothesis.seed(seed + rounds)(settings(**_SETTINGS, max_examples=ROUND)(test))
        try:
            test()
        except BaseException as error:  # whatever a check raises is a fault
            if isinstance(error, KeyboardInterrupt):
                raise
            traceback.print_exception(error)
            print(f"{name}: a fault, in round {rounds} of seed {seed}", flush=True)
            return 1
        rounds += 1
    print(f"{name}: {rounds * ROUND} inputs by hypothesis", flush=True)
    return 0


def _like(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes like the corpus's, with a piece cut out and another one put in."""

    @st.composite
    def drawn(draw: st.DrawFn) -> bytes:
        data = draw(st.sampled_from(seeds))
        begin = draw(st.integers(0, len(data)))
        end = draw(st.integers(begin, len(data)))
        return data[:begin] + draw(st.binary(max_size=40)) + data[end:]

    return drawn() | st.binary(max_size=200)


def _by_atheris(name: str, seconds: float, seed: int) -> int:
    """1 if a fault was found: its bytes are in the corpus now."""
    with tempfile.TemporaryDirectory(prefix="trunkline-fuzz-") as found:
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.led", name),
                *(f"{max(1.0, seconds):.0f}", str(seed), found),
            ],
            capture_output=True,
            text=True,
        )
    if ended.returncode:
        print(ended.stdout + ended.stderr)
        print(f"{name}: a fault, whose bytes are in {targets.CORPUS / name}", flush=True)
        return 1
    runs = re.findall(r"^#(\d+)", ended.stderr, re.MULTILINE)
    print(f"{name}: {runs[-1] if runs else 0} inputs by atheris", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
