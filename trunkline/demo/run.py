"""``trunkline demo``: two phone calls with real speech, without an account.

The demo starts ``trunkline up --sim``, a whole stack beside the stand-in carrier, apart from any
stack and any settings of the user's. It holds a call each way, both at the same time, with
recordings in place of models. Then it prints, draws and writes everything that happened, and ends
all that it started. The exit status is 1 where anything failed.

Where ``trunkline[demo]`` is installed, the calls are held by ``scenario.run`` of langwatch-scenario
through our TwilioAgentAdapter, and a recogniser tells the words. Otherwise ``Line`` holds them, and
the demo says what the extra would add.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import importlib.util
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import click
from rich.console import Console

from trunkline.bus import imports
from trunkline.bus.clock import monotonic
from trunkline.bus.errors import TrunklineError
from trunkline.bus.launch import Launched, apart, trunkline_argv
from trunkline.bus.process import EXIT_DONE, StoppedError, run, unless
from trunkline.bus.runtime_dir import temporary_directory
from trunkline.carrier_sim.client import SimClient

from ..cli.json_text import json_text
from ..reports.cost import counted
from . import report, surroundings
from .measure import CallRecord
from .record import Stack, Watch
from .words import Recogniser

NUMBER: Final = "+14155551234"
OTHER_NUMBER: Final = "+14155551235"
CALLER: Final = "+14155550000"
CALLEE: Final = "+14155557777"
#: The voice_url of each number before the demo, which has to be there again at its end.
VOICE_URLS: Final = {
    NUMBER: "https://agent.example/voice",
    OTHER_NUMBER: "https://agent.example/other",
}
GREETING, REPLY = "austen-0870", "austen-0880"
QUESTIONS: Final = ("austen-0890", "austen-0930")
ANSWER: Final = "austen-0920"
DIGITS: Final = "1#"
#: Seconds after which the demo gives up holding its calls, once the stack is up. A call takes half
#: a minute, and one that had holes is held twice.
CALLS_WITHIN: Final = 85.0


def main(out: Path | None, *, verbose: bool, as_json: bool = False) -> int:
    """Run the demo, and write its files to ``out``; returns the exit status. With ``as_json`` the
    figures go to stdout as one JSON object, and the text to stderr."""
    with surroundings.home():
        where = surroundings.output(out)
        console = Console(highlight=False, stderr=as_json)
        demo = Demo(where, console, verbose, as_json=as_json)
        return run(lambda stop: _until_done(demo, stop))


async def _until_done(demo: Demo, stop: asyncio.Event) -> int:
    """Run the demo. SIGTERM or SIGINT may end it before its calls are over."""
    try:
        await unless(stop, demo.run())
    except StoppedError:
        raise TrunklineError("interrupted") from None
    return demo.conclude()  # drawing may take its time: what was held is not given up for it


async def _in_time(calls: Awaitable[None]) -> None:
    """Wait until the calls are over, but not forever."""
    limit = asyncio.timeout(CALLS_WITHIN)
    try:
        async with limit:
            await calls
    except TimeoutError:
        if limit.expired():
            raise TrunklineError(
                f"the calls were not over within {CALLS_WITHIN:g} s: where other programs keep "
                "this machine busy, try it again without them"
            ) from None
        raise


def _missing() -> list[str]:
    """The packages of ``trunkline[demo]`` that are not installed."""
    names = ("scenario", "matplotlib", "pocketsphinx")
    return [name for name in names if importlib.util.find_spec(name) is None]


def _import_calls(name: str) -> ModuleType:
    """Import the module of the calls, which takes seconds where it imports scenario."""
    with imports.that_stay():
        return importlib.import_module(f"trunkline.demo.{name}")


class Demo:
    """One run of the demo."""

    def __init__(self, out: Path, console: Console, verbose: bool, *, as_json: bool) -> None:
        self._as_json = as_json
        self._out = out
        self._console = console
        self._verbose = verbose
        self._began = monotonic()
        self._records: dict[str, CallRecord] = {}
        self._missing = _missing()
        #: what went wrong
        self._failures: list[str] = []

    async def run(self) -> None:
        """Hold the calls on a stack that is started for them. TrunklineError says what went
        wrong."""
        with contextlib.ExitStack() as ends:
            recogniser = None
            if not self._missing:
                recogniser = ends.enter_context(contextlib.closing(Recogniser()))
            # For the stack's bus and journal.
            directory = temporary_directory("trunkline-demo-")
            ends.callback(shutil.rmtree, directory, ignore_errors=True)
            # In a thread, so that the stack starts meanwhile.
            name = "line_calls" if self._missing else "calls"
            importing = asyncio.create_task(asyncio.to_thread(_import_calls, name))
            launched = self._launch(directory)
            try:
                info = await launched.until_ready()
                with SimClient(info.sim or "") as sim:
                    calls = await importing
                    await _in_time(self._calls(Stack(info, sim), recogniser, calls))
            finally:
                status = await asyncio.to_thread(launched.stop)
                if self._verbose:
                    said = launched.log.read_text(errors="replace")
                    self._console.print(said, markup=False)
        if status != EXIT_DONE:
            raise TrunklineError(f"the stack ended with status {status}; see {launched.log}")

    def _launch(self, directory: Path) -> Launched:
        """Start the stack. Its log is one of the demo's files."""
        (self._out / "stack.log").unlink(missing_ok=True)
        bot = f"speech:{ANSWER},when_silent=0.6,repeat,ring=0.2"
        environment = apart(
            directory,
            TRUNKLINE_SIM_NUMBERS=" ".join(f"{n}={url}" for n, url in VOICE_URLS.items()),
            TRUNKLINE_SIM_CALLEES=f"{CALLEE}={bot}",
        )
        argv = trunkline_argv("up", "--sim")
        what = "the demo's stack"
        return Launched(argv, self._out, "stack", environment, what=what, cwd=directory)

    async def _calls(self, stack: Stack, recogniser: Recogniser | None, calls: Any) -> None:
        say = self._console.print
        say("[bold]trunkline demo[/]: two phone calls with real speech, no account, no network")
        if recogniser is not None:
            calls.scenario.set_stt_provider(recogniser)
            # scenario would warn that it sends no reports, which is what the demo wants.
            logging.getLogger("scenario").setLevel(logging.ERROR)
        status = await stack.status()
        say(
            "  trunkline up --sim runs carrier_sim, a controller, "
            f"{len(status['gateways'])} gateways and {len(status['codec_workers'])} codec workers "
            f"(after {monotonic() - self._began:.1f} s)",
            soft_wrap=True,
        )
        say(f"  two calls at once: {CALLER} calls {NUMBER}, where a test waits for it;")
        say(f"  and another test calls {CALLEE} from {OTHER_NUMBER}")
        turns = [(question, ANSWER) for question in QUESTIONS]
        answer = functools.partial(calls.answering, stack, NUMBER, CALLER, GREETING, REPLY)
        call = functools.partial(calls.calling, stack, OTHER_NUMBER, CALLEE, turns, DIGITS)
        answering = asyncio.create_task(self._held("answering", answer))
        calling = asyncio.create_task(self._held("calling", call))
        try:
            with self._waiting("both calls are being held, which takes half a minute"):
                record, watch = await answering
                await self._heard(calls, "answering", record, recogniser)
                record, _ = await calling
                await self._heard(calls, "calling", record, recogniser)
        finally:
            answering.cancel()
            calling.cancel()
            await asyncio.gather(answering, calling, return_exceptions=True)
        digits = stack.sim.call(record.sid)["digits_heard"]
        say(f"  the far end heard the keys {digits}")
        if digits != DIGITS:
            self._failures.append(f"the far end heard the keys {digits!r}, not {DIGITS!r}")
        after = {number: row["voice_url"] for number, row in stack.sim.numbers().items()}
        report.show_voice_urls(self._console, VOICE_URLS, {NUMBER: watch.during}, after)
        if after != VOICE_URLS:
            self._failures.append("a voice_url is not what it was before")
        for error in stack.sim.errors():
            self._failures.append(f"Twilio would list error {error['code']}: {error['text']}")

    @contextlib.contextmanager
    def _waiting(self, text: str) -> Iterator[None]:
        """Show ``text`` on a terminal while the block runs."""
        if not self._console.is_terminal:
            yield
            return
        with self._console.status(text):
            yield

    async def _held(
        self, title: str, hold: Callable[[], Awaitable[tuple[CallRecord, Watch]]]
    ) -> tuple[CallRecord, Watch]:
        """Hold a call. If its far end heard holes, it is held once more, because holes tell more of
        a busy machine than of trunkline."""
        record, watch = await hold()
        if holes := record.metrics["underruns"]:
            self._console.print(
                f"  {title}: the far end heard {counted(holes, 'hole')}, as it does where other "
                "programs keep the machine busy; once more",
                soft_wrap=True,
            )
            record, watch = await hold()
        return record, watch

    async def _heard(
        self, calls: Any, title: str, record: CallRecord, recogniser: Recogniser | None
    ) -> None:
        """Take up a call that is over: note its faults, and print its words if there is a
        recogniser."""
        self._records[title] = record
        if recogniser is not None:
            self._console.print(f"\n[bold]{title}[/]")
            await calls.count_errors(recogniser, record)
            report.show_words(self._console, record)
        self._failures += [f"{title}: {what}" for what in report.faults(record)]

    def conclude(self) -> int:
        """Print, draw and write what was measured; returns the exit status. TrunklineError names
        the faults of the calls."""
        report.show_measures(self._console, self._records)
        report.show_reports(self._console, self._records)
        titles = {
            "answering": f"answering: {CALLER} calls {NUMBER}",
            "calling": f"calling: {OTHER_NUMBER} calls {CALLEE}",
        }
        report.leave_files(
            self._console,
            {name: (titles[name], record) for name, record in self._records.items()},
            self._out,
            pictures=not self._missing,
        )
        self._console.print(f"\n[dim]it took {monotonic() - self._began:.0f} s[/]")
        if self._as_json:
            calls = {name: report.figures(record) for name, record in self._records.items()}
            told = {"out": str(self._out), "calls": calls, "failures": self._failures}
            click.echo(json_text(told))
        if self._failures:
            raise TrunklineError(
                f"the demo failed: {'; '.join(self._failures)} (where other programs keep this "
                "machine busy, try it again without them)"
            )
        self._say_what_else()
        return EXIT_DONE

    def _say_what_else(self) -> None:
        """Print what the extras would add, and what comes next."""
        say = functools.partial(self._console.print, markup=False, soft_wrap=True)
        if self._missing:
            say(
                f"\nThese calls were held by Line alone; not installed: {', '.join(self._missing)}."
            )
            besides = ""
            if "scenario" in self._missing:
                besides = "besides: "
                say(
                    "  pip install 'trunkline[scenario]'  TwilioAgentAdapter, for tests with "
                    "langwatch-scenario"
                )
            say(
                f"  pip install 'trunkline[demo]'      {besides}this demo through "
                "langwatch-scenario, the words that were understood, pictures"
            )
        say(f"\nNext: {_next()}")


def _next() -> str:
    """What comes next, with the command that makes ``trunkline`` known to a shell that does not
    find it (as after ``make demo``)."""
    first = "`trunkline init` writes a first test, which `pytest --phone-sim` runs offline."
    activate = Path(sys.prefix, "bin", "activate")
    if shutil.which("trunkline") is not None or not activate.exists():
        return first
    return f"`. {shlex.quote(os.path.relpath(activate))}` once in this shell; then {first}"
