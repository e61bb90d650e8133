"""A tunnel to the public port: starts cloudflared or ngrok, and reads the public URL from its
output.

The program ends with the process that opened the tunnel, however that ends (with_parent.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from dataclasses import dataclass
from typing import Final

from trunkline.bus import hosts
from trunkline.bus.clock import monotonic
from trunkline.bus.errors import SettingsError, TrunklineError
from trunkline.bus.launch import ParentPipe
from trunkline.bus.twilio_urls import HEALTH_PATH

from .with_parent import start_with_parent

#: Seconds within which the program has to print its URL.
URL_WITHIN: Final = 30.0
#: Seconds within which a new tunnel has to be reachable: its name has to spread in the DNS first.
REACHABLE_WITHIN: Final = 90.0
_LOOK_EVERY: Final = 1.0
#: Seconds from SIGTERM to SIGKILL.
_GRACE: Final = 2.0


class TunnelError(TrunklineError, RuntimeError):
    """The tunnel could not be opened."""


@dataclass(frozen=True)
class TunnelKind:
    """A program that opens tunnels: its arguments, its URL in its output, how to install it."""

    name: str
    arguments: tuple[str, ...]
    url: re.Pattern[str]
    install: str

    def argv(self, host: str, port: int) -> list[str]:
        """The command line for a tunnel to a listener on ``host``. A listener on all addresses is
        reached at the loopback address."""
        at = hosts.join(hosts.reachable(host), port)
        return [self.name, *(argument.format(at=at) for argument in self.arguments)]


TUNNELS: Final = {
    kind.name: kind
    for kind in (
        TunnelKind(
            "cloudflared",
            ("tunnel", "--no-autoupdate", "--url", "http://{at}"),
            re.compile(r"https://[a-z0-9-]+\.trycloudflare\.com"),
            "`brew install cloudflared`, or see "
            "https://developers.cloudflare.com/cloudflare-one/connections/connect-networks/downloads/",
        ),
        TunnelKind(
            "ngrok",
            ("http", "--log", "stdout", "--log-format", "logfmt", "{at}"),
            re.compile(r"url=(https://[^\s\"]+)"),
            "`brew install ngrok`, or see https://ngrok.com/download "
            "(it needs `ngrok config add-authtoken` once)",
        ),
    )
}


class Tunnel:
    """A running tunnel, made by ``open()``. ``url`` is its public base URL."""

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
        """Start the program ``name`` for the local port. Returns once its URL is known.

        Raises SettingsError where the program is not installed, and TunnelError where it ends
        before it has printed a URL, or prints none within 30 s.
        """
        kind = TUNNELS[name]
        if shutil.which(kind.name) is None:
            raise SettingsError(
                f"--tunnel {kind.name}: the program {kind.name} is not installed; {kind.install}"
            )
        parent = ParentPipe()
        process = await start_with_parent(
            kind.argv(host, port),
            parent,
            grace=_GRACE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        tunnel = cls(kind, process, parent)
        try:
            async with asyncio.timeout(URL_WITHIN):
                tunnel.url = await asyncio.shield(tunnel._found)
        except TimeoutError:
            await tunnel.close()
            raise TunnelError(
                f"{kind.name} printed no public URL within {URL_WITHIN:g} s{tunnel._tail()}"
            ) from None
        except BaseException:
            await tunnel.close()
            raise
        return tunnel

    async def wait_reachable(self) -> bool:
        """Wait until ``/healthz`` answers through the tunnel. False: it did not within 90 s."""
        # Imported here, because it imports requests, which takes a sixth of the start of a stack.
        from .http_get import get

        deadline = monotonic() + REACHABLE_WITHIN
        while monotonic() < deadline:
            if (await get(self.url + HEALTH_PATH)).status == 200:
                return True
            await asyncio.sleep(_LOOK_EVERY)
        return False

    async def ended(self) -> None:
        """Wait until the tunnel's program has ended."""
        await asyncio.shield(self._reading)

    def describe_end(self) -> str:
        """That the tunnel ended, for a message."""
        return f"the tunnel at {self.url} ended"

    async def close(self) -> None:
        """End the program. May be called twice."""
        with contextlib.suppress(ProcessLookupError):  # the program has ended already
            self._process.terminate()
        await self._process.wait()
        await self._reading
        self._parent.close()

    async def _read(self) -> None:
        """Read all of the program's output, because a full pipe would stop it."""
        assert self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # the line is longer than the reader's buffer, and is skipped
                continue
            if not line:
                break
            text = line.decode(errors="replace").rstrip()
            self._last_lines = [*self._last_lines[-2:], text]
            match = self.kind.url.search(text)
            if match and not self._found.done():
                self._found.set_result(match.group(match.lastindex or 0))
        if not self._found.done():
            self._found.set_exception(
                TunnelError(f"{self.kind.name} ended without a public URL{self._tail()}")
            )
            self._found.exception()  # mark it as seen: open() may have given up by now

    def _tail(self) -> str:
        return f"; it last said: {' / '.join(self._last_lines)}" if self._last_lines else ""
