"""The hostile suite: 20 honest calls talk while strangers, thieves and a rogue do their worst.

    python benchmarks/hostile.py                              5 minutes
    python benchmarks/hostile.py --seconds 60 --seed 7
    python benchmarks/hostile.py --seconds 60 --only "half bodies"

At first there is no attacker. Then each attack of hostile_attacks.py has a time of its own, until
its last attempt has ended, and at last all of them come together. Honest calls come and go
meanwhile, and a codec worker is killed in the middle, once without attackers and once among all of
them. Attackers are processes of their own that get only the time that nobody else wants, so they
cannot win by taking the cores. All of it stays on the loopback, and every attacker ends by itself.

The chaos suite's clients and judge look after the honest calls: each 20 ms frame has its number.
The run fails unless all of this holds (hostile_score.py has the bounds):

- No frame is lost. Far ends hear no more holes than without attackers, but for a short one where
  the worker is killed.
- Every honest webhook is answered in time, and every new call is up in time.
- Memory is bounded.
- Every attempt is refused, and counted in /metrics.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import hostile_attacks
from benchmarks.chaos_faults import Fault
from benchmarks.chaos_run import KEPT, Chaos, MachineTooBusyError
from benchmarks.chaos_stack import Client
from benchmarks.hostile_attacks import ROGUE
from benchmarks.hostile_score import BASELINE, GROWTH, HEAD, TOGETHER, HostileScore, Window
from benchmarks.processes import OWN_NUMBER, Run, Talker, carrier, role
from trunkline.bus.http import Session
from trunkline.bus.twilio_urls import VOICE_PATH, stream_url
from trunkline.carrier_sim.client import ENDED
from trunkline.carrier_sim.signature import sign

T = TypeVar("T")

PAGE: Final = Path(__file__).parent.parent / "docs" / "security.md"
#: Between these the page has the table.
MARKS: Final = ("<!-- hostile -->", "<!-- /hostile -->")
#: Seconds of an honest call, from and to: many come and go.
CALL_SECONDS: Final = (5.0, 15.0)
#: Seconds without attackers, and with all of them: a share of the run.
CALM_SHARE: Final = 0.2
#: Seconds until an attacker has begun.
BEGINS_WITHIN: Final = 20.0
#: Seconds until the last attempts have ended by the stack's bounds.
ENDS_WITHIN: Final = 40.0
#: Seconds between two looks at memory and metrics.
LOOK: Final = 1.0
#: Seconds until the controller has heard from the gateways what they refused.
TOLD_WITHIN: Final = 2.0
#: Metrics that count refusals: at the public port, by the rules, and on the bus.
REFUSED_KIND: Final = re.compile(r'^trunkline_gateway_refused_total\{kind="(.*)"\}')
REFUSALS: Final = re.compile(
    r"^(trunkline_gateway_refused_total\{.*\}|trunkline_dropped_messages_total\{.*\}|"
    r'trunkline_events_total\{event="(?:refused peers|undecodable|fault|foreign names|'
    r"names in use|second names|too many peers|late hellos|not a gateway|failed \w+|"
    r'webhooks of calls that are (?:over|up)|calls rejected|calls nobody waits for)"\})'
    r" ([0-9.e+]+)$",
    re.MULTILINE,
)


class Hostile:
    """One run: the honest calls, the attackers, and what is seen of both."""

    def __init__(self, run: Run, seed: int, say: Callable[[str], None]) -> None:
        self.run = run
        self.seed = seed
        self.say = say
        self.chaos = Chaos(run, seed, say, CALL_SECONDS)
        self.score = HostileScore(self.chaos.score)
        #: attackers that have not ended, and their window
        self._attackers: dict[str, Window] = {}
        self._talkers: list[Talker] = []
        self._said: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        #: each metric's last value: those of a process that is gone are no longer shown
        self._counters: dict[str, float] = {}
        #: the same at the beginning of the window
        self._at_first: dict[str, float] = {}
        self._looked = 0.0
        self._victims = 0

    # ------------------------------------------------------------------ time goes by

    def during(self, seconds: float) -> None:
        """Let the calls go on, and look at memory and attackers meanwhile."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._step()

    def _step(self) -> None:
        self.chaos.step()
        while not self._said.empty():
            name, message = self._said.get()
            if "done" in message:
                window = self._attackers.pop(name)
                window.outcomes.update(message["outcomes"])
                if window.attack == TOGETHER and message["done"] == ROGUE:
                    window.gone += sum(message["outcomes"].values())
                self.say(f"  {name}: {message['outcomes']}")
        now = time.monotonic()
        if now - self._looked >= LOOK:
            self._looked = now
            self._weigh()
            self._refusals()

    def _weigh(self) -> None:
        """The memory of each process of the stack."""
        most = self.score.before if self.calm else self.score.during
        for process in self.chaos.stack.processes("all"):
            with contextlib.suppress(psutil.NoSuchProcess):
                name, size = role(process), process.memory_info().rss / 1e6
                most[name] = max(size, most.get(name, 0.0))

    @property
    def calm(self) -> bool:
        """No attacker has come yet."""
        return len(self.score.windows) <= 1

    def _refusals(self) -> int:
        """All that the stack says to have refused so far."""
        with Session() as session:
            text = session.get(f"http://127.0.0.1:{self.run.console}/metrics", timeout=10.0).text
        self._counters |= {name: float(value) for name, value in REFUSALS.findall(text)}
        return int(sum(self._counters.values()))

    def window(self, attack: str) -> Window:
        """A new window begins, and the last one ends."""
        now = time.monotonic()
        if self.score.windows:
            self.score.windows[-1].ended = now
        self.score.windows.append(Window(attack, now, counted=-self._refusals()))
        self._at_first = dict(self._counters)
        self.say(f"{self.run_time:6.1f} s  {attack}")
        return self.score.windows[-1]

    @property
    def run_time(self) -> float:
        windows = self.score.windows
        return time.monotonic() - windows[0].began if windows else 0.0

    def kill_a_worker(self) -> None:
        self.chaos.hit(Fault(0.0, "codec worker", "SIGKILL", random.randrange(1_000)))

    # ------------------------------------------------------------------ attackers

    def attack(self, names: list[str], window: Window, seconds: float) -> None:
        """Start attackers, which go on by themselves. What they have seen is asked for once, since
        the carrier tells it on the loop that plays the calls."""
        captured = self.until(self._seen_requests, "a call is over that somebody else had placed")
        streams = self._seen_streams()
        status = self.run.status()
        address = self.run.environment["TRUNKLINE_BUS"]
        order = {
            "seconds": seconds,
            "seed": self.seed,
            "port": self.run.public,
            "bus": address.removeprefix("ipc://"),
            "captured": captured,
            "upgrade_signature": self._signed(stream_url(self.run.public_url)),
            "peers": {
                key: [row["id"] for row in status[key]]
                for key in ("gateways", "codec_workers", "sessions")
            },
        }
        window.attackers += names
        for name in names:
            stolen = [self._steal()] if name.startswith("flood") else []
            key = f"{name} ({len(self._talkers)})"
            self._attackers[key] = window
            self._start(
                key,
                order | {"attack": name, "streams": streams + stolen},
                self._said,
                "hostile_attacks",
            )

    def _start(
        self,
        name: str,
        order: dict[str, Any],
        said: queue.SimpleQueue[tuple[str, dict[str, Any]]],
        module: str = "chaos_client",
    ) -> None:
        """Start a process of the attackers'. From its first instruction on, it takes only the time
        that nobody else wants: a dozen that start at once would else take the cores."""
        talker = Client(self.run, name, order, said, module)
        self._talkers.append(talker)
        pid = talker.process.pid
        os.setpriority(os.PRIO_PROCESS, pid, 19)
        if hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))

    def _signed(self, url: str, form: dict[str, str] | None = None) -> str:
        token = self.run.environment["TWILIO_AUTH_TOKEN"]
        return sign(token, url, (form or {}).items())

    def _seen_requests(self) -> list[dict[str, Any]]:
        """Voice webhooks of calls that are over, as somebody on the way has seen them."""
        over = {call["sid"] for call in self.run.sim.calls() if call["status"] in ENDED}
        found = []
        for entry in self.run.sim.webhook_log():
            url = entry["url"].partition("#")[0]
            if entry["call_sid"] in over and VOICE_PATH in url and entry["method"] == "POST":
                seen = {
                    "path": url.removeprefix(self.run.public_url),
                    "form": entry["form"],
                    "signature": self._signed(url, entry["form"]),
                }
                found.append(seen)
        return found[-10:]

    def _seen_streams(self) -> list[dict[str, str]]:
        """Tokens of streams that are up: they have been used."""
        return [
            {"call_sid": call["sid"], "nonce": stream["parameters"]["nonce"]}
            for call in self.run.sim.calls()
            for stream in call["streams"]
            if stream["ended_at"] is None and stream["opened_at"] is not None
        ][:10]

    def _steal(self) -> dict[str, str]:
        """The unused token of a call that is no honest one: the carrier is kept from its stream."""
        self._victims += 1
        number = f"+1415888{self._victims:04d}"
        sim = self.run.sim
        sim.add_callee(number, "silence,ring=1")
        slot = {"kind": "a-leg", "number": OWN_NUMBER, "callee": number, "first": 0}
        wish = {"slots": [slot], "shortest": 600.0, "longest": 600.0, "seed": self.seed}
        unheard: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        self._start(number, wish, unheard)

        def called() -> list[str]:
            calls = self.run.status()["calls"]
            return [call["sid"] for call in calls if call["callee"] == number and call["sid"]]

        (sid,) = self.until(called, "the victim's call rings")
        sim.add_fault("stream", "refuse", path=f"#{sid}$")
        sim.add_fault("webhook", "delay", path="[?&][cd]=", seconds=120.0, count=1)
        self.until(lambda: sim.call(sid)["streams"], "the victim's stream is refused")
        return {"call_sid": sid, "nonce": sim.call(sid)["streams"][0]["parameters"]["nonce"]}

    def until(self, condition: Callable[[], T], what: str) -> T:
        """Go on until ``condition()`` is true, and return that."""
        began = time.monotonic()
        while not (found := condition()):
            if time.monotonic() - began > BEGINS_WITHIN:
                raise RuntimeError(f"not within {BEGINS_WITHIN:g} s: {what}")
            self._step()
        return found

    # ------------------------------------------------------------------ the whole run

    def go(self, seconds: float, attacks: list[str], *, together: bool) -> None:
        """No attacker, each for itself, all together; the middle part not if ``together``."""
        self.chaos.start()
        self.chaos.all_up()
        calm = seconds / 2 if together else CALM_SHARE * seconds
        self.window(BASELINE)
        self.during(calm / 2)
        self.kill_a_worker()
        self.during(calm / 2)
        each = (seconds - 2 * calm) / len(attacks)
        for name in [] if together else attacks:
            self.attack([name], self.window(name), each)
            self.during(each)
            self._all_end()
        self.attack(attacks, self.window(TOGETHER), calm)
        self.during(calm / 2)
        self.kill_a_worker()
        self.during(calm / 2)
        self.chaos.mended()
        self._all_end()
        self.score.windows[-1].ended = time.monotonic()
        self.chaos.leave()
        self._read_webhooks()
        if changed := self.chaos.stack.changed():
            self.chaos.problem(f"numbers are not as they were: {changed}")

    def _all_end(self) -> None:
        """Wait until all attempts have ended, by the stack's own bounds, and are counted."""
        ends = time.monotonic() + ENDS_WITHIN
        while self._attackers and time.monotonic() < ends:
            self._step()
        for name in self._attackers:
            self.chaos.problem(f"an attacker did not end: {name}")
        self._attackers.clear()
        self.during(TOLD_WITHIN)
        window = self.score.windows[-1]
        window.counted += self._refusals()
        grown = [name for name, n in self._counters.items() if n > self._at_first.get(name, 0.0)]
        window.kinds.update(kind for name in grown for kind in REFUSED_KIND.findall(name))

    def _read_webhooks(self) -> None:
        victims = {c["sid"] for c in self.run.sim.calls() if c["to"].startswith("+1415888")}
        for entry in self.run.sim.webhook_log():
            if entry["call_sid"] in victims:
                continue
            if not 200 <= entry["status"] < 300:
                why = entry["text"] or entry["status"]
                self.score.unanswered.append(f"{entry['kind']}, {entry['call_sid']}: {why}")
            self.score.webhooks.append((entry["time"], entry["seconds"]))

    def close(self) -> None:
        """End all that runs, however the run went."""
        for talker in self._talkers:
            talker.close()
        self.chaos.close()


