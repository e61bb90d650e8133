"""The stack of ``make hosts``: three hosts, the controller on one of them, all else beside them.

On each host run a gateway and a codec worker, each with its keeper, as ``Procfile`` has them. The
controller has an address of its own, with which it may come up on another host. The stand-in
carrier, the load balancer, the database and the clients stand beside the hosts, on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.hosts_network import NAMES, Network
from benchmarks.postgres_server import Server
from benchmarks.processes import OWN_NUMBER, Run
from trunkline.bus.errors import TrunklineError
from trunkline.bus.launch import end, spawn, trunkline_argv
from trunkline.bus.settings import Settings, load
from trunkline.stack.controller_client import controller_client, get_status

BUS_PORT: Final = 7000
GATEWAY_PORT: Final = 8765
#: Seconds until three hosts have joined.
UP_WITHIN: Final = 30.0


class HostsRun(Run):
    """A carrier, a balancer, a database, and three hosts of one stack."""

    def __init__(self) -> None:
        super().__init__("trunkline-hosts-")
        self.network = Network()
        #: host -> role -> its keeper
        self.keepers: dict[str, dict[str, subprocess.Popen[bytes]]] = {}
        self._database = Server(self.network.here, self.network.network)
        here = self.network.here
        self.public_url = f"http://{here}:{self.public}"
        self.environment |= {
            "TRUNKLINE_PUBLIC_URL": self.public_url,
            "TRUNKLINE_BUS": f"tcp://{self.network.controller}:{BUS_PORT}",
            "TRUNKLINE_HTTP_PORT": str(GATEWAY_PORT),
        }
        self._settings: Settings = load(
            env_file=None,
            bus=self.environment["TRUNKLINE_BUS"],
            auth_token=self.environment["TWILIO_AUTH_TOKEN"],
            state_dir=self.environment["TRUNKLINE_STATE_DIR"],
        )

    # ------------------------------------------------------------------ starting

    def begin(self) -> None:
        """Carrier, database and balancer."""
        here = self.network.here
        number = f"{OWN_NUMBER}=http://x/voice"
        self._database.start()
        self.environment["TRUNKLINE_DATABASE_URL"] = self._database.database()
        self.start_carrier("--host", here, "--keep-audio", "--number", number)
        gateways = [f"{address}:{GATEWAY_PORT}" for address in self.network.hosts.values()]
        python = Path(sys.executable)
        balancer = self.talk_to(python, "hosts_balancer", f"{here}:{self.public}", *gateways)
        assert balancer.process.stdout is not None
        balancer.process.stdout.readline()

    def up(
        self, gateways: int | None = None, codec_workers: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Whatever does not run of the stack is started; returns once all of it has joined."""
        if not any("controller" in roles for roles in self.keepers.values()):
            self.start_controller(NAMES[0])
        for host in NAMES:
            for role in ("gateway", "codec-worker"):
                if role not in self.keepers.get(host, {}):
                    self._start(host, role)
        until = time.monotonic() + UP_WITHIN
        while not self.complete():
            if time.monotonic() > until:
                raise RuntimeError(f"not within {UP_WITHIN:g} s: three hosts have joined")
            time.sleep(0.1)
        return self.processes[-1]

    def start_controller(self, host: str) -> None:
        """The controller comes up on this host, at its own address."""
        self.network.place_controller(host)
        self._start(host, "controller")

    def _start(self, host: str, role: str) -> None:
        runtime = self.directory / host
        runtime.mkdir(mode=0o700, exist_ok=True)
        settings = {
            "TRUNKLINE_HOST": host,
            "TRUNKLINE_HTTP_HOST": self.network.hosts[host],
            "XDG_RUNTIME_DIR": str(runtime),
        }
        log = self.directory / f"{len(self.processes)}-{host}-{role}.log"
        argv = self.network.on(host, trunkline_argv(role, "--keep-alive"))
        process = spawn(
            argv, self.environment | settings, log, self._parent.read_fd, cwd=self.directory
        )
        self._started(process, log)
        self.keepers.setdefault(host, {})[role] = process

    # ------------------------------------------------------------------ what it says

    def status(self, timeout: float = 10.0) -> dict[str, Any]:
        """As the bus has it: the console is the controller's host's alone."""

        async def ask() -> dict[str, Any]:
            async with controller_client(self._settings, timeout=timeout) as client:
                return await get_status(client)

        try:
            return asyncio.run(ask())
        except TrunklineError as error:
            raise OSError(str(error)) from error

    def complete(self, gateways: int = 3, codec_workers: int = 3) -> bool:
        return super().complete(gateways, codec_workers)

    # ------------------------------------------------------------------ ending

    def kill_host(self, host: str) -> None:
        """kill -9 for all that runs there, at once."""
        family = []
        for keeper in self.keepers.pop(host).values():
            with contextlib.suppress(psutil.NoSuchProcess):
                top = psutil.Process(keeper.pid)
                family += [top, *top.children(recursive=True)]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
        _, alive = psutil.wait_procs(family, 5.0)
        assert not alive, alive

    def end_stack(self) -> list[int | None]:
        """Ask all of it to end, the controller first; the exit status of each."""
        every = [found for roles in self.keepers.values() for found in roles.items()]
        every.sort(key=lambda found: found[0] != "controller")
        for _, keeper in every:
            end(keeper)
        self.keepers.clear()
        return [keeper.returncode for _, keeper in every]

    def close(self) -> None:
        try:
            super().close()
        finally:
            try:
                self._database.close()
            finally:
                self.network.close()
