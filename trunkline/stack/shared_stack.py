"""One stack for a whole run of tests, shared by all of its processes.

The run's first process (pytest itself, or the controller of pytest-xdist) makes a
:class:`RunDirectory` and keeps it open. The process that needs the stack first starts it with
:func:`acquire`, and the others find it in the directory. The stack outlives the process that
started it. It ends when the run's first process ends, even if that is killed, because it reads a
FIFO of which that process holds the only writing end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from trunkline.bus.errors import CarrierError, StackUnavailableError
from trunkline.bus.launch import (
    Launched,
    StackInfo,
    apart,
    clean_environment,
    lives,
    read_ready_file,
    trunkline_argv,
)
from trunkline.bus.process import EXIT_DONE, EXIT_PENDING
from trunkline.bus.runtime_dir import temporary_directory
from trunkline.bus.settings import Settings, env_name, private_state_dir
from trunkline.carrier_sim.client import SimClient

from .children import settings_environment

#: Seconds that the stack may take to end.
ENDED_WITHIN: Final = 12.0
#: Seconds between two looks at whether it has ended.
_STEP: Final = 0.05
#: Is in the last line that the supervisor logs.
_ENDED: Final = re.compile(r"ended with status (\d+)")

#: The stacks that this process has started. It waits for them if it is the one that ends the run.
_started: list[Launched] = []


class RunDirectory:
    """The run's own directory. Stacks that are started in it end with :meth:`close`, or when this
    process ends."""

    def __init__(self) -> None:
        # The path of a socket has to be short, and pytest's own directories have long ones.
        self.path = temporary_directory("trunkline-run-")
        fifo = self.path / "running"
        os.mkfifo(fifo, 0o600)
        # Opening a FIFO for writing would block until it has a reader.
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._writer = os.open(fifo, os.O_WRONLY | os.O_CLOEXEC)
        os.close(reader)

    def close(self, ended: Callable[[], object] = lambda: None) -> list[str]:
        """End the stacks, call ``ended``, and delete the directory. Returns the problems, one line
        each. Where there are any, the directory is kept for its logs."""
        os.close(self._writer)
        problems = []
        for log in sorted(self.path.glob("*.log")):
            problems += self._wait_ended(log)
        ended()
        if not problems:
            while _started:
                _started.pop().process.wait()
            shutil.rmtree(self.path, ignore_errors=True)
        return problems

    def _wait_ended(self, log: Path) -> list[str]:
        kind = log.stem
        deadline = time.monotonic() + ENDED_WITHIN
        while lives(log):
            if time.monotonic() > deadline:
                return [f"the {kind} stack did not end in time (see {self.path})"]
            time.sleep(_STEP)
        said = _ENDED.findall(log.read_text(errors="replace"))
        status = int(said[-1]) if said else None
        if status == EXIT_DONE:
            return []
        if status == EXIT_PENDING:
            return [f"numbers are still to be put back: run `trunkline restore` (see {self.path})"]
        how = "killed" if status is None else f"status {status}"
        return [f"the {kind} stack ended badly ({how}, see {self.path})"]


@dataclass(frozen=True)
class Wanted:
    """The stack to start. ``argv``: options of ``trunkline up``. ``environment``: its whole
    environment, but for TRUNKLINE_BUS. ``callees``: number -> bot, for numbers outside of the
    stand-in's account."""

    argv: list[str]
    environment: dict[str, str]
    callees: dict[str, str] = field(default_factory=dict)


def simulated(
    directory: Path,
    numbers: Mapping[str, str],
    pool: Iterable[str],
    callees: Mapping[str, str],
    **environment: str,
) -> Wanted:
    """A stack beside the stand-in carrier, with an account of its own, on free ports.

    ``numbers``: number of the account -> its voice_url. ``pool``: those of them that a session may
    take which names none. ``callees``: number outside of the account -> its bot. ``environment``:
    further variables.
    """
    settings = {
        "TRUNKLINE_NUMBERS": ",".join(pool),
        "TRUNKLINE_SIM_NUMBERS": " ".join(f"{n}={url}" for n, url in numbers.items()),
    }
    return Wanted(["--sim"], apart(directory, **settings | environment), dict(callees))


def kept_settings(settings: Settings) -> dict[str, str]:
    """The variables by which a stack beside the stand-in carrier keeps recordings and cassettes as
    ``settings`` say. It gets no other setting of the user's."""
    prefixes = tuple(map(env_name, ("recordings_", "cassettes_")))
    return {n: v for n, v in settings_environment(settings).items() if n.startswith(prefixes)}


def twilio(directory: Path, settings: Settings, tunnel: str | None) -> Wanted:
    """A stack with the user's own settings at the real carrier. It has a state directory and a
    console port of its own, so it can run beside any other stack of theirs."""
    environment = clean_environment() | {
        name: value
        for name, value in settings_environment(settings).items()
        if name.startswith(("TRUNKLINE_", "TWILIO_"))
    }
    own = private_state_dir(settings.state_path.absolute(), directory.name)
    environment |= {"TRUNKLINE_STATE_DIR": str(own), "TRUNKLINE_CONSOLE_PORT": "0"}
    return Wanted([] if tunnel is None else ["--tunnel", tunnel], environment)


def acquire(directory: Path, kind: str, wanted: Wanted) -> StackInfo:
    """The run's stack of this kind. Where none runs yet, it is started as ``wanted`` says.

    Blocks until the stack is up. Where it does not come up: CarrierError if Twilio refuses it, else
    StackUnavailableError, each with the last lines of its log.
    """
    log = directory / f"{kind}.log"
    with _locked(directory / f"{kind}.lock"):
        info = read_ready_file(directory / f"{kind}.json")
        if info is None or not lives(log):
            info = _start(directory, kind, wanted)
        return info


def _start(directory: Path, kind: str, wanted: Wanted) -> StackInfo:
    running = os.open(directory / "running", os.O_RDONLY | os.O_NONBLOCK)
    try:
        launched = Launched(
            trunkline_argv("up", "--gateways", "1", "--codec-workers", "1", *wanted.argv),
            directory,
            kind,
            wanted.environment | {"TRUNKLINE_BUS": f"ipc://{directory}/{kind}"},
            what=f"the {kind} stack for these tests",
            cwd=directory,  # has no .env
            parent_fd=running,
            own_session=True,  # Ctrl-C ends the tests, and not the stack under them
        )
    finally:
        os.close(running)
    try:
        info = launched.wait_ready()
        if wanted.callees:
            with SimClient(info.sim or "") as sim:
                for number, bot in wanted.callees.items():
                    sim.add_callee(number, bot)
    except BaseException as error:
        launched.stop()
        if isinstance(error, StackUnavailableError | CarrierError):
            launched.log.unlink()  # the error has its last lines
        raise
    _started.append(launched)
    return info


def leave() -> None:
    """Forget the stacks that this process started, because it ends before the run does.

    subprocess warns about a process that is forgotten before its status is known. Where a user has
    turned warnings into errors, that would be one of the run's results, so a status is made up.
    """
    while _started:
        _started.pop().process.returncode = EXIT_DONE


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of this file. Waits while another process holds it."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
