"""The demo's own stack: honcho with carrier_sim, on free ports, a bus and a state directory of its
own, so that it neither meets nor disturbs a stack that runs already.

Nothing of the user's settings reaches it: no TRUNKLINE_ or TWILIO_ variable, no ``.env``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shlex
import shutil
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from trunkline.ask import controller, get_status
from trunkline.bus.clock import monotonic
from trunkline.bus.errors import StackUnavailableError, TrunklineError
from trunkline.bus.runtime_dir import temporary_directory
from trunkline.bus.settings import Settings, load
from trunkline.carrier_sim.client import SimClient
from trunkline.children import ParentPipe, trunkline_argv
from trunkline.with_parent import start_with_parent

READY_WITHIN: Final = 30.0
#: honcho gives its children 5 s between SIGTERM and SIGKILL.
ENDED_WITHIN: Final = 8.0
_STEP: Final = 0.05

GATEWAYS: Final = 2
CODEC_WORKERS: Final = 2


class DemoError(TrunklineError):
    """The demo failed; the message says in what."""


@dataclass(frozen=True)
class _Ports:
    public: int
    console: int
    carrier: int

    @classmethod
    def free(cls) -> _Ports:
        """Three ports that nobody listens on; all are held until all are found."""
        with contextlib.ExitStack() as held:
            found = []
            for _ in range(3):
                sock = held.enter_context(socket.create_server(("127.0.0.1", 0)))
                found.append(int(sock.getsockname()[1]))
        return cls(*found)


def clean_environment() -> dict[str, str]:
    """The environment without any setting of trunkline or Twilio."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TRUNKLINE_", "TWILIO_"))
    }


class DemoStack:
    """A running stack; ``start()`` makes it, ``stop()`` ends it."""

    def __init__(self, numbers: dict[str, str], callees: dict[str, str], log: Path) -> None:
        self._directory = temporary_directory("trunkline-demo-")
        ports = _Ports.free()
        self._environment = {
            "TWILIO_ACCOUNT_SID": "AC" + secrets.token_hex(16),
            "TWILIO_AUTH_TOKEN": secrets.token_hex(16),
            "TRUNKLINE_PUBLIC_URL": f"http://127.0.0.1:{ports.public}",
            "TRUNKLINE_HTTP_PORT": str(ports.public),
            "TRUNKLINE_CONSOLE_PORT": str(ports.console),
            "TRUNKLINE_TWILIO_API_URL": f"http://127.0.0.1:{ports.carrier}",
            "TRUNKLINE_BUS": f"ipc://{self._directory}/bus",
            "TRUNKLINE_STATE_DIR": str(self._directory / "state"),
            "TRUNKLINE_SIM_PORT": str(ports.carrier),
            "TRUNKLINE_SIM_NUMBERS": " ".join(f"{n}={url}" for n, url in numbers.items()),
            "TRUNKLINE_SIM_CALLEES": " ".join(f"{n}={bot}" for n, bot in callees.items()),
        }
        self._parent = ParentPipe()
        self._process: asyncio.subprocess.Process | None = None
        self._log = log
        self.sim = SimClient(f"http://127.0.0.1:{ports.carrier}")
        self.settings: Settings = load(
            env_file=None,
            account_sid=self._environment["TWILIO_ACCOUNT_SID"],
            auth_token=self._environment["TWILIO_AUTH_TOKEN"],
            public_url=self._environment["TRUNKLINE_PUBLIC_URL"],
            bus=self._environment["TRUNKLINE_BUS"],
        )

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._end()

    async def _start(self) -> None:
        """Start honcho; returns when all gateways and codec workers have joined."""
        procfile = self._directory / "Procfile"
        procfile.write_text(
            "".join(
                f"{name}: exec {shlex.join(trunkline_argv(*argv))}\n"
                for name, argv in {
                    "carrier_sim": ["carrier-sim"],
                    "controller": ["controller", "--keep-alive"],
                    "gateway": ["gateway", "--keep-alive"],
                    "codec_worker": ["codec-worker", "--keep-alive"],
                }.items()
            )
        )
        scale = f"gateway={GATEWAYS},codec_worker={CODEC_WORKERS}"
        with self._log.open("wb") as log:
            self._process = await start_with_parent(
                [
                    *(sys.executable, "-P", "-m", "honcho", "--no-colour"),
                    *("-d", str(self._directory), "-f", str(procfile), "start", "-c", scale),
                ],
                self._parent,
                grace=ENDED_WITHIN,
                environment=clean_environment() | self._environment,
                cwd=self._directory,  # no .env there
                stdout=log,
                stderr=log,
            )
        deadline = monotonic() + READY_WITHIN
        while not await self._complete():
            if self._process.returncode is not None:
                raise DemoError(f"the stack ended at its start; it said:\n{self.tail()}")
            if monotonic() > deadline:
                raise DemoError(f"the stack was not ready in time; it said:\n{self.tail()}")
            await asyncio.sleep(_STEP)

    async def _complete(self) -> bool:
        try:
            status = await self.status()
            await asyncio.to_thread(self.sim.health)
        except (StackUnavailableError, OSError):
            return False
        return len(status["gateways"]) >= GATEWAYS and len(status["codec_workers"]) >= CODEC_WORKERS

    async def status(self) -> dict[str, Any]:
        """What ``trunkline status --json`` prints."""
        async with controller(self.settings, timeout=1.0) as client:
            return await get_status(client)

    def tail(self, lines: int = 15) -> str:
        """The last that the processes said."""
        said = self._log.read_text(errors="replace").splitlines()
        return "\n".join(said[-lines:])

    async def _end(self) -> None:
        self.sim.close()
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(ENDED_WITHIN + 1.0):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
                raise DemoError("honcho did not end in time") from None
        self._parent.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def check_ended_well(self) -> None:
        """Raises DemoError where a process ended otherwise than with status 0."""
        bad = [
            line
            for line in self._log.read_text(errors="replace").splitlines()
            if "stopped (rc=" in line and "(rc=0)" not in line
        ]
        if bad:
            raise DemoError("a process of the stack ended badly: " + "; ".join(bad))
