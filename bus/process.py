"""What every process of the stack has in common: logs, signals, signs of life for the parent that
keeps it running, and an end when that parent ends.

Logs go through a bounded queue to a thread of their own. A full pipe (honcho reads stdout through
one) may block that thread, never the paced loop. Records that the queue cannot take are counted,
and the count is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import gc
import json
import logging
import logging.handlers
import os
import queue
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop

from . import settings
from .clock import until_next
from .descriptors import KEEPER_FD_VARIABLE, raise_limit
from .errors import CarrierError, ErrorInfo
from .redact import printable

T = TypeVar("T")

#: The file descriptor of a pipe whose other end the parent holds: it reads as closed when the
#: parent is gone, however it went.
PARENT_FD_VARIABLE = "TRUNKLINE_PARENT_FD"
#: The file in which whoever launched the process looks for Twilio's refusal (JSON of an ErrorInfo).
REFUSAL_FILE_VARIABLE = "TRUNKLINE_REFUSAL_FILE"
#: The words that a process writes for its keeper: :data:`ALIVE` every :data:`SIGN_SECONDS` while
#: its loop turns and it does its work, and :data:`READY`.
ALIVE, READY = b".", b"r"
SIGN_SECONDS = 0.5
#: Passes of Python's collector over the newer objects for each pass over all of them.
PASSES_TO_A_FULL_ONE = 1_000

#: What ends a process, in order.
_ENDING = (signal.SIGTERM, signal.SIGINT)

#: Exit statuses of every command (part of the contract).
EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_PENDING = 3


class _TextFormatter(logging.Formatter):
    """One line for a message, whatever a caller or a peer has put into it. Characters that are not
    printable are written as escapes, and so are line ends. The lines of a traceback are indented,
    so that none of them can be taken for a record."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_text:
            lines = record.exc_text.splitlines()
            record.exc_text = "\n".join(f"  {printable(line)}" for line in lines)
        return super().format(record)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_text:
            entry["exception"] = record.exc_text
        return json.dumps(entry)


class _DroppingQueueHandler(logging.handlers.QueueHandler):
    """Puts records into a bounded queue; says later how many it had to drop."""

    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """The record for the thread, without any object that may change meanwhile. Message and
        traceback stay apart, because a message is one line."""
        record = copy.copy(record)
        record.msg, record.args = record.getMessage(), None
        if record.exc_info:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1
            return
        if self.dropped:
            dropped, self.dropped = self.dropped, 0
            logging.getLogger("trunkline").warning("%d log records were dropped", dropped)


class _PatientListener(logging.handlers.QueueListener):
    """A listener that can be ended while its queue is full: the sign of the end waits for room, for
    as long as nobody reads stderr. Python's own raises queue.Full then, and the process would end
    with that instead of its exit status."""

    def enqueue_sentinel(self) -> None:
        self.queue.put(self._sentinel)  # type: ignore[attr-defined]  # as Python's own does


def setup_logging(process: str, log_format: str = "text") -> Callable[[], None]:
    """Send logs to stderr through a queue; returns what flushes and ends it."""
    target = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        target.setFormatter(_JsonFormatter())
    else:
        target.setFormatter(
            _TextFormatter(f"%(asctime)s {process}[%(process)d] %(levelname)s %(message)s")
        )
    records: queue.Queue[Any] = queue.Queue(10_000)
    root = logging.getLogger()
    root.handlers[:] = [_DroppingQueueHandler(records)]
    root.setLevel(logging.WARNING)
    logging.getLogger("trunkline").setLevel(logging.INFO)
    listener = _PatientListener(records, target)
    listener.start()
    return listener.stop


def tell_slips(log: logging.Logger) -> None:
    """Warn of names that look like settings and are none: a cap with a misspelt name is no cap. Of
    a process that is kept running its keeper has warned."""
    if KEEPER_FD_VARIABLE in os.environ:
        return
    for slip in settings.slips():
        log.warning("%s", ": ".join(filter(None, slip)))


class Stop(asyncio.Event):
    """Set when the process is to end. ``interrupted``: Ctrl-C has set it, and nothing before."""

    interrupted = False

    def interrupt(self) -> None:
        self.interrupted = self.interrupted or not self.is_set()
        self.set()