def show(score: HostileScore, seed: int, console: Console) -> None:
    """Print both tables."""
    table = Table(title=f"attacks (seed {seed})")
    for n, head in enumerate(HEAD):
        table.add_column(head, justify="right" if n else "left")
    for row in score.rows():
        table.add_row(*row)
    console.print(table)
    table = Table(title=f"memory (MB; {GROWTH:g} of growth are allowed)")
    for n, head in enumerate(("process", "without", "with attackers", "growth")):
        table.add_column(head, justify="right" if n else "left")
    for row in score.memory_rows():
        table.add_row(*row)
    console.print(table)
    console.print(score.summary())


def page(score: HostileScore, seed: int, seconds: float, before: str) -> str:
    """docs/security.md, with this run's table between its marks."""
    rows = [
        f"`make hostile`, {seconds:.0f} s with seed {seed}. {score.summary()}.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|---|" + "---:|" * (len(HEAD) - 1),
        *("| " + " | ".join(row) + " |" for row in score.rows()),
        "",
        "| process | MB without attackers | with them | growth |",
        "|---|---:|---:|---:|",
        *("| " + " | ".join(row) + " |" for row in score.memory_rows()),
    ]
    head, found, rest = before.partition(MARKS[0])
    _, closed, tail = rest.partition(MARKS[1])
    assert found and closed, f"{PAGE} has no {MARKS[0]} … {MARKS[1]}"
    return "\n".join([head + MARKS[0], *rows, MARKS[1] + tail])


