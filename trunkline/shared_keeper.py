"""The process that keeps one stack for a whole test run (see shared_stack.py).

    python -m trunkline.shared_keeper DIRECTORY KIND

It reads ``KIND.request.json``, starts the stand-in carrier where one is asked for and ``trunkline
up``, and writes ``KIND.json`` once all of it has joined. It ends when the run does (the writers of
the directory's FIFO are gone), on SIGTERM, or with the stack: the stack first, so that its numbers
are put back while the carrier still answers. How the stack ended stands in ``KIND.ended``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from trunkline.ask import controller, get_status
from trunkline.bus.errors import StackUnavailableError, TrunklineError
from trunkline.bus.locks import FileLock
from trunkline.bus.process import EXIT_DONE, EXIT_FAILED, PARENT_FD_VARIABLE, run
from trunkline.bus.redact import mask_url
from trunkline.bus.settings import Settings, load
from trunkline.carrier_sim.client import SimClient
from trunkline.children import ParentPipe, trunkline_argv

READY_WITHIN: Final = 60.0
#: ``trunkline up`` ends within 4 s of SIGTERM.
STACK_ENDS_WITHIN: Final = 6.0
CARRIER_ENDS_WITHIN: Final = 3.0
_STEP: Final = 0.05
_LISTENING: Final = re.compile(r"listening on (http://\S+)")


class StackRequest(msgspec.Struct, frozen=True):
    """What stack to start. ``environment``: settings of the stack. ``numbers``: of a stand-in
    carrier, with the voice_url that each had before; empty: no stand-in. ``callees``: number ->
    bot, outside of its account. ``tunnel``: cloudflared, ngrok or None."""

    environment: dict[str, str]
    gateways: int = 1
    codec_workers: int = 1
    tunnel: str | None = None
    numbers: dict[str, str] = {}
    callees: dict[str, str] = {}


class StackInfo(msgspec.Struct, frozen=True):
    """A stack that is up. ``sim``: base URL of its stand-in carrier; None: a real one."""

    bus: str
    account_sid: str
    auth_token: str
    public_url: str
    sim: str | None = None

    def __repr__(self) -> str:
        url = mask_url(self.public_url)
        return f"StackInfo(bus={self.bus!r}, public_url={url!r}, sim={self.sim!r})"


class Keeper:
    """One stack and its carrier, in ``directory``."""

    def __init__(self, directory: Path, kind: str) -> None:
        self._directory = directory
        self._kind = kind
        self._request = msgspec.json.decode(
            (directory / f"{kind}.request.json").read_bytes(), type=StackRequest
        )
        self._parent = ParentPipe()
        self._environment = {
            name: value for name, value in os.environ.items() if name != PARENT_FD_VARIABLE
        } | self._request.environment
        self._carrier: asyncio.subprocess.Process | None = None
        self._stack: asyncio.subprocess.Process | None = None

    async def run(self, stop: asyncio.Event) -> int:
        """Start all, wait for the end, end all; the stack's exit status."""
        stopping = asyncio.create_task(stop.wait())
        try:
            starting = asyncio.create_task(self._start())
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
                return await self._end()
            info = starting.result()
            _write(self._directory / f"{self._kind}.json", msgspec.json.encode(info))
            assert self._stack is not None
            ended = asyncio.create_task(self._stack.wait())
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)
            return await self._end()
        except BaseException:
            await self._end()
            raise
        finally:
            stopping.cancel()
            self._parent.close()

    # ------------------------------------------------------------------ starting

    async def _start(self) -> StackInfo:
        request, sim = self._request, None
        if request.numbers:
            sim = await self._start_carrier()
            self._environment["TRUNKLINE_TWILIO_API_URL"] = sim
        counts = (
            "--gateways",
            str(request.gateways),
            "--codec-workers",
            str(request.codec_workers),
        )
        tunnel = () if request.tunnel is None else ("--tunnel", request.tunnel)
        self._stack = await self._spawn("stack", self._environment, "up", *counts, *tunnel)
        settings = load(
            env_file=None,
            bus=self._environment["TRUNKLINE_BUS"],
            account_sid=self._environment["TWILIO_ACCOUNT_SID"],
            auth_token=self._environment["TWILIO_AUTH_TOKEN"],
        )
        public_url = await self._wait_complete(settings)
        return StackInfo(
            bus=settings.bus,
            account_sid=settings.account_sid,
            auth_token=settings.auth_token.get_secret_value(),
            public_url=public_url,
            sim=sim,
        )

    async def _start_carrier(self) -> str:
        request = self._request
        environment = self._environment | {
            "TRUNKLINE_SIM_PORT": "0",
            "TRUNKLINE_SIM_NUMBERS": " ".join(f"{n}={url}" for n, url in request.numbers.items()),
            "PYTHONUNBUFFERED": "1",
        }
        argv = trunkline_argv("carrier-sim")
        self._carrier = await self._spawn("carrier", environment, "with-parent", "--", *argv)
        url = await self._carrier_url(self._carrier)
        with SimClient(url) as sim:
            for number, bot in request.callees.items():
                sim.add_callee(number, bot)
        return url

    async def _spawn(
        self, name: str, environment: Mapping[str, str], *argv: str
    ) -> asyncio.subprocess.Process:
        with (self._directory / f"{self._kind}-{name}.log").open("wb") as log:
            return await asyncio.create_subprocess_exec(
                *trunkline_argv(*argv),
                env={**environment, PARENT_FD_VARIABLE: str(self._parent.read_fd)},
                cwd=self._directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._parent.read_fd,),
            )

    def _said(self, name: str) -> str:
        return (self._directory / f"{self._kind}-{name}.log").read_text(errors="replace")

    async def _carrier_url(self, process: asyncio.subprocess.Process) -> str:
        try:
            async with asyncio.timeout(READY_WITHIN):
                while (found := _LISTENING.search(self._said("carrier"))) is None:
                    if process.returncode is not None:
                        raise StackUnavailableError("the carrier ended at its start")
                    await asyncio.sleep(_STEP)
        except TimeoutError:
            raise StackUnavailableError(f"no carrier in {READY_WITHIN:g} s") from None
        return found[1]

    async def _wait_complete(self, settings: Settings) -> str:
        """Until all of the stack has joined; its public URL."""
        request, process = self._request, self._stack
        assert process is not None
        try:
            async with asyncio.timeout(READY_WITHIN):
                while process.returncode is None:
                    with contextlib.suppress(StackUnavailableError):  # not there yet
                        async with controller(settings, timeout=1.0) as client:
                            status = await get_status(client)
                            if (
                                len(status["gateways"]) >= request.gateways
                                and len(status["codec_workers"]) >= request.codec_workers
                            ):
                                assert client.welcome is not None
                                return client.welcome.public_url or ""
                    await asyncio.sleep(_STEP)
        except TimeoutError:
            raise StackUnavailableError(f"the stack was not up in {READY_WITHIN:g} s") from None
        raise StackUnavailableError(f"the stack ended at its start (status {process.returncode})")

    # ------------------------------------------------------------------ ending

    async def _end(self) -> int:
        status = await _terminate(self._stack, STACK_ENDS_WITHIN)
        await _terminate(self._carrier, CARRIER_ENDS_WITHIN)
        return status


async def _terminate(process: asyncio.subprocess.Process | None, within: float) -> int:
    if process is None:
        return EXIT_DONE
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(within):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, and for its owner only (it may hold a token)."""
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    fresh.rename(path)


def main(argv: Sequence[str]) -> int:
    """Keep the stack of ``argv`` (directory, kind) until the end of the run."""
    directory, kind = Path(argv[0]), argv[1]
    os.setsid()  # Ctrl-C reaches the tests first
    os.chdir(directory)  # no .env there
    # Held for life: a lock that can be taken means that nothing of ours is left.
    lock = FileLock(directory / f"{kind}.alive", f"pid {os.getpid()}")
    try:
        status = run(Keeper(directory, kind).run)
        _write(directory / f"{kind}.ended", str(status).encode())
        return status
    except TrunklineError as error:
        print(f"trunkline: {error}", file=sys.stderr)
        _write(directory / f"{kind}.ended", str(error).encode())
        return EXIT_FAILED
    finally:
        lock.release()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
