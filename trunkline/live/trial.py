"""One call of a live run: our leg, which REST places, and the leg that comes in at the number."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from trunkline.bus.clock import monotonic
from trunkline.bus.errors import CarrierError, TrunklineError
from trunkline.bus.redact import mask_url
from trunkline.bus.twilio_urls import RETRY_FRAGMENT, STATUS_PATH, VOICE_PATH, stream_base
from trunkline.controller.twilio.calls import ENDED_STATUSES, CallOrder
from trunkline.controller.twilio.carrier import RestFailure, TwilioCarrier

from .listener import Asked, Hook, Listener, LiveStream
from .verdicts import Verdicts

#: TimeLimit of a run's calls, in seconds. It bounds the cost of a call even if all else fails.
LONGEST: Final = 60
#: Seconds between two calls, because Twilio takes one new call a second.
_APART: Final = 1.1
#: Seconds for which a call rings at most.
_RINGS: Final = 30


class UnreachedError(TrunklineError, RuntimeError):
    """A call of the run did not reach the listener."""


@dataclass
class LiveRun:
    """What all calls of a run share. ``placing``: held by the call whose first webhook is awaited.
    ``placed_at``: monotonic time of the last call. ``placed``: the SIDs of all calls."""

    carrier: TwilioCarrier
    listener: Listener
    verdicts: Verdicts
    number: str
    caller: str
    placing: asyncio.Lock = field(default_factory=asyncio.Lock)
    placed_at: float = float("-inf")
    placed: list[str] = field(default_factory=list)

    @property
    def base(self) -> str:
        return self.listener.public_url

    async def create(self, name: str, twiml: str, time_limit: int) -> str:
        """Place a call, and return its SID. CarrierError says why Twilio refuses it."""
        await asyncio.sleep(max(0.0, self.placed_at + _APART - monotonic()))
        self.placed_at = monotonic()
        callback = f"{self.base}{STATUS_PATH}?d={name}{RETRY_FRAGMENT}"
        order = CallOrder(self.number, self.caller, twiml, time_limit, _RINGS, callback)
        try:
            call = await self.carrier.create_call(order)
        except RestFailure as failure:
            error = failure.error("place a call to the number")
            if self.caller != self.number:
                raise error from failure
            raise CarrierError(
                f"{error}. The number was called from itself; name another number of the account, "
                "or a verified one, with --from",
                status=failure.status,
                code=failure.code,
                message=failure.text,
            ) from failure
        self.placed.append(call.sid)
        return call.sid

    async def hang_up_all(self) -> None:
        """End all calls of the run. A call that cannot be ended now ends by its TimeLimit."""
        await asyncio.gather(*map(self.carrier.end_call, self.placed), return_exceptions=True)


class Trial:
    """A call of the run. ``sid``: that of our leg. The other leg's is known from its first
    webhook on."""

    def __init__(self, live: LiveRun, name: str) -> None:
        self.live = live
        self.name = name
        self.sid = ""
        self.created = 0.0
        self._other = ""
        self._streams = 0

    async def place(self, twiml: str, *, time_limit: int = LONGEST, within: float = 12.0) -> Hook:
        """Place the call, and return the first webhook of its other leg. UnreachedError where none
        comes within so many seconds."""
        live = self.live
        async with live.placing:
            coming = live.listener.newcomer()
            self.created = time.time()
            self.sid = await live.create(self.name, f"<Response>{twiml}</Response>", time_limit)
            deadline = monotonic() + within
            while not coming.done() and monotonic() < deadline:
                await asyncio.wait({coming}, timeout=0.5)
                if not coming.done() and await self.status() in ENDED_STATUSES:
                    break
            if not coming.done():
                coming.cancel()
                raise UnreachedError(
                    f"no webhook of the call {self.sid} reached "
                    f"{mask_url(live.base)}/twilio/voice; `trunkline doctor` beside a running "
                    "stack checks the way"
                )
            hook = coming.result()
        self._other = hook.asked.sid
        return hook

    async def hook(self, seconds: float = 8.0) -> Hook | None:
        """The next webhook of the call. None: none came within so many seconds."""
        return await self.live.listener.next_hook(self._other, seconds)

    async def status(self) -> str:
        """Our leg's status, as REST shows it now. "" where REST fails."""
        try:
            return (await self.live.carrier.fetch_call(self.sid)).status
        except RestFailure:
            return ""

    async def ended(self, seconds: float) -> str:
        """Wait for the end of our leg, and return its status. The last one seen, where it does not
        end within so many seconds."""
        deadline = monotonic() + seconds
        status = await self.status()
        while status not in ENDED_STATUSES and monotonic() < deadline:
            await asyncio.sleep(0.25)
            status = await self.status()
        return status

    @property
    def told(self) -> list[str]:
        """The statuses of our leg that callbacks brought, in order."""
        return [asked.form.get("CallStatus", "") for asked in self.callbacks]

    @property
    def callbacks(self) -> list[Asked]:
        return [asked for asked in self.live.listener.callbacks if asked.sid == self.sid]

    async def told_end(self, seconds: float) -> str:
        """Wait for a callback that says that our leg has ended, and return its status. "" where
        none comes within so many seconds."""
        await self.live.listener.news.until(lambda: bool(set(self.told) & ENDED_STATUSES), seconds)
        return next((status for status in self.told if status in ENDED_STATUSES), "")

    async def told_all(self, statuses: Iterable[str], seconds: float) -> None:
        """Wait, so long at most, until callbacks have told all of these. The callback of the last
        event may overtake others."""
        wanted = set(statuses)
        await self.live.listener.news.until(lambda: wanted <= set(self.told), seconds)

    def redirect(self) -> str:
        """The TwiML verb by which Twilio asks us again."""
        url = f"{self.live.base}{VOICE_PATH}/{self.name}?r={self.name}{RETRY_FRAGMENT}"
        return f'<Redirect method="POST">{url.replace("&", "&amp;")}</Redirect>'

    async def stream(self, hook: Hook, *, refuse: bool = False) -> LiveStream | None:
        """Answer with a stream and a redirect behind it. Returns the stream, or None where it does
        not come up."""
        self._streams += 1
        name = f"{self.name}-{self._streams}-{secrets.token_hex(4)}"
        stream = self.live.listener.stream(name, refuse=refuse)
        url = f"{stream_base(self.live.base)}/twilio/stream/{name}"
        hook.answer(
            f'<Connect><Stream url="{url}"><Parameter name="nonce" value="{name}"/></Stream>'
            f"</Connect>{self.redirect()}"
        )
        try:
            async with asyncio.timeout(10.0):
                await (stream.asked if refuse else stream.started).wait()
        except TimeoutError:
            return None
        return stream
