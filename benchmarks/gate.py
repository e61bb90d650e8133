"""Which detector ends turns best: our energy gate, webrtcvad, or Silero by onnxruntime.

    python benchmarks/gate.py
    pip install onnxruntime && pip install --no-deps silero-vad     # for the third

The shipped recordings, in a telephone's band, in silence and in noise. For each detector:

- *cut*: recordings of which more than 0.1 % of the energy was not handed out;
- *late*: how long after its last word a turn ends (median, and the worst; scenario waits 0.6 s
  after the last sound), and how many did not end within 1.2 s;
- *split*: answers with a pause of 0.9 s that fell into two turns;
- *false*: 20 s of noise alone in which something was handed out;
- the time for 20 ms of one call.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# The repository, and the sound of the tests.
sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "adapter"))

import click
import numpy as np
from line_sound import NAMES, RATE, Samples, noise, pcm, power, silence, with_noise, words
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import page
from benchmarks.detectors import STEP, TAIL, Detector, available

LEAD, PAUSE = 2.0, 0.9
#: A turn has to end this long after its last word.
ENDS_WITHIN = 1.2
CONDITIONS = [
    ("clean", 0.0),
    *[("white", snr) for snr in (30.0, 20.0, 15.0, 10.0)],
    *[("line", snr) for snr in (30.0, 20.0, 15.0, 10.0)],
    *[("pink", snr) for snr in (20.0, 10.0)],
    *[("hum", snr) for snr in (20.0, 10.0)],
]


@dataclass
class Score:
    """What one detector did under one condition."""

    cut: int = 0
    late: list[float] = field(default_factory=list)
    split: int = 0
    false: int = 0
    words: int = 0
    pairs: int = 0
    noises: int = 0


def hear(kind: type[Detector], line: Samples) -> Detector:
    """All of ``line`` through a new detector, 20 ms at a time."""
    detector, fed = kind(), pcm(line)
    for begin in range(0, len(fed), 2 * STEP):
        detector.push(fed[begin : begin + 2 * STEP])
    return detector


def turns(detector: Detector) -> Iterator[tuple[int, int]]:
    """(begin, end) of each turn: spans whose pause was noticed to be over within TAIL."""
    begin = end = None
    for span_begin, span_end, when in detector.spans:
        if begin is None or end is None:
            begin, end = span_begin, span_end
        elif when - end < TAIL * RATE:
            end = span_end
        else:
            yield begin, end
            begin, end = span_begin, span_end
    if begin is not None and end is not None:
        yield begin, end


def one_answer(
    kind: type[Detector], name: str, condition: tuple[str, float], seed: int, score: Score
) -> None:
    said = words(name)
    clean = np.concatenate([silence(LEAD), said, silence(3.0)])
    detector = hear(kind, with_noise(clean, *condition, seed=seed, power=power(said)))
    left = clean.copy()
    for begin, end, _ in detector.spans:
        left[begin:end] = 0.0
    score.words += 1
    score.cut += bool((left**2).sum() > 0.001 * (clean**2).sum())
    last = max((end for _, end in turns(detector)), default=len(clean))
    score.late.append(last / RATE + TAIL - LEAD - len(said) / RATE)


def one_pair(
    kind: type[Detector],
    names: tuple[str, str],
    condition: tuple[str, float],
    seed: int,
    score: Score,
) -> None:
    one, two = (words(name) for name in names)
    whole = np.concatenate([silence(LEAD), one, silence(PAUSE), two, silence(2.0)])
    detector = hear(kind, with_noise(whole, *condition, seed=seed, power=power(one)))
    begin, end = LEAD * RATE, LEAD * RATE + len(one) + PAUSE * RATE
    score.pairs += 1
    # One of the turns has to reach from the first answer's beginning into the second's words.
    score.split += not any(
        b < begin + 0.3 * RATE and e > end + 0.3 * RATE for b, e in turns(detector)
    )


def noise_alone(
    kind: type[Detector], condition: tuple[str, float], seed: int, score: Score
) -> None:
    level = 2000.0 * 10 ** (-condition[1] / 20)
    score.noises += 1
    score.false += bool(hear(kind, noise(condition[0], 20 * RATE, seed) * level).spans)


def speed(kind: type[Detector]) -> float:
    """Microseconds of CPU for 20 ms of one call."""
    line = with_noise(words(NAMES[0]), "line", 20.0, seed=1, power=power(words(NAMES[0])))
    hear(kind, line[: RATE // 2])
    began = time.process_time()
    hear(kind, line)
    return (time.process_time() - began) * 1e6 / (len(line) / STEP)


def measure(kind: type[Detector], seeds: int) -> dict[str, Score]:
    scores = {}
    for condition in track(CONDITIONS, f"{kind.name} …"):
        score = scores["{} {:.0f} dB".format(*condition).replace("clean 0 dB", "clean")] = Score()
        for seed in range(seeds):
            for name in NAMES:
                one_answer(kind, name, condition, seed, score)
            for names in itertools.product(NAMES, NAMES):
                one_pair(kind, names, condition, seed, score)
            noise_alone(kind, condition, seed, score)
    return scores


@click.command()
@click.option("--only", help="A detector whose name contains this.")
@click.option("--seeds", default=3, show_default=True, help="Of the noise.")
def main(only: str | None, seeds: int) -> None:
    """Our energy gate beside other voice activity detectors."""
    console = Console(width=max(100, Console().width))
    results = {}
    for kind in available():
        if only and only not in kind.name:
            continue
        scores, cost = measure(kind, seeds), speed(kind)
        table = Table(title=f"{kind.name}: {cost:.0f} µs for 20 ms")
        for column in ("line", "cut", "turn ends after", "worst", "too late", "split", "false"):
            table.add_column(column, justify="left" if column == "line" else "right")
        for line, score in scores.items():
            late = sum(seconds > ENDS_WITHIN for seconds in score.late)
            table.add_row(
                line,
                f"{score.cut} of {score.words}",
                f"{statistics.median(score.late):.2f} s",
                f"{max(score.late):.2f} s",
                f"{late} of {score.words}",
                f"{score.split} of {score.pairs}",
                f"{score.false} of {score.noises}",
            )
        console.print(table)
        results[kind.name] = {"us": cost} | {line: vars(score) for line, score in scores.items()}
    page.keep("gate", results)


if __name__ == "__main__":
    main()
