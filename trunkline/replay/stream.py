"""Plays one stream of a cassette to a WebSocket, as Twilio's Media Streams client does, and writes
down the answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from trunkline.bus import hosts
from trunkline.bus.clock import monotonic
from trunkline.bus.errors import InvalidRequestError
from trunkline.bus.redact import mask_url
from trunkline.carrier_sim.signature import sign

from .carrier import Carrier
from .cassette import Stream

#: Seconds to connect within, and to wait for the agent's close frame.
CONNECT_WITHIN: Final = 10.0
CLOSE_WITHIN: Final = 2.0
#: Seconds by which a REST request may overtake the agent's last marks and clears. This is less than
#: a comparison's tolerance, so that a signal which never comes is one difference, and the stream's
#: end is not a second one.
OVERTAKES_BY: Final = 0.3
#: When nothing waits for its time, the agent is done once it has sent nothing for QUIET seconds, or
#: LONGEST seconds after everything was sent to it.
QUIET: Final = 2.0
LONGEST: Final = 30.0
#: Messages that are sent in one go before the agent's messages are read.
_BATCH: Final = 50


@dataclass(frozen=True)
class Player:
    """How streams are played. ``account``: the AccountSid to say. ``token``: the auth token that
    signs upgrades; empty: they are not signed. ``fast``: no message waits for its time.
    ``parameters``: custom parameters of the streams' starts."""

    account: str
    token: str = field(default="", repr=False)
    fast: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)

    async def play(
        self,
        url: str,
        taped: Stream,
        began: float,
        parameters: Mapping[str, str] | None = None,
        before_stop: Callable[[], Awaitable[None]] | None = None,
    ) -> Stream:
        """Play the stream ``taped``. Returns the stream of this run, in seconds since ``began``,
        which is the monotonic time of the call's beginning.

        ``parameters``: in place of the player's. ``before_stop``: the stream's end waits for it.
        InvalidRequestError where no WebSocket can be opened at ``url``.
        """
        given = self.parameters if parameters is None else parameters
        carrier = Carrier(taped, self.account, given)
        headers = {"X-Twilio-Signature": sign(self.token, url)} if self.token else {}
        here = hosts.is_here(url)
        direct: dict[str, Any] = {"proxy": None} if here else {}
        try:
            socket = await connect(
                url,
                additional_headers=headers,
                user_agent_header="Twilio.TmeWs/1.0",
                compression=None,
                max_size=2**20,
                ping_interval=None,
                open_timeout=CONNECT_WITHIN,
                close_timeout=CLOSE_WITHIN,
                **direct,
            )
        except (OSError, TimeoutError, WebSocketException, ValueError) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise InvalidRequestError(f"no stream at {mask_url(url)}: {why}") from error
        playing = _Playing(socket, carrier, taped, began, fast=self.fast)
        return await playing.run(before_stop)


class _Playing:
    """One stream that is being played."""

    def __init__(
        self, socket: ClientConnection, carrier: Carrier, taped: Stream, began: float, *, fast: bool
    ) -> None:
        self._socket = socket
        self._carrier = carrier
        self._taped = taped
        self._fast = fast
        self._opened = monotonic()
        self._answered_at = self._opened
        #: the cassette's time, where no message waits for it
        self._place = 0.0
        self._changed = asyncio.Event()
        self.stream = Stream(taped.sid, self._opened - began)

    def _now(self) -> float:
        """Seconds since the stream's opening, on the cassette's clock."""
        return self._place if self._fast else monotonic() - self._opened

    async def run(self, before_stop: Callable[[], Awaitable[None]] | None) -> Stream:
        reading = asyncio.create_task(self._read())
        try:
            with contextlib.suppress(ConnectionClosed):
                await (self._rush() if self._fast else self._pace())
                if before_stop is not None:
                    await self._until(asyncio.ensure_future(before_stop()))
                    await self._until_signalled()
                await self._send(self._carrier.stop())
                if not self.stream.stopped:
                    # In the cassette the carrier does not end the stream, so the agent may.
                    await asyncio.wait({reading}, timeout=QUIET)
        finally:
            if self.stream.closed is None:
                self._closed("left")
            await self._socket.close()
            await reading
        return self.stream

    async def _pace(self) -> None:
        end = self._carrier.stops_at
        while not self._over:
            times = [at for at in (self._carrier.next_at, end) if at is not None]
            if not times:
                return
            await self._wait(min(times) - self._now())
            await self._send(self._carrier.due(self._now()))
            if end is not None and self._now() >= end:
                return

    async def _until(self, ready: asyncio.Future[None]) -> None:
        """Wait until ``ready``. Marks come back meanwhile, because our side may wait for one before
        it hangs up."""
        ready.add_done_callback(lambda _: self._changed.set())
        try:
            while not ready.done() and not self._over:
                at = self._carrier.next_at
                await self._wait(LONGEST if at is None else at - self._now())
                await self._send(self._carrier.due(self._now()))
        finally:
            ready.cancel()

    async def _until_signalled(self) -> None:
        """Wait for as many marks and clears as the cassette has. The last may still be on their way
        when the hang-up, which comes by REST, has arrived."""
        latest = monotonic() + OVERTAKES_BY
        while (
            len(self.stream.signals) < len(self._taped.signals)
            and (left := latest - monotonic()) > 0
            and not self._over
        ):
            await self._wait(left)
            await self._send(self._carrier.due(self._now()))

    async def _rush(self) -> None:
        """Send all but the end without waiting, and return when the agent has nothing more to
        say."""
        sent = 0
        while (at := self._carrier.next_at) is not None and not self._over:
            self._place = max(self._place, at)
            await self._send(self._carrier.due(self._place))
            sent += 1
            if not sent % _BATCH:
                await asyncio.sleep(0)
        began = self._answered_at = monotonic()
        while (
            not self._over
            and monotonic() - self._answered_at < QUIET
            and monotonic() - began < LONGEST
        ):
            await self._wait(QUIET / 4)
            self._place = max(self._place, self._carrier.playing_until)
            await self._send(self._carrier.due(self._place))

    @property
    def _over(self) -> bool:
        return self.stream.closed is not None

    async def _wait(self, seconds: float) -> None:
        """Wait for so many seconds, or until the agent sends something."""
        if seconds > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)

    async def _send(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            await self._socket.send(msgspec.json.encode(message).decode())
            self.stream.heard.append((self._at(), message))
            if message.get("event") == "stop":
                self._closed("stop")

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in self._socket:
                data = text.encode() if isinstance(text, str) else text
                try:
                    found = msgspec.json.decode(data)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    found = None
                message = found if isinstance(found, dict) else {"event": "unreadable"}
                self.stream.said.append((self._at(), message))
                self._answered_at = monotonic()
                self._carrier.answered(self._now(), message)
                self._changed.set()
        self._changed.set()
        if self.stream.closed is None:
            self._closed("close")

    def _at(self) -> float:
        return self.stream.opened + (monotonic() - self._opened)

    def _closed(self, reason: str) -> None:
        self.stream.closed, self.stream.reason = self._at(), reason
