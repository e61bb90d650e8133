"""The tester is tested: bots with planted faults have to be found, and good ones not blamed.

    python benchmarks/ear_bots.py             60 calls with each bot on each line, and the table
    python benchmarks/ear_bots.py --calls 10  a quick look

Every call is made with one bot, and judged for every fault, by what a test would look at in a
report. A fault that is told of a bot which has another one counts as a false alarm, too.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
import numpy as np

from benchmarks.ear_calls import FRAME, RATE, Floats, MadeCall, Random, frame_power, spoken, words
from trunkline.ear.digits import HIGH, KEYS, LOW
from trunkline.ear.figures import Report
from trunkline.ear.listen import listen

LINES = (("clean", 0.0), ("line", 15.0))
FAULTS = ("late", "never yields", "interrupts", "drops digits", "goes silent", "repeats itself")
DIGITS = "1470#"
#: A good bot answers within this, and a late one later (seconds).
LATE = 1.5
#: The questions of a call, and how many of their answers are late with a bot that is late once in
#: five answers.
QUESTIONS, LATE_ONES = 10, 2
#: The questions into whose answers we break.
BROKEN_INTO = (3, 6)
#: Nobody speaks for so long when a bot has gone silent.
SILENT = 4.0


def told(report: Report) -> set[str]:
    """The faults that a report shows."""
    theirs = report.sides.theirs.segments
    after_ours = {answer.start for answer in report.answers}
    ours = report.sides.ours.segments
    unasked = [
        later
        for one, later in itertools.pairwise(theirs)
        if later.start - one.end > 1.0
        and later.start not in after_ours
        and not any(one.end - 0.1 < said.end < later.start for said in ours)
    ]
    found = {
        "late": any(answer.latency > LATE for answer in report.answers),
        "never yields": any(each.seconds is None for each in report.yields),
        "interrupts": bool(report.interruptions_by_them),
        "drops digits": "".join(digit.digit for digit in report.digits) != DIGITS,
        "goes silent": any(each.end - each.start > SILENT for each in report.silences),
        "repeats itself": bool(unasked),
    }
    return {fault for fault, there in found.items() if there}


def key(digit: str) -> Floats:
    row = next(n for n, keys in enumerate(KEYS) if digit in keys)
    at = np.arange(round(0.1 * RATE)) / RATE * 2 * np.pi
    tone: Floats = 3000 * (np.sin(LOW[row] * at) + np.sin(HIGH[KEYS[row].index(digit)] * at))
    return tone


def call_with(fault: str | None, seed: int) -> MadeCall:
    """A call of ten questions with a bot; it has keys to press, and is interrupted twice."""
    random = np.random.default_rng([seed, FAULTS.index(fault) if fault else 9])
    call = MadeCall(1.0)
    at = _opening(call, fault, random)
    at = _digits(call, fault, random, at)
    whole = [n for n in range(QUESTIONS) if n not in BROKEN_INTO]
    late = set(random.choice(whole, LATE_ONES, replace=False)) if fault == "late" else set()
    silent = random.choice([2, 4, 5]) if fault == "goes silent" else None
    again = random.choice([1, 2, 4, 5]) if fault == "repeats itself" else None
    for n in range(QUESTIONS):
        _, asked = call.say("ours", words(random, 3.6), at + random.uniform(0.5, 1.5))
        if n == silent:
            # We wait, and then ask again.
            at = asked + random.uniform(4.5, 8.0)
            continue
        wait = random.uniform(1.6, 3.5) if n in late else random.uniform(0.3, 1.3)
        begin = asked + wait
        if n in BROKEN_INTO:
            at = _broken_in(call, fault, random, begin)
            continue
        answer = words(random, 5.5)
        _, at = call.say("theirs", answer, begin)
        if n == again:
            _, at = call.say("theirs", answer, at + random.uniform(1.2, 2.5))
    return call


def _opening(call: MadeCall, fault: str | None, random: Random) -> float:
    """We greet first, and they wait for it, or speak over it."""
    begin, end = call.say("ours", words(random), random.uniform(0.5, 1.5))
    if fault != "interrupts":
        return call.say("theirs", words(random, 3.6), end + random.uniform(0.3, 1.3))[1]
    over = call.say("theirs", words(random, 3.6), random.uniform(begin + 0.4, end - 1.0))[1]
    return max(over, end)


def _digits(call: MadeCall, fault: str | None, random: Random, at: float) -> float:
    """They press their keys; a tone is no recording, so it stands in no truth."""
    pressed = list(DIGITS)
    if fault == "drops digits":
        del pressed[int(random.integers(len(pressed)))]
    track = call.tracks["theirs"]
    at += 0.5
    for digit in pressed:
        tone = key(digit)
        begin = round(at * RATE)
        if begin + len(tone) > len(track):
            track = np.concatenate([track, np.zeros(begin + 2 * RATE - len(track))])
        track[begin : begin + len(tone)] += tone
        at += 0.2
    call.tracks["theirs"] = track
    return at


def _broken_in(call: MadeCall, fault: str | None, random: Random, begin: float) -> float:
    """We break into their answer."""
    answer = words(random)
    while len(answer) < 5 * RATE:
        answer = words(random)
    ours = words(random, 3.6)
    breaks_in = begin + random.uniform(1.0, 1.6)
    if fault != "never yields":
        loud = np.flatnonzero(frame_power(answer) > frame_power(answer).max() / 20)
        soonest = (breaks_in - begin + random.uniform(0.2, 0.7)) * 100
        answer = answer[: int(loud[np.searchsorted(loud, soonest)] + 1) * FRAME]
    else:
        # Speech that lasts for longer than ours, with no long pause.
        end = round(spoken(answer, 0)[-1].end * RATE)
        answer = np.concatenate([answer[:end], answer])
    _, said = call.say("theirs", answer, begin)
    _, broke = call.say("ours", ours, breaks_in)
    if fault == "never yields":
        return max(said, broke)
    return call.say("theirs", words(random, 3.6), broke + random.uniform(0.75, 1.3))[1]


@dataclass
class Score:
    """How one fault was found."""

    right: int = 0
    missed: int = 0
    false: int = 0

    @property
    def precision(self) -> float:
        return self.right / max(1, self.right + self.false)

    @property
    def recall(self) -> float:
        return self.right / max(1, self.right + self.missed)


def measure(
    noise: str, snr_db: float, calls: int, tell: Callable[[Report], set[str]] = told
) -> tuple[dict[str, Score], int]:
    """The score of each fault, and how many calls of a good bot were blamed for anything."""
    scores = {fault: Score() for fault in FAULTS}
    blamed = 0
    for bot in (None, *FAULTS):
        for seed in range(calls):
            found = tell(listen(*call_with(bot, seed).sound(noise, snr_db, seed)))
            blamed += bot is None and bool(found)
            for fault in FAULTS:
                scores[fault].right += fault == bot and fault in found
                scores[fault].missed += fault == bot and fault not in found
                scores[fault].false += fault != bot and fault in found
    return scores, blamed


@click.command()
@click.option("--calls", default=60, show_default=True, help="With each bot, on each line.")
def main(calls: int) -> None:
    """Whether planted faults are found."""
    rows = {fault: [fault] for fault in FAULTS}
    good = ["a good bot is blamed"]
    for noise, snr_db in LINES:
        scores, blamed = measure(noise, snr_db, calls)
        good += [f"{blamed} of {calls}", ""]
        for fault, score in scores.items():
            rows[fault] += [f"{100 * score.precision:.0f} %", f"{100 * score.recall:.0f} %"]
    click.echo("| the bot | clean: precision | recall | noise 15 dB below: precision | recall |")
    click.echo("|---|---|---|---|---|")
    for row in (*rows.values(), good):
        click.echo(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
