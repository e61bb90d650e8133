"""Caps of a run of pytest: how many calls its tests may make together, and how many minutes.

    pytest --phone-max-calls 20 --phone-max-minutes 60

A test that would exceed a cap gets LimitReachedError at once, and nothing is dialled. All workers
of pytest-xdist share one ledger in the run's directory, so that they keep the caps together.
Minutes are counted as the stack counts them for its own caps: begun minutes, and a call that may
still be up counts with its longest duration. At its end the run says how many calls and minutes it
made, and what they cost.

This module is imported in every run of pytest, so the adapter is imported where a test uses it.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from ..reports import cost

if TYPE_CHECKING:
    from trunkline.adapter.call import Call

_LINE: Final = "trunkline.adapter.line"


@dataclass(frozen=True)
class Entry:
    """One call of the run. ``seconds``: the longest that it may last, or once it is ``over``, how
    long it lasted."""

    seconds: float
    over: bool = False

    @property
    def minutes(self) -> int:
        return cost.begun_minutes(self.seconds)


def refusal(
    entries: Iterable[Entry], longest: float, max_calls: int | None, max_minutes: int | None
) -> str | None:
    """The cap that a further call of at most ``longest`` seconds would exceed. None: the call may
    be made."""
    entries = list(entries)
    if max_calls is not None and len(entries) >= max_calls:
        return f"--phone-max-calls={max_calls} calls were made in this run"
    used = sum(entry.minutes for entry in entries if entry.over)
    held = sum(entry.minutes for entry in entries if not entry.over)
    more = cost.begun_minutes(longest)
    if max_minutes is not None and used + held + more > max_minutes:
        return (
            f"--phone-max-minutes={max_minutes}: {used} min were used in this run, calls under way "
            f"may take {held} min, and this one {more} min (max_call_duration_seconds shortens it)"
        )
    return None


def summary(entries: Sequence[Entry], price: float | None) -> str:
    """For instance "2 calls, 3 minutes, 0.05 at 0.018 a minute"."""
    return cost.text(len(entries), sum(entry.minutes for entry in entries), price)


class Ledger:
    """The calls of a run, in a file that all of its processes share and lock."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Entry]:
        with self._open() as entries:
            return list(entries.values())

    def admit(self, longest: float, max_calls: int | None, max_minutes: int | None) -> str:
        """Enter a call that may last so long, and return its name in the ledger. LimitReachedError
        where a cap forbids it. The file is locked meanwhile, so two workers cannot both take the
        last call."""
        with self._open() as entries:
            why = refusal(entries.values(), longest, max_calls, max_minutes)
            if why is not None:
                from trunkline.bus.errors import LimitReachedError

                raise LimitReachedError(f"the call is not made: {why}")
            name = secrets.token_hex(8)
            entries[name] = Entry(longest)
        return name

    def over(self, name: str, seconds: float) -> None:
        """Note that a call is over, and how long it lasted."""
        with self._open() as entries:
            entries[name] = Entry(seconds, over=True)

    def remove(self, name: str) -> None:
        """Take a call out that was not made."""
        with self._open() as entries:
            entries.pop(name)

    @contextmanager
    def _open(self) -> Iterator[dict[str, Entry]]:
        with self._path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            found = json.loads(file.read() or "{}")
            entries = {name: Entry(*entry) for name, entry in found.items()}
            before = entries.copy()
            yield entries
            if entries != before:
                file.truncate(0)
                json.dump({n: (entry.seconds, entry.over) for n, entry in entries.items()}, file)


def add_options(group: Any) -> None:
    """Add the options of the caps."""
    group.addoption(
        "--phone-max-calls",
        type=whole_number,
        metavar="N",
        help="Most calls that the run's tests may make. A further one is refused at once.",
    )
    group.addoption(
        "--phone-max-minutes",
        type=whole_number,
        metavar="N",
        help="Most begun minutes of the calls of the run's tests. A call that is up counts with "
        "its longest duration.",
    )


def whole_number(text: str) -> int:
    """An option's number, from 0 on."""
    # argparse shows the words of this error alone; of others it shows the name of this function.
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


class Caps:
    """The plugin of one process of the run. ``directory`` returns the run's directory, and is
    called when the ledger is first needed."""

    def __init__(self, config: pytest.Config, directory: Callable[[], Path]) -> None:
        self._max_calls: int | None = config.getoption("--phone-max-calls")
        self._max_minutes: int | None = config.getoption("--phone-max-minutes")
        self._directory = directory
        #: calls of this process that may still be up
        self._up: list[tuple[str, Call]] = []
        self._installed: Any = None
        self._made: Ledger | None = None
        self.summary: str | None = None

    @property
    def _ledger(self) -> Ledger:
        if self._made is None:
            self._made = Ledger(self._directory() / "calls.json")
        return self._made

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Where a cap is set, count from the start, also for tests that do not use the plugin."""
        if self._max_calls is not None or self._max_minutes is not None:
            self._install(needed=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._install(needed="phone_stack" in getattr(item, "fixturenames", ()))

    def pytest_runtest_logfinish(self) -> None:
        self._settle()

    def _install(self, *, needed: bool) -> None:
        """Begin to count calls, if that is ``needed`` or this process has imported Line."""
        if self._installed is None and (needed or _LINE in sys.modules):
            from trunkline.adapter import line

            self._installed = line.meter
            line.meter = self._meter

    @contextmanager
    def _meter(self, longest: float, dialled: bool) -> Iterator[Callable[[Call], None]]:
        """Wraps the set-up of each call in this process, from before it is dialled or waited for
        until it is up. ``longest``: its longest duration in seconds."""
        from trunkline.bus.errors import CallFailedError

        self._settle()
        name = self._ledger.admit(longest, self._max_calls, self._max_minutes)
        try:
            yield lambda call: self._up.append((name, call))
        except BaseException as error:
            rang = isinstance(error, CallFailedError | TimeoutError | asyncio.CancelledError)
            if dialled and rang:
                self._ledger.over(name, 0.0)  # it counts as a call, but used no minute
            else:
                self._ledger.remove(name)
            raise

    def _settle(self, *, all_of_them: bool = False) -> None:
        """Enter the duration of calls that have ended, or with ``all_of_them`` of all."""
        for name, call in list(self._up):
            if call.ending or all_of_them:
                self._ledger.over(name, call.age)
                self._up.remove((name, call))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Make the summary of all processes' calls, before the run's directory is deleted."""
        self._settle(all_of_them=True)
        if hasattr(session.config, "workerinput"):
            return
        leads = session.config.pluginmanager.has_plugin("dsession")
        if self._made is not None or leads:
            entries = self._ledger.read()
            if entries:
                from trunkline.bus import settings  # a run without calls does not need it

                self.summary = summary(entries, settings.load().price_per_minute)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.summary is not None:
            terminalreporter.write_line(f"trunkline: {self.summary}")

    def pytest_unconfigure(self) -> None:
        if self._installed is not None:
            from trunkline.adapter import line

            line.meter = self._installed
