"""The gateway's process: settings in, exit status out.

Shut-down: the controller puts numbers back first, and calls that are redirected meanwhile ask a
gateway once more. So a gateway stays while the controller does. On SIGTERM it takes no new streams.
It ends when the controller is gone, or when no call is live after a second, or after two and a half
seconds in any case. Together with the closing of sockets that is within the four seconds that a
supervisor gives. Where a load balancer sends new calls elsewhere, ``--drain`` lets the calls that
are on come to their end first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Container
from typing import Final

import zmq

from trunkline.bus import hosts
from trunkline.bus import messages as m
from trunkline.bus.cassettes import Cassettes
from trunkline.bus.curve import stop_authenticator
from trunkline.bus.errors import SettingsError, TrunklineError
from trunkline.bus.fleet import Fleet
from trunkline.bus.listener import Bounds, Server
from trunkline.bus.process import (
    EXIT_DONE,
    EXIT_FAILED,
    complain,
    lives_while,
    rarely_collect_all,
    run,
    say_ready,
    setup_logging,
)
from trunkline.bus.retention import Retention
from trunkline.bus.settings import Settings

from .app import GatewayApp
from .authenticator import Authenticator
from .recording import Recorder
from .refusals import Refusals
from .shell import Shell
from .signature import SignatureCheck
from .websocket import protocol_class

log = logging.getLogger("trunkline.gateway")

#: The public listener. A live call's connection, and one whose request is being answered, do not
#: count among those that wait.
BOUNDS: Final = Bounds(
    waiting=2_000,
    waiting_of_one=250,
    request_bytes=96 * 1024,
    request_within=10.0,
    leave_within=1.0,
)
#: A stopping gateway stays for this many seconds at most ...
DRAIN_SECONDS: Final = 2.5
#: ... and for this many at least, while the controller lives.
IDLE_DRAIN_SECONDS: Final = 1.0
#: The carrier has this many seconds to answer the closing of its sockets.
CLOSE_SECONDS: Final = 0.5
_DRAIN_STEP: Final = 0.05


def main(
    settings: Settings, *, listen_fd: int | None = None, drain_seconds: float | None = None
) -> int:
    """Run a gateway until SIGTERM, SIGINT or the end of the parent; returns the exit status.

    ``listen_fd``: an inherited listening socket to serve on; else the gateway binds
    ``http_host:http_port`` itself. ``drain_seconds``: how long it then goes on with the calls that
    are on; None: as the module says. A mistake in the settings, or a port that is taken, is one
    line on stderr and status 1.
    """
    end_logging = setup_logging("gateway", settings.log_format)
    try:
        check = None
        if settings.validate_signature:
            settings.require("auth_token")
            check = SignatureCheck(*settings.auth_tokens)
        settings.address.make_directory()
        if listen_fd is None:
            listening = hosts.listen(settings.http_host, settings.http_port)
        else:
            listening = hosts.inherited(listen_fd)
        return run(lambda stop: serve(settings, listening, check, stop, drain_seconds))
    except SettingsError as error:
        complain("gateway", error)
        return EXIT_FAILED
    finally:
        end_logging()


async def serve(
    settings: Settings,
    listening: socket.socket,
    check: SignatureCheck | None,
    stop: asyncio.Event,
    drain_seconds: float | None = None,
) -> int:
    """Serve on ``listening`` until ``stop``; ``check`` None: signatures are not checked.
    ``drain_seconds`` as for main."""
    if check is None:
        log.warning(
            "TRUNKLINE_VALIDATE_SIGNATURE=0: webhooks and streams are accepted from anyone; "
            "for tests only"
        )
    directory = settings.recordings_dir
    retention = Retention(settings.recordings_keep_days, settings.recordings_max_mb)
    recorder = None if directory is None else Recorder(directory, retention)
    cassettes = Cassettes.of(settings)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    gateway = Gateway(settings, check, context, stop, recorder, cassettes, drain_seconds)
    # Calls go on while there is no controller. But if the connection is up and brings nothing for
    # long, the fault is this process's own. Its keeper then starts it again, and its calls come
    # back on new streams.
    lives_while(lambda: not gateway.client.deaf)
    try:
        return await gateway.run(listening)
    finally:
        if recorder is not None:
            recorder.close()
        if cassettes is not None:
            cassettes.close()
        stop_authenticator(context)
        context.term()


class Gateway:
    """One gateway on the running loop."""

    def __init__(
        self,
        settings: Settings,
        check: SignatureCheck | None,
        context: zmq.Context[zmq.Socket[bytes]],
        stop: asyncio.Event,
        recorder: Recorder | None = None,
        cassettes: Cassettes | None = None,
        drain_seconds: float | None = None,
    ) -> None:
        self.peer = f"gateway-{os.getpid()}-{secrets.token_hex(4)}"
        self._settings = settings
        self._stop = stop
        self._refused: TrunklineError | None = None
        self._has_been_healthy = False
        self._drain_seconds = drain_seconds
        self._stack: str | None = None
        self._public_url = settings.public_url
        self._account = settings.account_sid or None
        self.client = Fleet(
            context,
            settings.address,
            peer=self.peer,
            hello=self._hello,
            beat=lambda: m.Beat(
                peer=self.peer,
                streams=self.shell.streams.stats(),
                refused=dict(self.refusals.counts),
                dropped=dict(self.shell.wall.dropped + self.client.wall.dropped),
                measured={
                    "wakeup_lateness": self.shell.carriers.lateness.tally(),
                    "jitter": self.shell.jitter.tally(),
                },
            ),
            on_event=lambda event: self.shell.event(event),
            on_welcome=self._welcomed,
            on_refused=self._on_refused,
            curve=settings.curve,
        )
        self.refusals = Refusals(asyncio.get_running_loop().call_later)
        self.authenticator = Authenticator(
            check=check,
            public_url=lambda: self._public_url,
            refusals=self.refusals,
            account=lambda: self._account,
            refused=lambda kind, numbers: self.client.notify(
                m.WebhooksRefused(gateway=self.peer, kind=kind, numbers=numbers)
            ),
        )
        self.shell = Shell(
            self.peer,
            self.authenticator,
            self.client,
            context,
            lead_ms=settings.lead_ms,
            curve=settings.curve,
            recorder=recorder,
            cassettes=cassettes,
        )
        self.app = GatewayApp(
            self.authenticator,
            self.client.request,
            stack=lambda: self._stack,
            stacks=lambda: self.client.stacks,
            ready=lambda: self.healthy,
            takes_calls=lambda: self.takes_calls,
            cassettes=cassettes,
        )
        self._server = Server(
            self.app,
            BOUNDS,
            protocol_class(self.shell.accept, self.shell.carriers, self.refusals.add),
            self.refusals.add,
        )

    @property
    def healthy(self) -> bool:
        """A controller is heard, and has a codec worker that moves sound."""
        return self.client.healthy

    @property
    def takes_calls(self) -> bool:
        """It has been healthy, and does not end yet. It takes calls also while the controller is
        away: it has Twilio ask again, and no other gateway that a load balancer has could do
        better."""
        self._has_been_healthy = self._has_been_healthy or self.healthy
        return self._has_been_healthy and not self.shell.admission.draining

    async def run(self, listening: socket.socket) -> int:
        """Serve until stopped; returns the exit status."""
        self.client.start()
        rarely_collect_all()
        serving = asyncio.get_running_loop().create_task(self._server.serve([listening]))
        host, port = listening.getsockname()[:2]
        log.info("listening on http://%s", hosts.join(host, port))
        stopping = asyncio.get_running_loop().create_task(self._stop.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if self._refused is None and not serving.done():
                await self._drain()
        finally:
            stopping.cancel()
            # As soon as this gateway closes a call's stream, Twilio asks what comes next. So stop
            # listening first, and let another gateway on the same listening socket answer. This
            # gateway could only make the call wait for a second.
            self._server.stop_listening()
            self.app.leave()
            self.shell.close()
            await self.shell.wait_closed(CLOSE_SECONDS)
            self._server.leave()
            await asyncio.wait({serving})
            await self.client.close()
        if (error := serving.exception()) is not None:
            log.error("the listener failed: %s", error)
            return EXIT_FAILED
        if self._refused is not None:
            log.error("the controller refuses this gateway: %s", self._refused)
            return EXIT_FAILED
        return EXIT_DONE if self._stop.is_set() else EXIT_FAILED

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        self.shell.admission.draining = True
        began = loop.time()
        most = DRAIN_SECONDS if self._drain_seconds is None else self._drain_seconds
        # Whoever set a time wants calls to end by themselves, with a controller or without.
        while self._drain_seconds is not None or self.client.welcome is not None:
            passed = loop.time() - began
            if passed >= most:
                return
            if passed >= IDLE_DRAIN_SECONDS and not self.shell.streams.live:
                return
            await asyncio.sleep(_DRAIN_STEP)

    def _hello(self, elsewhere: Container[str]) -> m.Hello:
        streams = self.shell.streams.announce(self.shell.clock())
        return m.Hello(
            role="gateway",
            peer=self.peer,
            pid=os.getpid(),
            host=self._settings.host,
            streams=[each for each in streams if each.info.stack not in elsewhere],
            account=self._settings.account_sid or None,
        )

    def _welcomed(self, welcome: m.Welcome) -> None:
        if self._stack is None or welcome is self.client.home.welcome:
            self._stack = welcome.stack
        self._account = welcome.account
        self.shell.streams.lead_ms = welcome.lead_ms
        # The controller's public URL is the one that Twilio was given.
        if welcome.public_url is not None:
            self._public_url = welcome.public_url.rstrip("/")
        say_ready()

    def _on_refused(self, error: TrunklineError) -> None:
        self._refused = error
        self._stop.set()
