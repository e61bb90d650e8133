"""Draws docs/states.md from the transition tables of the controller and the gateway.

Run by ``make docs``; with ``--check`` it changes nothing and exits 1 where the page is out of date.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

from make_bus import keep

from trunkline.controller.rules import tables
from trunkline.controller.twilio import override
from trunkline.gateway import admission

PAGE = Path(__file__).with_name("states.md")

INTRODUCTION = """\
# States

Drawn by `make docs` from the tables that the code follows, and checked by `make lint`. An arrow is
an event. What is named below a picture may come in that state too, for instance late, and changes
nothing. Any other event is illegal there: the controller refuses it, and tells the events that led
to the state. For example, the session of a test that answers one call:

```python
from trunkline.controller.rules.tables import SESSION

state = "opening"
for event in ("opened", "arm", "armed", "ring", "started", "close", "closed"):
    state = SESSION[state][event]
assert state == "gone"
assert "dial" not in SESSION["armed"]  # a session that answers does not call
```
"""

#: Title, table, the states in which a new one begins, and who moves it.
Section = tuple[str, Mapping[Any, Mapping[Any, str]], tuple[str, ...], str]

SECTIONS: tuple[Section, ...] = (
    (
        "A session",
        tables.SESSION,
        ("opening",),
        "A client's hold on one of the account's numbers (`SESSION` in "
        "`controller/rules/tables.py`). Its client moves it by `Arm`, `Disarm`, `Dial` and "
        "`CloseSession`; callers and Twilio's answers do the rest, through "
        "`controller/rules/sessions.py`. The first `Arm` or `Dial` decides whether it answers or "
        "calls.",
    ),
    (
        "An override, and the lease on its number",
        tables.LEASE,
        ("applying",),
        "Our settings on a number, held by the sessions that use it (`LEASE`). "
        "`controller/rules/numbers.py` moves it when sessions come and go, and when Twilio has "
        "confirmed a write. *planned* and *unclaimed* are entered by a restart alone.",
    ),
    (
        "A dial",
        tables.DIAL,
        tuple(tables.NEW_DIAL.values()),
        "A call that we ask Twilio for, once (`DIAL`). `controller/rules/dials.py` and `turns.py` "
        "bring it to its turn, `asking.py` asks, and `legs.py` takes in which call came of it. A "
        "b-leg dial begins as *leasing*, one to a number where a b-leg dial is open as *waiting*, "
        "every other one as *queued*.",
    ),
    (
        "A call",
        tables.CALL,
        ("expected",),
        "A phone call, from when it is let in or dialled (`CALL`). Its streams move it "
        "(`controller/rules/streams.py`), and hang-ups and Twilio's word on its legs end it "
        "(`calls.py`).",
    ),
    (
        "Digits",
        tables.DIGITS,
        ("opening",),
        "A row of digits on its way to a leg that carries our stream (`DIGITS`). "
        "`controller/rules/digits.py` moves it, by Twilio's answers and by the streams that come "
        "up meanwhile.",
    ),
    (
        "A socket of a Media Stream",
        admission.TABLE,
        ("stranger",),
        "A connection to the public port, until its stream is open (`TABLE` in "
        "`gateway/admission.py`). The gateway's shell feeds it events; the controller's answer to "
        "its token decides.",
    ),
    (
        "The doubt about a write",
        override.DOUBT,
        ("none",),
        "How many writes to a number may still land, because they got no answer (`DOUBT` in "
        "`controller/twilio/override.py`). Each read and write of a job moves it. Time ends the "
        "doubt *many*, one minute after the last write without an answer. An event that is not "
        "drawn leaves the doubt as it is.",
    ),
)

RESTART = """\
## What a restart finds

The state in which a found thing enters its table (`RESTART`). The journal has overrides and dials,
clients announce their sessions, and `controller/rules/restart.py` lets both in.
"""

JOBS = """\
## The jobs that write to a number

What `apply` and `restore` do next (`NEXT` in `controller/twilio/override.py`). A read shows the
prior voice_url, ours, or an other one, or it fails (*unread*). A write is answered (*written*), is
*refused*, or its answer is *lost*. `Write` decides, and `controller/twilio/apply_restore.py`
carries it out.
"""

#: What each event of a job answers.
READS = ("prior", "ours", "other", "unread")


def diagram(edges: Mapping[tuple[str, str], list[str]]) -> str:
    """``edges``: (state before, state after) -> events. ``[*]`` is the beginning, or the end."""
    names = dict.fromkeys(state for edge in edges for state in edge if state != "[*]")
    known = {state: state if state.isidentifier() else f"s{n}" for n, state in enumerate(names)}
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f'    state "{state}" as {name}' for state, name in known.items() if state != name]
    for (before, after), events in edges.items():
        label = f" : {', '.join(events)}" if events else ""
        lines.append(f"    {known.get(before, before)} --> {known.get(after, after)}{label}")
    return "\n".join([*lines, "```"])


def table_diagram(table: Mapping[Any, Mapping[Any, str]], starts: tuple[str, ...]) -> str:
    """A transition table, and below it what changes nothing."""
    edges: dict[tuple[str, str], list[str]] = {("[*]", state): [] for state in starts}
    idle: dict[str, list[str]] = defaultdict(list)
    for state, row in table.items():
        for event, after in row.items():
            if after == state:
                idle[state].append(event)
            else:
                edges.setdefault((state, after), []).append(event)
    before = {state for state, _ in edges}
    for state in table:
        if state not in before:
            edges[state, "[*]"] = []
    text = diagram(edges)
    if idle:
        named = (f"*{state}* takes {', '.join(events)}" for state, events in idle.items())
        text += "\n\n" + fill(f"Without a change: {'; '.join(named)}.", 100)
    return text


def job_diagram(job: override.Job) -> str:
    """Reads and writes until the job is done."""
    edges: dict[tuple[str, str], list[str]] = {("[*]", "Read"): []}
    for event, following in override.NEXT.items():
        before = "Read" if event in READS else "Put"
        for after, label in _after(event, following[job]):
            edges.setdefault((before, after), []).append(label)
    edges["Done", "[*]"] = []
    return diagram(edges)


def _after(event: str, following: str) -> Iterator[tuple[str, str]]:
    if following == "settle":
        yield "Done", f"{event} (certain)"
        yield "Read", f"{event} (in doubt, later)"
    elif following == "intend":
        yield "Put", f"{event} (intended anew)"
    else:
        yield following.capitalize(), event


def page() -> str:
    parts = [INTRODUCTION]
    for title, table, starts, text in SECTIONS:
        parts += [
            f"## {title}\n",
            f"{fill(text, 100, break_on_hyphens=False)}\n",
            f"{table_diagram(table, starts)}\n",
        ]
    parts.append(JOBS)
    for job in override.LANDED:
        parts += [f"### {job}\n", f"{job_diagram(job)}\n"]
    parts.append(RESTART)
    for kind, found in tables.RESTART.items():
        entries: dict[tuple[str, str], list[str]] = {}
        for how, state in found.items():
            entries.setdefault(("[*]", state), []).append(how)
        parts += [f"### {kind}\n", f"{diagram(entries)}\n"]
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(keep(PAGE, page()))
