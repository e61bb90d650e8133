"""The benchmark: N calls full duplex, trunkline beside langwatch-scenario's own adapter.

    python benchmarks/run.py                  1, 10, 40 and 100 calls, 10 s of speech each
    python benchmarks/run.py --calls 10 --no-peer
    python benchmarks/run.py --calls 100 --calls 200 --page     and docs/benchmarks.md of it

Both sides run one after the other in the same run. The load generator (carrier_sim: REST, Media
Streams, callees that talk) runs on the same cores. Every number about pace is taken at the carrier:
when each message arrived there, and whether the playback buffer ran dry. CPU is what all processes
of a side used while there was sound, the carrier's apart.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
from rich.console import Console
from rich.table import Table

from benchmarks import page
from benchmarks.processes import OWN_NUMBER, Client, Run, callee, carrier, cpu


def measure(
    run: Run, client: Client, calls: int, seconds: float, *, has_stack: bool
) -> dict[str, Any]:
    """Let the client talk; what the carrier heard, and what it cost."""
    ready = client.read("ready")
    before, began = cpu(run, client.process), time.monotonic()
    client.tell("go")
    done = client.read("done")
    took = time.monotonic() - began
    after = cpu(run, client.process)
    streams = [s for s in run.sim.streams() if s["frames_out"]]
    errors = [e for e in run.sim.errors()]
    client.tell("end")
    end = client.read("heard_seconds")
    client.close()
    # Counted once the calls are over: the last frame may have been on its way before.
    wanted = seconds * 1000
    missing = [
        max(0.0, wanted - s["metrics"]["audio_out_ms"]) / 20
        for s in run.sim.streams()
        if s["frames_out"]
    ]
    talks = [max(s["metrics"]["utterances"], key=lambda u: u["audio_ms"]) for s in streams]
    spent = {
        name: (used - before.get(name, 0.0)) * 1000 / (calls * took) for name, used in after.items()
    }
    ours = sum(used for name, used in spent.items() if name != "carrier_sim")
    return {
        "calls": calls,
        "seconds": seconds,
        "took_s": max(done["took"]),
        "setup_s": ready["setup_seconds"],
        "streams": len(streams),
        "drift_ms": max((t["slope"] - 1) * wanted for t in talks),
        "gap_p50_ms": statistics.median(t["gap_p50_ms"] for t in talks),
        "gap_p99_typical_ms": statistics.median(t["gap_p99_ms"] for t in talks),
        "gap_p99_ms": max(t["gap_p99_ms"] for t in talks),
        "gap_max_ms": max(t["gap_max_ms"] for t in talks),
        "underruns": sum(s["metrics"]["underruns"] for s in streams),
        "underrun_ms": sum(s["metrics"]["underrun_ms"] for s in streams),
        "lost_out_frames": sum(missing),
        "lost_in_frames": end.get("lost_in_samples", 0) / 160 if has_stack else None,
        "cpu_ms_per_call_second": ours,
        "cpu_by_process": {k: v for k, v in sorted(spent.items()) if k != "other"},
        "carrier_errors": sorted({e["code"] for e in errors}),
        "carrier_late_ms": run.sim.load()["late_p99_ms"],
    }


def trunkline(calls: int, seconds: float) -> dict[str, Any]:
    with carrier(calls) as run:
        each = 1 if calls == 1 else 2
        run.up(gateways=each, codec_workers=each)
        client = Client(
            run,
            "client_trunkline",
            {
                "number": OWN_NUMBER,
                "callees": [callee(n) for n in range(calls)],
                "seconds": seconds,
            },
        )
        return measure(run, client, calls, seconds, has_stack=True)


def scenario(calls: int, seconds: float) -> dict[str, Any]:
    with carrier(calls) as run:
        client = Client(
            run,
            "client_scenario",
            {
                "number": OWN_NUMBER,
                "callees": [callee(n) for n in range(calls)],
                "seconds": seconds,
                "sid": run.environment["TWILIO_ACCOUNT_SID"],
                "token": run.environment["TWILIO_AUTH_TOKEN"],
                "api": run.sim.base_url,
            },
        )
        return measure(run, client, calls, seconds, has_stack=False)


@click.command()
@click.option("--calls", "counts", multiple=True, type=int, help="Repeatable; default 1 10 40 100.")
@click.option("--seconds", default=10.0, show_default=True, help="Speech per call.")
@click.option("--peer/--no-peer", default=True, help="Run langwatch-scenario's adapter too.")
@click.option(
    "--peer-up-to", default=100, show_default=True, help="Calls at once that it is asked to carry."
)
@click.option("--page/--no-page", "write_page", default=False, help="Write docs/benchmarks.md.")
def main(
    counts: tuple[int, ...], seconds: float, peer: bool, peer_up_to: int, write_page: bool
) -> None:
    """Pace, loss and CPU of N calls, trunkline beside langwatch-scenario."""
    console = Console(width=max(100, Console().width))
    results: list[dict[str, Any]] = []
    for calls in counts or (1, 10, 40, 100):
        console.print(f"{calls} calls: trunkline …")
        ours = trunkline(calls, seconds)
        theirs = None
        if peer and calls <= peer_up_to:
            console.print(f"{calls} calls: langwatch-scenario …")
            theirs = scenario(calls, seconds)
        results.append({"trunkline": ours, "scenario": theirs})
    table = Table(title="at the carrier")
    table.add_column("calls")
    for result in results:
        n = result["trunkline"]["calls"]
        table.add_column(f"{n}\ntrunkline", justify="right")
        table.add_column(f"{n}\nscenario", justify="right")
    for row in page.table_rows(results):
        table.add_row(*row)
    console.print(table)
    for result in results:
        ours = result["trunkline"]
        by = ", ".join(f"{k} {v:.2f}" for k, v in ours["cpu_by_process"].items())
        console.print(f"{ours['calls']} calls, CPU ms per call-second: {by}")
        if ours["carrier_errors"]:
            console.print(f"the carrier lists errors: {ours['carrier_errors']}")
    page.OUT.mkdir(parents=True, exist_ok=True)
    (page.OUT / "results.json").write_text(json.dumps(results, indent=1))
    console.print(f"written to {page.OUT / 'results.json'}")
    if write_page:
        page.write()
        console.print(f"written to {page.PAGE}")
    if any(r["trunkline"]["streams"] != r["trunkline"]["calls"] for r in results):
        raise SystemExit("not every call carried sound")


if __name__ == "__main__":
    main()
