"""One child process that is kept running: started, watched, started again, ended.

:class:`Restarts` decides when it is started again, and does no I/O.

A child gets three things from its parent. The environment holds the parent's settings, as far as
the child needs them, so that an edited ``.env`` cannot split a running stack. One pipe closes when
the parent dies, so that no child outlives its parent. Into another pipe the child writes signs of
life, so that a child that hangs is killed and started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from trunkline.bus.clock import Clock, monotonic
from trunkline.bus.descriptors import KEEPER_FD_VARIABLE
from trunkline.bus.launch import ParentPipe, free_ports
from trunkline.bus.process import (
    EXIT_FAILED,
    EXIT_USAGE,
    PARENT_FD_VARIABLE,
    READY,
    SIGN_SECONDS,
)
from trunkline.bus.settings import FIELDS, Settings, env_name

log = logging.getLogger("trunkline.stack.supervisor")

#: A child that lived for so many seconds is started again at once.
GOOD_RUN: Final = 5.0
#: Seconds before the second quick restart. Each further one doubles them, up to the longest.
FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 5.0
#: More doublings would change nothing, and a thousand are more than a float can hold.
_MOST_DOUBLINGS: Final = 10
#: Seconds without a sign of life after which a child is killed. A gateway has the fewest, because
#: its calls hear nothing until then: Twilio waits while the connections are open, and asks another
#: gateway only once they close. A worker's calls move to another worker long before, and the
#: controller carries no sound.
SILENT_FOR: Final[Mapping[str, float]] = {
    "gateway": 1.5,
    "codec-worker": 10.0,
    "controller": 10.0,
}
#: Ctrl-C in a terminal ends a child whose interpreter has not come to ignoring it yet. The parent
#: is asked to end at the same moment, and has so many seconds to hear of that.
INTERRUPT_WITHIN: Final = 0.5


class Restarts:
    """When a child that ended is started again.

    - At once after a good run.
    - After growing delays while it dies soon after each start.
    - Never, if it has never been ready and failed with a message of its own (status 1 or 2). Then
      its settings or surroundings are wrong, and another start would only repeat the message. How
      long that run took does not matter, because an answer of Twilio's may take its time.
    """

    def __init__(self) -> None:
        self._proven = False
        self._quick = 0

    def delay(self, status: int, lived: float, *, ready: bool) -> float | None:
        """Seconds to wait after a run of ``lived`` seconds that ended with ``status``. ``ready``:
        the run said that it was ready. None: do not start the child again."""
        self._proven = self._proven or ready
        if not self._proven and status in (EXIT_FAILED, EXIT_USAGE):
            return None
        if lived >= GOOD_RUN:
            self._quick = 0
            return 0.0
        self._quick += 1
        if self._quick == 1:
            return 0.0
        doublings = min(self._quick - 2, _MOST_DOUBLINGS)
        return min(LONGEST_DELAY, FIRST_DELAY * 2.0**doublings)


class Child:
    """A command that runs until ``stop()``; ``keep()`` starts it again by :class:`Restarts`.

    ``again=False``: it is never started again. ``silent_for``: seconds without a sign of life after
    which it is killed, counted from its first sign on. Only time in which this process itself runs
    is counted, so that a machine which stood still kills nobody. ``heard``: called when signs of
    life come, with whether this run has said that it is ready. ``parent=None``: the program is not
    trunkline's. It gets none of the pipes, and its environment does not mention them.
    """

    #: The task of ``keep()``. ``start()`` sets it.
    ended: asyncio.Task[int]

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        parent: ParentPipe | None,
        *,
        pass_fds: Sequence[int] = (),
        again: bool = True,
        silent_for: float | None = None,
        heard: Callable[[bool], None] | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self.name = name
        self._silent_for = silent_for
        self._heard = heard
        self._ours = parent is not None
        self._argv = list(argv)
        self._environment = dict(environment)
        self._pass_fds = tuple(pass_fds)
        if parent is not None:
            self._environment[PARENT_FD_VARIABLE] = str(parent.read_fd)
            self._pass_fds += (parent.read_fd,)
        self._clock = clock
        self._stopping = asyncio.Event()
        self._last = not again
        self._process: asyncio.subprocess.Process | None = None
        self._ready = False
        #: it has given a sign of life since the last look
        self._spoke = False

    @property
    def pid(self) -> int | None:
        """The running process, None between two runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Begin to keep it running."""
        self.ended = asyncio.create_task(self.keep())

    @property
    def ready(self) -> bool:
        """This run, or the last one between two runs, has said that it is ready."""
        return self._ready

    async def keep(self) -> int:
        """Run the command until ``stop()``, or until it is not to be started again.

        Returns the exit status of the last run: the signal's negative number if a signal ended it.
        """
        restarts = Restarts()
        status = 0
        while not self._stopping.is_set():
            began = self._clock()
            status = await self._run_once()
            if self._stopping.is_set() or self._last:
                break
            delay = restarts.delay(status, self._clock() - began, ready=self._ready)
            if delay is None:
                break
            if status == -signal.SIGINT and await self._asked_to_end(INTERRUPT_WITHIN):
                break
            log.warning("%s ended (%s); starting it again", self.name, describe(status))
            await self._asked_to_end(delay)
        return status

    async def _asked_to_end(self, within: float) -> bool:
        """Wait so many seconds at most for ``stop``. True: it was called."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._stopping.wait()
        return self._stopping.is_set()

    async def _run_once(self) -> int:
        """Run the command once. Returns its exit status."""
        signs, write_signs = os.pipe()
        os.set_blocking(signs, False)
        environment, pass_fds = self._environment, self._pass_fds
        if self._ours:
            environment = {**environment, KEEPER_FD_VARIABLE: str(write_signs)}
            pass_fds = (*pass_fds, write_signs)
        try:
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._argv,
                    env=environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=pass_fds,
                )
            finally:
                os.close(write_signs)
            self._process, self._ready = process, False
            if self._stopping.is_set():  # stop() came while it was being started
                _signal(process.terminate)
            loop = asyncio.get_running_loop()
            loop.add_reader(signs, self._hear, signs)
            try:
                await self._look_after(process)
            finally:
                self._process = None
                loop.remove_reader(signs)
            self._hear(signs)
            return await process.wait()
        finally:
            os.close(signs)

    def _hear(self, signs: int) -> None:
        """Take its signs of life in. The pipe is at its end once the child is."""
        said = _read(signs)
        if not said:
            asyncio.get_running_loop().remove_reader(signs)
            return
        self._ready = self._ready or READY in said
        self._spoke = True
        if self._heard is not None:
            self._heard(self._ready)

    async def _look_after(self, process: asyncio.subprocess.Process) -> None:
        """Wait for the end of ``process``, and kill it if it gives no sign of life for too long.

        Silence is counted in looks, not in time, so that none is counted while this process does
        not run. A child that was asked to end is not watched any more: whoever asked it decides how
        long that may take.
        """
        look = None if self._silent_for is None else SIGN_SECONDS
        heard = self._spoke = False
        silent = 0
        ended = asyncio.ensure_future(process.wait())
        while not ended.done():
            await asyncio.wait({ended}, timeout=look)
            spoke, self._spoke = self._spoke, False
            heard = heard or spoke
            silent = 0 if spoke or self._stopping.is_set() else silent + 1
            if self._silent_for is not None and heard and silent * SIGN_SECONDS >= self._silent_for:
                heard = False
                log.error("%s gave no sign of life for %g s", self.name, self._silent_for)
                _signal(process.kill)

    def keep_no_longer(self) -> None:
        """Do not start the child again, whatever ends it."""
        self._last = True

    def stop(self) -> None:
        """Ask the child to end (SIGTERM). It is not started again.

        Further calls send no signal, which could kill an interpreter that is ending and no longer
        handles it.
        """
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._process is not None:
            _signal(self._process.terminate)

    def kill(self) -> None:
        """End the child now (SIGKILL)."""
        self._stopping.set()
        if self._process is not None:
            _signal(self._process.kill)


