"""The connections of a gateway or codec worker to all controllers of its fleet.

Controllers that share an account, a public URL and a database are a fleet: any gateway may get a
webhook of any of their calls, and any codec worker may carry one. So each gateway and worker has a
:class:`~.control.ControlClient` for each stack. The one at the address of its settings is *home*.
The others follow from what the controllers say (``Welcome.fleet``, ``Fleet``, ``Moved``).

Without a database there is home alone, and nothing here costs anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container, Sequence
from typing import TypeVar

import zmq
from msgspec.structs import replace

from . import messages as m
from .clock import Clock, monotonic
from .control import ControlClient
from .curve import ClientCurve
from .endpoints import BusAddress
from .errors import TrunklineError
from .wall import Wall

log = logging.getLogger("trunkline.bus")

_T = TypeVar("_T")


class Fleet:
    """The connections to all controllers, on the running loop. ``hello(elsewhere)`` makes the Hello
    for one stack: ``elsewhere`` are the stacks that have a connection of their own. The other
    arguments are those of :class:`~.control.ControlClient`."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: BusAddress,
        *,
        peer: str,
        hello: Callable[[Container[str]], m.Hello],
        beat: Callable[[], m.Beat | None],
        on_event: Callable[[m.Event], None],
        on_welcome: Callable[[m.Welcome], None],
        on_refused: Callable[[TrunklineError], None],
        curve: ClientCurve | None = None,
        clock: Clock = monotonic,
        wall: Wall | None = None,
    ) -> None:
        self._context = context
        self._peer = peer
        self._hello = hello
        self._beat = beat
        self._on_event = on_event
        self._on_welcome = on_welcome
        self._curve = curve
        self._clock = clock
        self.wall = Wall(log) if wall is None else wall
        #: a controller has said that there is a fleet
        self._named = False
        #: the stack at our own address, as its last Welcome named it
        self._home_stack: str | None = None
        self._others: dict[str, ControlClient] = {}
        self.home = self._client(address, "", on_refused)

    def start(self) -> None:
        """Connect to home, and stay connected until ``close()``."""
        self.home.start()

    async def close(self) -> None:
        """Say Goodbye everywhere."""
        await asyncio.gather(*(client.close() for client in self._all()))

    def _all(self) -> list[ControlClient]:
        return [self.home, *self._others.values()]

    def _client(
        self, address: BusAddress, stack: str, on_refused: Callable[[TrunklineError], None]
    ) -> ControlClient:
        return ControlClient(
            self._context,
            address,
            peer=self._peer,
            hello=lambda: self._hello_of(stack),
            beat=self._beat,
            on_event=self._event,
            on_welcome=lambda welcome: self._welcomed(stack, welcome),
            on_refused=on_refused,
            on_moved=self._moved,
            curve=self._curve,
            clock=self._clock,
            wall=self.wall,
        )

    # ------------------------------------------------------------------ as one controller

    @property
    def welcome(self) -> m.Welcome | None:
        """The Welcome of any controller that is there; None: no controller is there."""
        return next((c.welcome for c in self._all() if c.welcome is not None), None)

    @property
    def stacks(self) -> list[str] | None:
        """The stacks whose controllers are there; None: there is no fleet."""
        if not self._named:
            return None
        return [client.welcome.stack for client in self._all() if client.welcome is not None]

    @property
    def healthy(self) -> bool:
        """A controller is there that has a codec worker which moves sound."""
        return any(c.welcome is not None and c.workers != 0 for c in self._all())

    @property
    def deaf(self) -> bool:
        """Connections are up, and no controller is heard."""
        return all(client.deaf for client in self._all())

    async def request(
        self, body: m.RequestBody, expect: type[_T], *, timeout: float | None = None, stack: str
    ) -> _T:
        """ControlClient's ``request``, to the controller that runs this stack. If no controller
        does, it goes to any."""
        return await self._of(stack).request(body, expect, timeout=timeout)

    def _of(self, stack: str) -> ControlClient:
        if stack in self._others:
            return self._others[stack]
        there = (client for client in self._all() if client.welcome is not None)
        return self.home if stack == self._home_stack else next(there, self.home)

    def notify(self, notification: m.Notification) -> bool:
        """Notify all controllers: those that do not have the call ignore it. False: no controller
        is there."""
        return any([client.notify(notification) for client in self._all()])

    # ------------------------------------------------------------------ which there are

    def _hello_of(self, stack: str) -> m.Hello:
        elsewhere = set(self._others)
        if stack:
            elsewhere = (elsewhere | {self._home_stack or ""}) - {stack}
        hello = self._hello(elsewhere)
        return replace(hello, stack=stack) if stack else hello

    def _welcomed(self, stack: str, welcome: m.Welcome) -> None:
        if not stack:
            self._home_stack = welcome.stack
        self._on_welcome(welcome)
        self._seen(welcome.fleet)

    def _event(self, event: m.Event) -> None:
        if isinstance(event, m.Fleet):
            self._seen(event.controllers)
        else:
            self._on_event(event)

    def _moved(self, moved: m.Moved) -> None:
        self._abandon(moved.stack)
        if moved.bus is not None:
            self._connect(moved.stack, moved.bus)

    def _seen(self, controllers: Sequence[m.ControllerRef]) -> None:
        """A controller says which controllers there are. Its list may be older than another
        controller's, so a connection that is up is kept even if the list does not name it."""
        self._named = self._named or bool(controllers)
        home = m.ControllerRef(stack=self._home_stack or "", bus=self.home.address.text)
        buses = {each.stack: each.bus for each in controllers if each != home}
        for stack, client in list(self._others.items()):
            known = buses.get(stack, None if client.welcome is None else client.address.text)
            if known != client.address.text:
                self._abandon(stack)
        for stack, bus in buses.items():
            if stack not in self._others:
                self._connect(stack, bus)

    def _connect(self, stack: str, bus: str) -> None:
        try:
            address = BusAddress.read(bus)
        except ValueError as error:
            log.error("the bus of stack %s cannot be reached: %s", stack, error)
            return
        log.info("stack %s is at %s", stack, bus)
        client = self._client(address, stack, lambda error: self._refused(stack, error))
        self._others[stack] = client
        client.start()

    def _refused(self, stack: str, error: TrunklineError) -> None:
        log.error("the controller of stack %s refuses this process: %s", stack, error)

    def _abandon(self, stack: str) -> None:
        client = self._others.pop(stack, None)
        if client is not None:
            client.abandon()
