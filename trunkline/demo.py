"""``trunkline demo``: the main job, without an account: two phone calls with real speech.

honcho starts carrier_sim and a whole stack; ``scenario.run`` of langwatch-scenario holds a call
each way, both at once, through our TwilioAgentAdapter, with recordings instead of models; then what
happened is printed, drawn and written. Everything it started is ended again. Exit status 1 when
anything failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import logging
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from trunkline import demo_report as report
from trunkline import demo_surroundings
from trunkline.bus.clock import monotonic
from trunkline.bus.process import EXIT_DONE, run
from trunkline.demo_measure import CallRecord
from trunkline.demo_stack import DemoError, DemoStack
from trunkline.demo_words import Recogniser

NUMBER: Final = "+14155551234"
OTHER_NUMBER: Final = "+14155551235"
CALLER: Final = "+14155550000"
CALLEE: Final = "+14155557777"
#: The voice_url of each number before the demo, to be there again after it.
VOICE_URLS: Final = {
    NUMBER: "https://agent.example/voice",
    OTHER_NUMBER: "https://agent.example/other",
}
GREETING, REPLY = "austen-0870", "austen-0880"
QUESTIONS: Final = ("austen-0890", "austen-0930")
ANSWER: Final = "austen-0920"
DIGITS: Final = "1#"
ENDS_WITHIN: Final = 85.0


def main(out: Path | None, *, verbose: bool) -> int:
    """Run the demo, leave its files in ``out``; the exit status."""
    missing = [
        name
        for name in ("scenario", "matplotlib", "pocketsphinx")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise DemoError(f"{', '.join(missing)} not installed: pip install 'trunkline[demo]'")
    with demo_surroundings.home():
        where = demo_surroundings.output(out)
        return run(lambda stop: _until_done(where, verbose, stop))


async def _until_done(out: Path, verbose: bool, stop: asyncio.Event) -> int:
    """The demo, unless SIGTERM, SIGINT or its time limit ends it."""
    showing = asyncio.create_task(Demo(out, Console(highlight=False), verbose).run())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait(
            {showing, stopping}, timeout=ENDS_WITHIN, return_when=asyncio.FIRST_COMPLETED
        )
        if showing.done():
            return showing.result()
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        raise DemoError("interrupted" if stop.is_set() else f"not done within {ENDS_WITHIN:g} s")
    finally:
        stopping.cancel()


class Demo:
    """One run of the demo."""

    def __init__(self, out: Path, console: Console, verbose: bool) -> None:
        self._out = out
        self._console = console
        self._verbose = verbose
        self._began = monotonic()
        self._records: dict[str, CallRecord] = {}
        #: what went wrong
        self._failures: list[str] = []

    async def run(self) -> int:
        """All of it; the exit status. Raises DemoError with the first thing that went wrong."""
        log = self._out / "stack.log"
        bot = f"speech:{ANSWER},when_silent=0.6,repeat,ring=0.2"
        stack = DemoStack(VOICE_URLS, {CALLEE: bot}, log)
        with contextlib.closing(Recogniser()) as recogniser:
            # scenario takes seconds to import; the stack is started meanwhile.
            importing = asyncio.create_task(
                asyncio.to_thread(importlib.import_module, "trunkline.demo_calls")
            )
            try:
                async with stack:
                    await self._calls(stack, recogniser, await importing)
                stack.check_ended_well()
            finally:
                if self._verbose and log.exists():
                    self._console.print(log.read_text(errors="replace"), markup=False)
        return self._conclude()

    async def _calls(self, stack: DemoStack, recogniser: Recogniser, calls: Any) -> None:
        say = self._console.print
        say("[bold]trunkline demo[/]: two phone calls with real speech, no account, no network")
        calls.scenario.set_stt_provider(recogniser)
        # It says that it reports to nobody, which is what the demo wants.
        logging.getLogger("scenario").setLevel(logging.ERROR)
        status = await stack.status()
        say(
            f"  honcho runs carrier_sim, a controller, {len(status['gateways'])} gateways and "
            f"{len(status['codec_workers'])} codec workers "
            f"(after {monotonic() - self._began:.1f} s)",
            soft_wrap=True,
        )
        say(f"  two calls at once: {CALLER} calls {NUMBER}, where a test waits for it;")
        say(f"  and another test calls {CALLEE} from {OTHER_NUMBER}")
        turns = [(question, ANSWER) for question in QUESTIONS]
        answering = asyncio.create_task(calls.answering(stack, NUMBER, CALLER, GREETING, REPLY))
        calling = asyncio.create_task(calls.calling(stack, OTHER_NUMBER, CALLEE, turns, DIGITS))
        try:
            record, watch = await answering
            await self._heard(stack, "answering", record, recogniser)
            record, _ = await calling
            await self._heard(stack, "calling", record, recogniser)
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

    async def _heard(
        self, stack: DemoStack, title: str, record: CallRecord, recogniser: Recogniser
    ) -> None:
        """Print a call's words once it is over."""
        self._console.print(f"\n[bold]{title}[/]")
        self._records[title] = record
        calls = importlib.import_module("trunkline.demo_calls")
        await calls.count_errors(recogniser, record)
        report.show_words(self._console, record)
        self._failures += [f"{title}: {what}" for what in report.faults(record)]

    def _conclude(self) -> int:
        report.show_measures(self._console, self._records)
        titles = {
            "answering": f"answering: {CALLER} calls {NUMBER}",
            "calling": f"calling: {OTHER_NUMBER} calls {CALLEE}",
        }
        for name, record in self._records.items():
            report.leave_files(self._console, record, name, titles[name], self._out)
        self._console.print(f"\n[dim]it took {monotonic() - self._began:.0f} s[/]")
        if self._failures:
            raise DemoError("the demo failed: " + "; ".join(self._failures))
        return EXIT_DONE