def _signal(send: Callable[[], None]) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        send()


def _read(pipe: int) -> bytes:
    with contextlib.suppress(BlockingIOError):  # nothing was written since the last look
        return os.read(pipe, 4096)
    return b""


def describe(status: int) -> str:
    """An exit status in words."""
    return f"killed by signal {-status}" if status < 0 else f"status {status}"


#: Settings that each process needs. Its environment has no others, so that it holds no secret
#: without need. A role that is not here gets all settings.
_NEEDS: Final[Mapping[str, frozenset[str]]] = {
    "codec-worker": frozenset(("bus", "bus_key", "bus_clients", "host", "lead_ms", "log_format")),
    "gateway": frozenset(FIELDS)
    - {"numbers", "state_dir", "twilio_api_url", "calls_per_second", "region", "edge"}
    - {"database_url", "client_key", "bus_clients"},
    "carrier-sim": frozenset(("account_sid", "auth_token", "auth_token_secondary")),
}


def settings_environment(settings: Settings, role: str | None = None) -> dict[str, str]:
    """This process's environment, with the settings that a child of this role needs (None: all
    settings). Other variables of Twilio's tools are left out, such as API keys."""
    needs = _NEEDS.get(role or "", frozenset(FIELDS))
    if role == "codec-worker" and settings.address.directory is None:
        settings = settings.changed(bus_key=settings.tcp_key(), bus_clients=settings.clients_path)
    environment = {n: value for n, value in os.environ.items() if not n.startswith("TWILIO_")}
    for field in FIELDS:
        text = _as_text(getattr(settings, field)) if field in needs else None
        if text is None:
            environment.pop(env_name(field), None)
        else:
            environment[env_name(field)] = text
    return environment


def one_console_port(settings: Settings) -> Settings:
    """The settings with a free port of the console chosen, where any will do. This process holds
    it, so that each controller that it starts listens there, and open pages connect again. Linux
    alone lets a child listen at a port that its parent holds; elsewhere it stays any port."""
    if settings.console_port != 0 or sys.platform != "linux":
        return settings
    return settings.changed(console_port=free_ports(1)[0])


def _as_text(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, tuple):
        return ",".join(value) or ","  # a list of nobody is not the same as no list
    if isinstance(value, Path):
        return str(value.absolute())
    return str(value)
