"""A carrier, a stack and clients as real processes.

The benchmarks, the chaos suite and the end-to-end tests run on a :class:`Run`.
"""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from trunkline.bus.http import Session
from trunkline.bus.launch import (
    Launched,
    ParentPipe,
    apart,
    end,
    free_ports,
    spawn,
    trunkline_argv,
)
from trunkline.bus.runtime_dir import temporary_directory
from trunkline.carrier_sim.client import SimClient

ROOT = Path(__file__).parent.parent
OWN_NUMBER = "+14155551234"
#: Seconds that a client may take for its next line; a hundred calls have to come up meanwhile.
ANSWERS_WITHIN = 180.0


def callee(n: int) -> str:
    """The n-th number outside of the account."""
    return f"+1415666{n:04d}"


class Run:
    """A stand-in carrier and, once ``up`` was called, a stack, apart from any other.

    The carrier outlives the stack, which may be killed and started again on the same ports. What
    the processes say goes to log files. All of them end with this process, however it ends.
    """

    sim: SimClient

    def __init__(self, prefix: str = "trunkline-bench-") -> None:
        self.directory = temporary_directory(prefix)
        self.public, self.console = free_ports(2)
        self.public_url = f"http://127.0.0.1:{self.public}"
        self.environment = apart(
            self.directory,
            TRUNKLINE_PUBLIC_URL=self.public_url,
            TRUNKLINE_HTTP_PORT=str(self.public),
            TRUNKLINE_CONSOLE_PORT=str(self.console),
            LITELLM_LOCAL_MODEL_COST_MAP="True",
        )
        #: all that was started, in this order, and what each says
        self.processes: list[subprocess.Popen[bytes]] = []
        self.logs: list[Path] = []
        #: the supervisor
        self.stack_process: subprocess.Popen[bytes] | None = None
        #: benchmark clients and the load generator
        self.talkers: list[Talker] = []
        self._parent = ParentPipe()
        self._shown: dict[Path, int] = {}

    # ------------------------------------------------------------------ starting

    def start_carrier(self, *options: str) -> None:
        """``trunkline carrier-sim``; returns once it answers."""
        info = self._launch("carrier", "carrier-sim", *options).wait_ready()
        assert info.sim is not None
        self.environment["TRUNKLINE_TWILIO_API_URL"] = info.sim
        self.sim = SimClient(info.sim, timeout=60.0)

    def start_load_generator(self, sound: str) -> Talker:
        """The lean carrier of the benchmarks (load_generator.py); returns once it answers."""
        (port,) = free_ports(1)
        self.environment["TRUNKLINE_TWILIO_API_URL"] = f"http://127.0.0.1:{port}"
        options = ("--port", str(port), "--sound", sound, "--number", OWN_NUMBER)
        carrier = self.talk_to(Path(sys.executable), "load_generator", *options)
        carrier.read("ready")
        return carrier

    def talk_to(self, python: Path, module: str, *arguments: str) -> Talker:
        """Start a module of benchmarks/ that is spoken to in lines of JSON."""
        talker = Talker(python, module, arguments, self.environment, self.directory)
        self.talkers.append(talker)
        return talker

    def order(self, adapter: str, callees: list[str], speech: Path) -> dict[str, Any]:
        """What a client is asked for (protocol.py): ``adapter`` says whose, where it is one."""
        return {
            "adapter": adapter,
            "number": OWN_NUMBER,
            "callees": callees,
            "ports": free_ports(len(callees) if adapter else 1),  # an adapter has one for each call
            "speech": str(speech),
            "api": self.environment["TRUNKLINE_TWILIO_API_URL"],
            "sid": self.environment["TWILIO_ACCOUNT_SID"],
            "token": self.environment["TWILIO_AUTH_TOKEN"],
        }

    def start_stack(self, gateways: int | None = 2, codec_workers: int | None = 2) -> Launched:
        """``trunkline up``; returns at once. None: as many as it starts by itself."""
        counts = []
        for option, count in (("--gateways", gateways), ("--codec-workers", codec_workers)):
            counts += [] if count is None else [option, str(count)]
        launched = self._launch("up", "up", *counts)
        self.stack_process = launched.process
        return launched

    def up(
        self, gateways: int | None = 2, codec_workers: int | None = 2
    ) -> subprocess.Popen[bytes]:
        """``trunkline up``; returns once all of it has joined."""
        launched = self.start_stack(gateways, codec_workers)
        launched.wait_ready()
        return launched.process

    def _launch(self, name: str, *argv: str) -> Launched:
        launched = Launched(
            trunkline_argv(*argv),
            self.directory,
            f"{len(self.processes)}-{name}",
            self.environment,
            what=name,
            cwd=self.directory,
            parent_fd=self._parent.read_fd,
        )
        self._started(launched.process, launched.log)
        return launched

    def run(
        self, argv: Sequence[str], name: str, *, cwd: Path | None = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start a program with the stack's settings."""
        log = self.directory / f"{len(self.processes)}-{name}.log"
        process = spawn(
            argv,
            self.environment | environment,
            log,
            self._parent.read_fd,
            cwd=cwd or self.directory,
        )
        return self._started(process, log)

    def _started(self, process: subprocess.Popen[bytes], log: Path) -> subprocess.Popen[bytes]:
        self.processes.append(process)
        self.logs.append(log)
        return process

    # ------------------------------------------------------------------ what it says

    def status(self, timeout: float = 10.0) -> dict[str, Any]:
        """What ``trunkline status --json`` prints, from the controller's local port. OSError where
        none answers."""
        url = f"http://127.0.0.1:{self.console}/api/status"
        with Session() as session:
            found: dict[str, Any] = session.get(url, timeout=timeout).json()
        return found

    def complete(self, gateways: int = 2, codec_workers: int = 2) -> bool:
        """All processes of the stack have joined."""
        try:
            status = self.status(timeout=2.0)
        except (OSError, ValueError):
            return False
        found = len(status["gateways"]), len(status["codec_workers"])
        return found == (gateways, codec_workers)

    def tails(self, lines: int = 40) -> str:
        """The last lines of every log since the last ``forget_logs``."""
        parts = []
        for log in self._all_logs():
            said = log.read_text(errors="replace")[self._shown.get(log, 0) :].splitlines()
            if said:
                parts.append("\n".join([f"--- {log.name}", *said[-lines:]]))
        return "\n".join(parts)

    def forget_logs(self) -> None:
        """What was said so far is no more shown."""
        for log in self._all_logs():
            self._shown[log] = len(log.read_text(errors="replace"))

    def _all_logs(self) -> list[Path]:
        """Those of benchmark clients too."""
        return sorted(self.directory.glob("*.log"))

    # ------------------------------------------------------------------ ending

    def family(self) -> list[psutil.Process]:
        """The stack's supervisor and all its children."""
        assert self.stack_process is not None
        top = psutil.Process(self.stack_process.pid)
        return [top, *top.children(recursive=True)]

    def kill_stack(self) -> None:
        """kill -9 for the whole stack at once: nobody can put anything back."""
        family = self.family()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        assert self.stack_process is not None
        self.stack_process.wait(5.0)
        _, alive = psutil.wait_procs(family, 5.0)
        assert not alive, alive
        self.stack_process = None

    def close(self) -> None:
        """End everything, the carrier last."""
        for talker in self.talkers[1:]:
            talker.close()
        if hasattr(self, "sim"):
            self.sim.close()
        for process in reversed(self.processes):
            end(process)
        for talker in self.talkers:
            talker.close()
        self._parent.close()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def carrier(calls: int, *, keep_audio: bool = False) -> Iterator[Run]:
    """A run with that many callees who talk; ends with all that was started.

    ``keep_audio``: the carrier remembers what was heard and said.
    """
    run = Run()
    try:
        keeping = "--keep-audio" if keep_audio else "--no-keep-audio"
        run.start_carrier(keeping, "--number", f"{OWN_NUMBER}=http://x/voice")
        for n in range(calls):
            run.sim.add_callee(callee(n), "speech:austen-0870,loop")
        yield run
    except BaseException:
        print(run.tails(), file=sys.stderr)
        raise
    finally:
        run.close()


def role(process: psutil.Process) -> str:
    """What a process of ours is, by its command line."""
    words = process.cmdline()
    for name in ("carrier-sim", "gateway", "codec-worker", "controller", "up"):
        if name in words[1:6]:
            return name.replace("-", "_")
    return "client" if any("benchmarks." in word for word in words) else "other"


class Talker:
    """A process of benchmarks/ that is told words, or orders in JSON, and answers lines of JSON
    (protocol.py, load_generator.py)."""

    def __init__(
        self,
        python: Path,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        directory: Path,
    ) -> None:
        self.module = module
        self._log = (directory / f"client-{module}.log").open("ab")
        self.process = subprocess.Popen(
            [str(python), "-m", f"benchmarks.{module}", *arguments],
            env={**environment, "PYTHONPATH": str(ROOT)},
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def read(self, key: str) -> dict[str, Any]:
        """Its next line, which must have ``key``."""
        answer = self._read()
        if key not in answer:
            raise RuntimeError(f"{self.module} said {answer} instead of {key!r}")
        return answer

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        if not self.has_said(ANSWERS_WITHIN):
            raise RuntimeError(f"{self.module} said nothing for {ANSWERS_WITHIN:g} s")
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {}
        return answer

    def has_said(self, within: float) -> bool:
        """Whether a line is there to be read, within so many seconds."""
        assert self.process.stdout is not None
        poll = select.poll()  # select() takes no descriptor above 1,023, and ports are held open
        poll.register(self.process.stdout, select.POLLIN)
        return bool(poll.poll(max(0.0, within) * 1000))

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def ask(self, **order: Any) -> dict[str, Any]:
        """Give the load generator an order; its answer."""
        self.tell(json.dumps(order))
        return self._read()

    def close(self) -> None:
        """It ends when its stdin does; 10 s later it is killed."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._log.close()
