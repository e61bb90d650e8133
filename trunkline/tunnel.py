"""A tunnel to the public port: starts cloudflared or ngrok, and finds the public URL itself.

The tunnel's program runs under a small process of ours (``trunkline tunnel-runner``) that ends it
when the stack's supervisor ends, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from trunkline.bus.errors import SettingsError, TrunklineError
from trunkline.bus.process import EXIT_DONE, PARENT_FD_VARIABLE, run
from trunkline.children import ParentPipe, trunkline_argv

log = logging.getLogger("trunkline.supervisor")

#: Seconds for the program to say its URL.
URL_WITHIN: Final = 30.0
#: Seconds from SIGTERM to SIGKILL.
_TERM_GRACE: Final = 2.0


class TunnelError(TrunklineError, RuntimeError):
    """The tunnel could not be opened."""


@dataclass(frozen=True)
class TunnelKind:
    """A program that opens tunnels: how it is called, and how its URL looks in its output."""

    name: str
    arguments: tuple[str, ...]
    url: re.Pattern[str]
    install: str

    def argv(self, host: str, port: int) -> list[str]:
        values = {"host": host, "port": str(port)}
        return [self.name, *(argument.format(**values) for argument in self.arguments)]


TUNNELS: Final = {
    kind.name: kind
    for kind in (
        TunnelKind(
            "cloudflared",
            ("tunnel", "--no-autoupdate", "--url", "http://{host}:{port}"),
            re.compile(r"https://[a-z0-9-]+\.trycloudflare\.com"),
            "`brew install cloudflared`, or see "
            "https://developers.cloudflare.com/cloudflare-one/connections/connect-networks/downloads/",
        ),
        TunnelKind(
            "ngrok",
            ("http", "--log", "stdout", "--log-format", "logfmt", "{host}:{port}"),
            re.compile(r"url=(https://[^\s\"]+)"),
            "`brew install ngrok`, or see https://ngrok.com/download "
            "(it needs `ngrok config add-authtoken` once)",
        ),
    )
}


class Tunnel:
    """A running tunnel: ``open()`` makes it; ``url`` is its public base URL."""

    def __init__(
        self, kind: TunnelKind, process: asyncio.subprocess.Process, parent: ParentPipe
    ) -> None:
        self.kind = kind
        self.url = ""
        self._process = process
        self._parent = parent
        self._last_lines: list[str] = []
        self._found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, name: str, host: str, port: int) -> Tunnel:
        """Start the program ``name`` for the local port; returns once its URL is known.

        Raises SettingsError where the program is not installed, TunnelError where it ends or says
        no URL within 30 s.
        """
        kind = TUNNELS[name]
        if shutil.which(kind.name) is None:
            raise SettingsError(
                f"--tunnel {kind.name}: the program {kind.name} is not installed; {kind.install}"
            )
        parent = ParentPipe()
        process = await asyncio.create_subprocess_exec(
            *trunkline_argv("tunnel-runner", "--", *kind.argv(host, port)),
            env={**os.environ, PARENT_FD_VARIABLE: str(parent.read_fd)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=(parent.read_fd,),
        )
        tunnel = cls(kind, process, parent)
        try:
            async with asyncio.timeout(URL_WITHIN):
                tunnel.url = await asyncio.shield(tunnel._found)
        except TimeoutError:
            await tunnel.close()
            raise TunnelError(
                f"{kind.name} said no public URL within {URL_WITHIN:g} s{tunnel._tail()}"
            ) from None
        except BaseException:
            await tunnel.close()
            raise
        return tunnel

    async def ended(self) -> None:
        """Returns when the tunnel's program has ended."""
        await asyncio.shield(self._reading)

    async def close(self) -> None:
        """End the program; may be called twice."""
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            self._process.terminate()
        await self._process.wait()
        await self._reading
        if self._parent is not None:
            self._parent.close()

    async def _read(self) -> None:
        """Read what the program says to its end: a full pipe would stop it."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            text = line.decode(errors="replace").rstrip()
            self._last_lines = [*self._last_lines[-2:], text]
            match = self.kind.url.search(text)
            if match and not self._found.done():
                self._found.set_result(match.group(match.lastindex or 0))
        if not self._found.done():
            self._found.set_exception(
                TunnelError(f"{self.kind.name} ended without a public URL{self._tail()}")
            )
            self._found.exception()  # seen, also where nobody waits any more

    def _tail(self) -> str:
        return f"; it last said: {' / '.join(self._last_lines)}" if self._last_lines else ""


def run_tunnel(argv: Sequence[str]) -> int:
    """Run ``argv`` until it ends, SIGTERM or SIGINT comes, or the parent is gone."""

    async def main(stop: asyncio.Event) -> int:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=sys.stdout, stderr=sys.stderr
        )
        ended = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if ended.done():
            return max(ended.result(), 0)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TERM_GRACE):
                    await asyncio.shield(ended)
                break
        return EXIT_DONE

    return run(main)