def run(main: Callable[[Stop], Coroutine[Any, Any, int]]) -> int:
    """Run ``main(stop)`` on uvloop; returns its exit status.

    ``stop`` is set by SIGTERM, SIGINT (a second one changes nothing) and by the end of the parent.
    A process that is kept running leaves SIGINT to its keeper: Ctrl-C in a terminal reaches both,
    and the keeper asks its processes to end one after the other, the controller first.
    """

    async def with_signals() -> int:
        stop = Stop()
        loop = asyncio.get_running_loop()
        kept = _keeper_fd() is not None
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGINT, (lambda: None) if kept else stop.interrupt)
        watch_parent(stop.set)
        if kept:
            _give_signs_of_life(loop)
        try:
            return await main(stop)
        finally:
            # The interpreter takes its handlers away before it ends, and one more signal would
            # then kill a process that ends by itself. So they are blocked from here on.
            signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)

    raise_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(with_signals())


def rarely_collect_all() -> None:
    """Let Python's collector look at all objects seldom. To be called at the end of the start.

    A full pass stops the loop for as long as it takes. At a gateway where strangers have all their
    places that is 25 ms of a core, and several times as long where the cores have other work, while
    the sound of live calls lasts for 60 ms. By itself Python makes a hundred times as many passes.
    They would find next to nothing, because a connection that is over leaves no cycle of objects
    behind, and a call a few small ones. What exists at the start lives as long as the process, and
    is not looked at at all.
    """
    gc.collect()
    gc.freeze()
    newest, newer, _ = gc.get_threshold()
    gc.set_threshold(newest, newer, PASSES_TO_A_FULL_ONE)


class StoppedError(Exception):
    """The process was asked to end before a piece of work was done."""


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``. Where ``stop`` is set first, ``work`` is cancelled and StoppedError
    raised."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise StoppedError
        return working.result()
    finally:
        stopping.cancel()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


def complain(process: str, error: object) -> None:
    """Say on stderr why a process or a command ends, in one line, whatever the error quotes. A
    refusal of Twilio's goes to whoever launched the process, too."""
    print(f"trunkline {process}: {printable(' '.join(str(error).split()))}", file=sys.stderr)
    file = os.environ.get(REFUSAL_FILE_VARIABLE)
    if file is not None and isinstance(error, CarrierError):
        with contextlib.suppress(OSError):  # stderr has it
            Path(file).write_bytes(msgspec.json.encode(ErrorInfo.of(error)))


def say_ready() -> None:
    """Tell the parent, if it asks, that settings and surroundings are right and this process does
    its work now. If it ends later, it is worth a new start. May be called more than once."""
    _tell_keeper(READY)


_conditions: list[Callable[[], bool]] = []


def lives_while(healthy: Callable[[], bool]) -> None:
    """Give the parent signs of life only while ``healthy()``: a process whose loop turns, but which
    does not do its work, is ended by its keeper, and started again."""
    _conditions.append(healthy)


def _give_signs_of_life(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_later(until_next(SIGN_SECONDS, loop.time()), _give_signs_of_life, loop)
    if all(healthy() for healthy in _conditions):
        _tell_keeper(ALIVE)


def _tell_keeper(sign: bytes) -> None:
    if (descriptor := _keeper_fd()) is not None:
        # The pipe is full because the parent is stopped, or the parent is gone.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(descriptor, sign)


@functools.cache
def _keeper_fd() -> int | None:
    """The descriptor; None: nobody keeps this process running. It is read once, and taken out of
    the environment, because a child of this process does not have the pipe."""
    text = os.environ.pop(KEEPER_FD_VARIABLE, None)
    if not text:
        return None
    os.set_blocking(int(text), False)
    return int(text)


def watch_parent(gone: Callable[[], None]) -> None:
    """Call ``gone`` once the parent's end of its pipe is closed; nothing where there is no pipe."""
    text = os.environ.get(PARENT_FD_VARIABLE)
    if not text:
        return
    descriptor = int(text)
    loop = asyncio.get_running_loop()

    def readable() -> None:
        with contextlib.suppress(BlockingIOError):
            if os.read(descriptor, 1) == b"":
                loop.remove_reader(descriptor)
                gone()

    os.set_blocking(descriptor, False)
    loop.add_reader(descriptor, readable)
