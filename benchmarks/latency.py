"""How soon sound is at the other end, each way beside the lead, and how soon an interrupt is.

    python benchmarks/latency.py
    python benchmarks/latency.py --calls 10

The far ends speak all the time. Each call says a second of sound, interrupts it after 0.4 s, and
begins again 0.4 s later. *Out* is from ``send_audio`` to the arrival of its first frame at the
carrier, which plays it at once. *In* is from the moment at which the carrier sends a frame to the
``recv_audio`` that brings it. *Interrupt* is from ``interrupt`` to the arrival of the ``clear``,
which stops the sound at the far end.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
import numpy as np
from rich.console import Console

from benchmarks import arrivals, page
from benchmarks.measure import Side, Trial

#: One gateway, one codec worker, and a client that takes turns.
TURNS: Final = Side("trunkline", "client_latency", 1)
#: Bytes of PCM16 at 24 kHz that one frame becomes.
FRAME_BYTES: Final = 960


def delays(stamps: arrivals.Floats, since: arrivals.Floats) -> arrivals.Floats:
    """From each moment of ``since`` to the first of ``stamps`` after it, where there is one."""
    first = np.searchsorted(stamps, since)
    there = first < len(stamps)
    return np.asarray(stamps[first[there]] - since[there])


def inbound(sent_at: arrivals.Floats, heard: Sequence[tuple[int, int]]) -> arrivals.Floats:
    """How long each frame took, in ms, by when how much had been heard."""
    at, size = np.array(heard, np.int64).T
    frames = np.minimum(-(-size // FRAME_BYTES), len(sent_at))
    return np.asarray(np.repeat(at / 1e6, np.diff(frames, prepend=0)) - sent_at[: frames[-1]])


def measure(calls: int) -> dict[str, Any]:
    """ms: the median of each, and the latest of a hundred."""
    with Trial(TURNS, calls, 1.0) as trial:
        trial.begin()
        trial.client.tell("go")
        said = trial.client.read("done")["done"]
        _, streams, heard = trial.end()
    found: dict[str, list[arrivals.Floats]] = {"out": [], "in": [], "interrupt": []}
    for stream in streams:
        began, interrupted = np.array(said[stream.call_sid], np.int64).T / 1e6
        found["out"].append(delays(stream.times, began))
        found["in"].append(inbound(stream.sent_at, heard[stream.call_sid]))
        found["interrupt"].append(delays(stream.clears, interrupted))
    told: dict[str, Any] = {"calls": calls}
    for name, parts in found.items():
        p50, p99 = np.percentile(np.concatenate(parts), (50, 99))
        told |= {f"{name}_p50_ms": float(p50), f"{name}_p99_ms": float(p99)}
    return told


@click.command()
@click.option("--calls", "counts", multiple=True, type=int, help="Repeatable; default 1 and 100.")
def main(counts: Sequence[int]) -> None:
    """Latency each way, and of an interrupt."""
    console = Console(width=max(100, Console().width))
    found = [measure(calls) for calls in counts or (1, 100)]
    head = list(found[0])
    console.print(page.markdown(head, [[f"{one[key]:.4g}" for key in head] for one in found]))
    if not counts:
        page.keep("latency", found)


if __name__ == "__main__":
    main()
