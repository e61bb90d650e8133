"""How a run of the chaos suite is shown: on the terminal, and as docs/chaos.md."""

from __future__ import annotations

import os
import platform
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.chaos_run import CALLS
from benchmarks.chaos_score import BELONGS, FAULT_HEAD, Score

#: Kind and signal of a fault -> its effect in words, when no other fault is near.
IN_WORDS: Final[dict[tuple[str, str], str]] = {
    ("codec worker", "SIGKILL"): "A codec worker is killed: its calls go on at its standby",
    ("codec worker", "SIGTERM"): "A codec worker is ended: its calls go on at its standby",
    ("codec worker", "SIGSTOP"): "A codec worker stops for 2 s: its calls move after 500 ms",
    ("gateway", "SIGKILL"): "A gateway is killed: its calls come back on a new stream",
    ("gateway", "SIGTERM"): "A gateway is ended: its calls come back on a new stream",
    ("gateway", "SIGSTOP"): "A gateway stops: it is killed within 2 s, and its calls come back",
    ("controller", "SIGKILL"): "The controller is killed: sound does not pass through it",
    ("controller", "SIGSTOP"): "The controller stops for 2 s: sound does not pass through it",
    ("client", "SIGKILL"): "A client is killed: other clients' calls go on",
    ("client", "SIGSTOP"): "A client stops for 2 s: it says nothing, and then goes on",
}

_LONG_HOLES: Final = """\
## Where a long hole comes from

One fault alone costs what the list says. A hole of several seconds has a second fault in it that
comes while the first is still being mended. These make a long one:

- A gateway that is stopped keeps its connections, so Twilio sees nothing wrong and asks nobody
  else. The far end hears nothing until it wakes, or until its keeper kills it after 1.5 to 2 s.
- A gateway dies, or is ended, while the controller is being started again or stands still. Twilio's
  request for the next stream waits for the controller: about a second, or for as long as the stop
  lasts. The controller answers as soon as the call's client, or another gateway, has announced it.
- The second worker dies, or stops, before the first one's successor is up: about a second, since
  nobody is left who could take the call. If the controller was started again at the same time, the
  call gets its next standby a second after that start."""

_EXAMPLE: Final = """\
## What a test can ask

A test whose call has to last through all this asks how many streams it had, and what was lost of
it. `call.lost` counts samples at 8 kHz, 160 to a frame:

```python
import pytest


@pytest.mark.phone_line(allowed_callees=["+14155557777"])
async def test_nothing_of_the_call_was_lost(phone_line, carrier_sim):
    call = await phone_line.place_call("+14155557777", attach_stream="a-leg")
    await call.send_audio(bytes(9_600))  # 0.2 s
    await call.hang_up()
    streams = [s for s in carrier_sim.streams() if s["call_sid"] == call.sid]
    assert len(streams) == 1  # none broke
    assert (call.lost.outbound, call.lost.inbound) == (0, 0)
```"""


def show(score: Score, seed: int, console: Console) -> None:
    """Print both tables."""
    table = Table(title=f"faults (seed {seed})")
    for n, head in enumerate(FAULT_HEAD):
        table.add_column(head, justify="left" if n < 2 else "right")
    for row in score.fault_rows():
        table.add_row(*row)
    console.print(table)
    table = Table(title="what became of it")
    table.add_column("")
    table.add_column("", justify="right")
    for row in score.total_rows():
        table.add_row(*row)
    console.print(table)


def in_words(score: Score) -> list[str]:
    """A line for each kind of fault that was alone at least once."""
    lines = []
    for (kind, how), words in IN_WORDS.items():
        alone = score.holes(kind, how, alone=True)
        if alone:
            worst = max(alone) * 1000
            hole = f"a hole of {worst:.0f} ms at most" if worst else "no hole at all"
            lines.append(f"- {words}; {hole}.")
    return lines


def page(score: Score, seed: int, seconds: float) -> str:
    """docs/chaos.md."""
    lines = [
        "# Chaos",
        "",
        f"`make chaos`, {seconds:.0f} s with seed {seed}: {CALLS} calls talk full duplex while",
        "every kind of process of the stack, and the clients, are killed, stopped and ended. At",
        "first each is hit once alone, then they are hit at random, then the stack as a whole is.",
        "Every 20 ms frame carries its number, so that the carrier's own records show which frames",
        f"came. {platform.system()}, {os.cpu_count()} cores for all of it, the carrier included.",
        "",
        "| " + " | ".join(FAULT_HEAD) + " |",
        "|---|---|---:|---:|---:|",
        *("| " + " | ".join(row) + " |" for row in score.fault_rows()),
        "",
        "A hole is silence that a far end heard inside our speech. It counts for each fault",
        f"that ended at most {BELONGS:g} s before it began, so one hole may count for several.",
        "*Alone* are faults that no other fault was near. The worst holes after those:",
        "",
        *in_words(score),
        "",
        _LONG_HOLES,
        "",
        _EXAMPLE,
        "",
        "## All of it",
        "",
        "| | |",
        "|---|---:|",
        *("| " + " | ".join(row) + " |" for row in score.total_rows()),
    ]
    return "\n".join([*lines, ""])
