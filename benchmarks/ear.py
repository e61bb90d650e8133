"""How exact the ear is, on calls whose timings are known.

    python benchmarks/ear.py                  300 calls on each line, and the table of docs/ear.md
    python benchmarks/ear.py --calls 20       a quick look

Every figure is compared with the one that the known timings give: the edges of what was said, the
latency of answers, the time to yield. What has no counterpart within 0.25 s is missed, or made up.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
import numpy as np

from benchmarks.ear_calls import RATE, MadeCall, conversation
from trunkline.carrier_sim.wav import SPEECH_DIR
from trunkline.ear import turns
from trunkline.ear.figures import Report
from trunkline.ear.listen import listen

#: (noise, dB below the words)
LINES = (("clean", 0.0), ("white", 15.0), ("line", 15.0), ("pink", 15.0))
#: An event that is further away is another one.
NEAR = 0.25
Events = Sequence[tuple[float, float]]


@dataclass
class Errors:
    """Of one figure: how far it is off, in ms, and what had no counterpart."""

    off: list[float] = field(default_factory=list)
    missed: int = 0
    made_up: int = 0

    def compare(self, truth: Events, found: Events) -> None:
        """Events are (when, the figure)."""
        left = list(found)
        for when, figure in truth:
            near = min(left, key=lambda event: abs(event[0] - when), default=None)
            if near is None or abs(near[0] - when) > NEAR:
                self.missed += 1
            else:
                left.remove(near)
                self.off.append(1000 * (near[1] - figure))
        self.made_up += len(left)

    @property
    def p95(self) -> float:
        return float(np.percentile(np.abs(self.off), 95))

    @property
    def most(self) -> float:
        return max(map(abs, self.off))


@dataclass
class Score:
    """The ear on one line."""

    edges: Errors = field(default_factory=Errors)
    latency: Errors = field(default_factory=Errors)
    time_to_yield: Errors = field(default_factory=Errors)
    #: ms for a second of a call
    cost: float = 0.0


def compare(score: Score, call: MadeCall, report: Report) -> None:
    sides = (call.truth["ours"], report.sides.ours), (call.truth["theirs"], report.sides.theirs)
    for truth, heard in sides:
        first = [(segments[0].start, segments[0].start) for segments in truth]
        last = [(segments[-1].end, segments[-1].end) for segments in truth]
        starts = [(each.start, each.start) for each in heard.segments]
        ends = [(each.end, each.end) for each in heard.segments]
        made_up = [
            (each.start, each.start)
            for each in heard.segments
            if not any(
                r[0].start - NEAR < each.end and each.start < r[-1].end + NEAR for r in truth
            )
        ]
        for events, found in ((first, starts), (last, ends)):
            # A recording's inner pauses are edges, too, which are not known so well.
            near = [
                min(found, key=lambda f: abs(f[0] - at), default=(-1.0, -1.0)) for at, _ in events
            ]
            score.edges.compare(events, near)
        score.edges.made_up += len(made_up)
    ours, theirs = call.segments("ours"), call.segments("theirs")
    score.latency.compare(
        [(each.start, each.latency) for each in turns.answers(ours, theirs)],
        [(each.start, each.latency) for each in report.answers],
    )
    yields, _, _ = turns.yields(ours, theirs)
    score.time_to_yield.compare(
        [(each.at, each.seconds) for each in yields if each.seconds is not None],
        [(each.at, each.seconds) for each in report.yields if each.seconds is not None],
    )


def measure(
    noise: str, snr_db: float, calls: int, first: int = 0, directory: Path = SPEECH_DIR
) -> Score:
    score, seconds, spent = Score(), 0.0, 0.0
    for seed in range(first, first + calls):
        call = conversation(seed, directory)
        ours, theirs = call.sound(noise, snr_db, seed)
        began = time.process_time()
        report = listen(ours, theirs)
        spent += time.process_time() - began
        seconds += len(ours) / RATE
        compare(score, call, report)
    score.cost = 1000 * spent / seconds
    return score


def table(scores: dict[str, Score]) -> str:
    rows = [
        "| line | edges: p95, max | latency: p95, max | time to yield: p95, max | missed "
        "| made up |",
        "|---|---|---|---|---|---|",
    ]
    for name, score in scores.items():
        three = (score.edges, score.latency, score.time_to_yield)
        cells = [f"{each.p95:.0f}, {each.most:.0f} ms" for each in three]
        of = sum(len(each.off) + each.missed for each in three)
        cells.append(f"{sum(each.missed for each in three)} of {of}")
        cells.append(str(sum(each.made_up for each in three)))
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


@click.command()
@click.option("--calls", default=300, show_default=True, help="On each line.")
@click.option("--first", default=0, show_default=True, help="The first call's seed.")
@click.option(
    "--recordings",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    default=SPEECH_DIR,
    help="A directory of WAV files, in place of the shipped recordings.",
)
def main(calls: int, first: int, recordings: Path) -> None:
    """How exact the ear is."""
    scores = {}
    for noise, snr_db in LINES:
        name = "clean" if noise == "clean" else f"{noise}, {snr_db:.0f} dB"
        scores[name] = measure(noise, snr_db, calls, first, recordings)
    click.echo(table(scores))
    click.echo(f"\n{max(score.cost for score in scores.values()):.2f} ms for a second of a call")


if __name__ == "__main__":
    main()
