"""Real ``trunkline`` processes for tests: settings of their own, and an end for each of them."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from trunkline.bus.launch import apart, end, free_ports, trunkline_argv

#: The contract's 4 s between SIGTERM and the end of a process, and 1 s for a busy machine.
ENDS_WITHIN = 4.0 + 1.0


class Running:
    """One ``trunkline`` command, with its output in ``out`` and ``err``."""

    def __init__(
        self, argv: list[str], environment: dict[str, str], where: Path, parent_fd: int | None
    ) -> None:
        self._out, self._err = where / "out", where / "err"
        pass_fds = () if parent_fd is None else (parent_fd,)
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                trunkline_argv(*argv),
                env=environment,
                cwd=where,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=pass_fds,
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def children(self, *words: str) -> list[int]:
        """Pids of its children whose command line has all the words."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if set(words) <= set(child.cmdline()):
                    found.append(child.pid)
            except psutil.NoSuchProcess:
                continue
        return found

    def until(self, condition: Callable[[], object], seconds: float = 15.0) -> None:
        """Wait for ``condition``; fails with what the process said."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline or self.process.poll() is not None:
                if condition():
                    return
                pytest.fail(f"status {self.process.poll()}; it said:\n{self.out}{self.err}")
            time.sleep(0.01)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal; the exit status, and the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(ENDS_WITHIN)
        return status, time.monotonic() - began


class Trunkline:
    """Starts commands with one bus, port and state directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[Running] = []
        (self.port,) = free_ports(1)
        self.environment = apart(
            directory,
            TRUNKLINE_PUBLIC_URL=f"http://me:pa55@127.0.0.1:{self.port}/line",
            TRUNKLINE_HTTP_PORT=str(self.port),
        )

    def start(self, *argv: str, parent_fd: int | None = None, **environment: str) -> Running:
        where = self.directory / f"run-{len(self.started)}"
        where.mkdir(exist_ok=True)  # a test may have left a file for the command there
        running = Running(list(argv), self.environment | environment, where, parent_fd)
        self.started.append(running)
        return running

    def end_all(self) -> None:
        """End what still runs, at best so that it leaves no file."""
        left = [running.process for running in self.started if running.process.poll() is None]
        families = [psutil.Process(each.pid).children(recursive=True) for each in left]
        for process in left:
            process.terminate()
        for process, family in zip(left, families, strict=True):
            end(process, ENDS_WITHIN)
            for child in family:
                if child.is_running():
                    child.kill()


@contextlib.contextmanager
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trunkline]:
    """Commands apart from all others; whatever of them still runs is ended."""
    found = Trunkline(tmp_path_factory.mktemp("tl"))
    try:
        yield found
    finally:
        found.end_all()


@pytest.fixture
def trunkline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trunkline]:
    with commands(tmp_path_factory) as found:
        yield found


def all_end(pids: list[int], seconds: float = ENDS_WITHIN) -> bool:
    """Wait until none of the processes is alive; False when one still is after ``seconds``."""
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(autouse=True)
def signals_end_the_next_test() -> Iterator[None]:
    """A command that runs in this process blocks the signals that end it when it is done, and a
    process that is started later would have them blocked, too."""
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