@click.command()
@click.option("--seconds", default=300.0, show_default=True, type=click.FloatRange(30.0))
@click.option("--seed", type=int, help="Repeat a run's draws. Default: a new one.")
@click.option(
    "--only",
    "chosen",
    multiple=True,
    type=click.Choice(list(hostile_attacks.ATTACKS)),
    help="Only this attack; may be repeated.",
)
@click.option(
    "--together", is_flag=True, help="Leave out the part in which they come one after the other."
)
@click.option(
    "--page/--no-page", "write_page", default=False, help="Write docs/security.md's table."
)
def main(
    seconds: float, seed: int | None, chosen: tuple[str, ...], together: bool, write_page: bool
) -> None:
    """Attack a stack in every way that is known, while 20 honest calls talk."""
    if (chosen or together) and write_page:
        raise click.UsageError("docs/security.md is of a whole run: --page goes alone")
    console = Console(width=max(120, Console().width))
    progress = Console(stderr=True, highlight=False)
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    progress.print(f"seed {seed}")
    with carrier(0, keep_audio=True) as run:
        hostile = Hostile(run, seed, progress.print)
        try:
            hostile.go(seconds, list(chosen or hostile_attacks.ATTACKS), together=together)
        except MachineTooBusyError as error:
            raise click.ClickException(str(error)) from error
        finally:
            hostile.close()
        show(hostile.score, seed, console)
        problems = hostile.score.problems()
        if write_page:
            PAGE.write_text(page(hostile.score, seed, seconds, PAGE.read_text()))
        if problems:
            KEPT.mkdir(parents=True, exist_ok=True)
            (KEPT / "processes.log").write_text(run.tails(1_000_000))
            for text in problems:
                console.print(f"[red]{text}[/red]")
            console.print(f"{len(problems)} problems; repeat with --seed {seed}")
            raise SystemExit(1)
        console.print("every attempt was refused and counted, and no honest call was harmed")


if __name__ == "__main__":
    main()
