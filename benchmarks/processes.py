"""Processes of one benchmark run: carrier_sim, a stack, a client; and their CPU clocks."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from trunkline.bus.runtime_dir import temporary_directory
from trunkline.carrier_sim.client import SimClient

ROOT = Path(__file__).parent.parent
OWN_NUMBER = "+14155551234"
STARTED_WITHIN = 30.0


def free_port() -> int:
    """A port on the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def callee(n: int) -> str:
    """The n-th number outside of the account."""
    return f"+1415666{n:04d}"


@dataclass
class Run:
    """Where one run's processes are, and how to reach them."""

    directory: Path
    environment: dict[str, str]
    sim: SimClient
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def api(self) -> str:
        return self.environment["TRUNKLINE_TWILIO_API_URL"]

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        """A trunkline process; what it says goes to a log file of the run."""
        log = (self.directory / f"{len(self.processes)}-{argv[0]}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "trunkline", *argv],
                env=self.environment,
                cwd=self.directory,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self.processes.append(process)
        return process

    def logs(self, *, whole: bool = False) -> str:
        """What the processes said; the end of it, unless ``whole``."""
        start = 0 if whole else -3000
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[start:]}"
            for path in sorted(self.directory.glob("*.log"))
        )


@contextlib.contextmanager
def carrier(calls: int, *, keep_audio: bool = False) -> Iterator[Run]:
    """carrier_sim with that many callees who talk; ends with all that was started.

    ``keep_audio``: it remembers what was heard and said.
    """
    directory = temporary_directory("trunkline-bench-")
    port, api = free_port(), free_port()
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TRUNKLINE_", "TWILIO_"))
    } | {
        "TWILIO_ACCOUNT_SID": "AC" + secrets.token_hex(16),
        "TWILIO_AUTH_TOKEN": secrets.token_hex(16),
        "TRUNKLINE_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "TRUNKLINE_HTTP_PORT": str(port),
        "TRUNKLINE_CONSOLE_PORT": str(free_port()),
        "TRUNKLINE_BUS": f"ipc://{directory}/bus",
        "TRUNKLINE_STATE_DIR": str(directory / "state"),
        "TRUNKLINE_TWILIO_API_URL": f"http://127.0.0.1:{api}",
        "TRUNKLINE_CALLS_PER_SECOND": "50",
        "TRUNKLINE_SIM_PORT": str(api),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    run = Run(directory, environment, SimClient(f"http://127.0.0.1:{api}", timeout=60.0))
    try:
        keeping = "--keep-audio" if keep_audio else "--no-keep-audio"
        sim = run.start("carrier-sim", keeping, "--number", f"{OWN_NUMBER}=http://x/voice")
        wait(lambda: healthy(run.sim), sim, run)
        for n in range(calls):
            run.sim.add_callee(callee(n), "speech:austen-0870,loop")
        yield run
    except BaseException:
        print(run.logs(), file=sys.stderr)
        raise
    finally:
        run.sim.close()
        end(run.processes[::-1])
        shutil.rmtree(directory, ignore_errors=True)


def healthy(sim: SimClient) -> bool:
    try:
        return bool(sim.health()["ok"])
    except OSError:
        return False


def wait(ready: Any, process: subprocess.Popen[bytes], run: Run) -> None:
    """Until ``ready()``; an error when the process ends or the time is over."""
    deadline = time.monotonic() + STARTED_WITHIN
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"a process did not start (status {process.returncode})")
        time.sleep(0.05)


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """SIGTERM, and SIGKILL after 8 s, by pid."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(8)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def start_stack(run: Run, gateways: int, codec_workers: int) -> None:
    """``trunkline up``; returns when all of it has joined."""
    up = run.start("up", "--gateways", str(gateways), "--codec-workers", str(codec_workers))

    def complete() -> bool:
        said = subprocess.run(
            [sys.executable, "-m", "trunkline", "status", "--json"],
            env=run.environment,
            cwd=run.directory,
            capture_output=True,
            check=False,
        )
        if said.returncode:
            return False
        status = json.loads(said.stdout)
        return len(status["gateways"]) == gateways and len(status["codec_workers"]) == codec_workers

    wait(complete, up, run)


def role(process: psutil.Process) -> str:
    """What a process of ours is, by its command line."""
    words = process.cmdline()
    for name in ("carrier-sim", "gateway", "codec-worker", "controller", "up"):
        if name in words[1:6]:
            return name.replace("-", "_")
    return "client" if any("benchmarks.client" in word for word in words) else "other"


def cpu(run: Run, client: subprocess.Popen[str]) -> dict[str, float]:
    """CPU seconds so far, by role."""
    total: dict[str, float] = {}
    for pid in [*(p.pid for p in run.processes), client.pid]:
        top = psutil.Process(pid)
        for process in [top, *top.children(recursive=True)]:
            times = process.cpu_times()
            name = role(process)
            total[name] = total.get(name, 0.0) + times.user + times.system
    return total


class Client:
    """A benchmark client (see protocol.py)."""

    def __init__(self, run: Run, module: str, arguments: dict[str, Any]) -> None:
        self._log = (run.directory / f"client-{module}.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", json.dumps(arguments)],
            env=run.environment | {"PYTHONPATH": str(ROOT)},
            cwd=run.directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def read(self, key: str) -> dict[str, Any]:
        """The client's next line, which must have ``key``."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {}
        if key not in answer:
            raise RuntimeError(f"the client said {line!r} instead of {key!r}")
        return answer

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        end_one = self.process
        if end_one.poll() is None:
            try:
                end_one.wait(10)
            except subprocess.TimeoutExpired:
                end_one.kill()
                end_one.wait()
        for pipe in (end_one.stdin, end_one.stdout, self._log):
            if pipe is not None:
                pipe.close()
