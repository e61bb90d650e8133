"""``python -m tests.fuzz.led TARGET SECONDS SEED FOUND``: one target, led by the branches that it
takes.

A process of its own, because libFuzzer, which atheris is made of, ends it. Bytes that are a fault
are written to the target's corpus, and bytes that take a new branch to the directory FOUND.
"""

from __future__ import annotations

import sys

import atheris

#: Whose branches count.
LED_BY = [
    *("trunkline.gateway", "trunkline.replay", "trunkline.carrier_sim.twiml"),
    "twilio.request_validator",
]
#: The longest input in bytes.
LONGEST = 4_096

with atheris.instrument_imports(include=LED_BY):
    from . import targets


def main(name: str, seconds: str, seed: str, found: str) -> None:
    corpus = targets.CORPUS / name
    options = [f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={LONGEST}"]
    atheris.Setup(
        [sys.argv[0], *options, f"-artifact_prefix={corpus}/", found, str(corpus)],
        targets.TARGETS[name].check,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
