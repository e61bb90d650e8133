"""What an open console costs a stack: CPU of its processes, by turns with a page and without one.

    python benchmarks/console.py
    python benchmarks/console.py --calls 20 --turns 4

All calls talk in both directions all the time. In every other turn a page is open: somebody reads
``/api/live``, and in a third kind of turn the sound of one call too. The machine's load changes
over a minute by more than a page costs, so short turns of all kinds alternate, and the figure is
the mean of the differences between neighbours, with its standard error. The browser is not the
stack's, and is not counted.
"""

from __future__ import annotations

import http.client
import math
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent.parent))

import click

from benchmarks import page
from benchmarks.measure import Trial, cpu_seconds, line
from benchmarks.processes import role
from trunkline.bus.launch import trunkline_argv

#: From a page's beginning or end until that is all there is.
SETTLES: Final = 0.6
#: The processes that have a part in it. Codec workers do nothing for a console, and what they spend
#: differs more from turn to turn than all of it.
PART: Final = ("controller", "gateway")
KINDS: Final = ("closed", "a page is open", "and one call is heard")


class Reader:
    """Reads a stream of the console in a thread, until it is closed."""

    def __init__(self, port: int, path: str, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._connection.connect()
        self._socket = self._connection.sock
        self._connection.request("GET", path, headers={"authorization": f"Bearer {token}"})
        self._answer = self._connection.getresponse()
        if self._answer.status != 200:
            raise SystemExit(f"{path}: {self._answer.status} {self._answer.read()!r}")
        self.heard = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while chunk := self._answer.read1():
                self.heard += chunk
        except (OSError, http.client.HTTPException):
            return  # closed from here

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()


def token_of(trial: Trial) -> str:
    """The token of ``trunkline console``."""
    argv = trunkline_argv("console", "--print")
    done = subprocess.run(
        argv, env=trial.run.environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip().partition("#token=")[2]


def first_call(port: int, token: str) -> str:
    """The id of a call that lives."""
    reader = Reader(port, "/api/live", token)
    time.sleep(SETTLES)
    reader.close()
    found = re.search(rb'"calls":\[.*?"id":"(\w+)"', reader.heard)
    assert found is not None, reader.heard[:500]
    return found[1].decode()


def spent(trial: Trial) -> dict[str, float]:
    """CPU seconds so far of the stack's processes, by role."""
    found: defaultdict[str, float] = defaultdict(float)
    for process in trial.run.family():
        if role(process) in ("gateway", "codec_worker", "controller"):
            found[role(process)] += cpu_seconds(process.pid)
    return found


@click.command()
@click.option("--calls", default=100, show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="Of one turn.")
@click.option("--turns", default=24, show_default=True, help="Of each kind.")
def main(calls: int, seconds: float, turns: int) -> None:
    """CPU of a stack with a console that is closed, open, and listened to."""
    rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    told: list[float] = []
    with Trial(line(2), calls, 3 * turns * (SETTLES + seconds) + 30) as trial:
        trial.begin(keeps=False)
        trial.client.tell("go")
        token, port = token_of(trial), trial.run.console
        call = first_call(port, token)
        for _ in range(turns):
            for kind in KINDS:
                readers = [] if kind == KINDS[0] else [Reader(port, "/api/live", token)]
                if kind == KINDS[2]:
                    readers.append(Reader(port, f"/api/calls/{call}/sound", token))
                time.sleep(SETTLES)
                before = spent(trial)
                size = sum(len(reader.heard) for reader in readers)
                time.sleep(seconds)
                after = spent(trial)
                rows[kind].append({name: (after[name] - before[name]) / seconds for name in after})
                if kind == KINDS[1]:
                    told.append((len(readers[0].heard) - size) / seconds)
                for reader in readers:
                    reader.close()
    show(rows, f"{calls} calls; a page gets {statistics.median(told) / 1000:.0f} KB a second")


def show(rows: dict[str, list[dict[str, float]]], title: str) -> None:
    """Percent of a core, and how much more than with a closed console."""
    roles = sorted(rows[KINDS[0]][0])
    table = []
    for kind in KINDS:
        turns = rows[kind]
        cells = [f"{100 * statistics.median(turn[name] for turn in turns):.1f}" for name in roles]
        more = [
            100 * sum(turn[name] - closed[name] for name in PART)
            for turn, closed in zip(turns, rows[KINDS[0]], strict=True)
        ]
        error = statistics.stdev(more) / math.sqrt(len(more))
        table.append([kind, *cells, f"{statistics.fmean(more):+.2f} ± {error:.2f}"])
    print(title)
    head = [f"{name} (% of a core)" for name in roles]
    print(page.markdown(["console", *head, "more (% of a core)"], table))


if __name__ == "__main__":
    main()
