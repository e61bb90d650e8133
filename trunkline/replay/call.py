"""Plays the carrier's part of a whole call: its webhooks, and its streams where TwiML leads them.

Each event of the carrier has its time in the cassette. It also waits until our side has asked for
as much by REST as it had asked for by then (:class:`Asked`), because the carrier did not end a
stream, for example, before it was told to hang up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final
from urllib.parse import parse_qsl, urljoin, urlsplit

import requests

from trunkline.bus.cassette_masks import ACCOUNT
from trunkline.bus.clock import monotonic
from trunkline.bus.errors import InvalidRequestError
from trunkline.bus.http import Session, reason
from trunkline.bus.redact import mask_url
from trunkline.carrier_sim import twiml
from trunkline.carrier_sim.signature import sign

from .cassette import Cassette, Exchange, Form, Stream, is_callback
from .stream import Player

#: Twilio waits so long for the answer to a webhook (seconds).
ANSWER_WITHIN: Final = 15.0
#: So much longer than in the cassette may our side take until it asks for something by REST.
PATIENCE: Final = 10.0

Parameters = dict[str, str]


class Asked:
    """How often our side has changed something by REST."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = asyncio.Event()

    def add(self) -> None:
        self.count += 1
        self._changed.set()

    async def until(self, count: int, within: float = PATIENCE) -> bool:
        """Wait for so many; False where they did not come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self.count < count:
                    self._changed.clear()
                    await self._changed.wait()
        return self.count >= count


@dataclass
class Lines:
    """Where the present call leads: how our side is reached, and who is who now.

    ``status_url`` None: callbacks are left out. ``numbers``: masked number -> the one to say.
    """

    voice_url: str
    status_url: str | None = None
    numbers: Mapping[str, str] = field(default_factory=dict)
    #: the call's document, and what our side asked streams for by REST, as they come
    document: twiml.Document | None = None
    started: list[tuple[str, Parameters]] = field(default_factory=list)

    def answered(self, body: str) -> None:
        """A document for the call has come."""
        self.document = twiml.parse(body)
        for verb in self.document.verbs or ():
            if isinstance(verb, twiml.Redirect):
                self.voice_url = urljoin(self.voice_url, verb.url)

    @property
    def stream(self) -> tuple[str, Parameters] | None:
        """The stream that the document asks for."""
        for verb in (self.document and self.document.verbs) or ():
            if isinstance(verb, twiml.Connect | twiml.Start):
                return verb.stream.url, verb.stream.parameters
        return None


class CallPlayer:
    """Plays the cassette ``taped``. ``now`` is the cassette of this run, whole once :meth:`run`
    has returned. ``asked`` None: our side's requests of REST are not seen, so nothing waits for
    them."""

    def __init__(
        self, taped: Cassette, lines: Lines, player: Player, *, asked: Asked | None = None
    ) -> None:
        self.now = Cassette(taped.call)
        self._taped = taped
        self._lines = lines
        self._player = player
        self._asked = asked
        self._playing: list[tuple[Stream, asyncio.Task[Stream]]] = []
        changes = [each for each in taped.rest if each.method != "GET"]
        self._changes = [each.at for each in changes]
        self._by_rest = [
            str(e.answer.get("sid")) for e in changes if e.path.endswith("/Streams.json")
        ]
        self.began = monotonic()
        self._went_on = asyncio.Event()

    def begin(self, at: float) -> None:
        """The cassette's time ``at`` is now."""
        self.began = monotonic() - at
        self._went_on.set()

    async def until(self, at: float) -> None:
        """Wait until the cassette's time ``at``. Where the carrier's waits are left out, a stream
        that begins earlier takes all that follows it along."""
        while (left := self.began + at - monotonic()) > 0.0:
            self._went_on.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._went_on.wait()

    async def run(self) -> Cassette:
        """Play all events in order. InvalidRequestError where our side cannot be reached."""
        events: list[tuple[float, Callable[[], Awaitable[bool]]]] = []
        for hook in self._taped.hooks:
            if not is_callback(hook) or self._lines.status_url is not None:
                events.append((hook.at, partial(self._webhook, hook)))
        for stream in self._taped.streams:
            events.append((stream.opened, partial(self._stream, stream)))
        events.sort(key=lambda event: event[0])
        try:
            for at, play in events:
                if not await self._wait(at) or not await play():
                    break
        except asyncio.CancelledError:  # nobody wants to see the end of what plays
            for _, task in self._playing:
                task.cancel()
            raise
        finally:
            await asyncio.gather(*(task for _, task in self._playing), return_exceptions=True)
        for _, task in self._playing:
            self.now.streams.append(task.result())
        self.now.streams.sort(key=lambda stream: stream.opened)
        return self.now

    async def _wait(self, at: float) -> bool:
        """Until the cassette's time ``at``, and until all has happened that had happened then."""
        for taped, task in self._playing:
            if taped.closed is not None and taped.closed <= at:
                await asyncio.wait({task})
        if not self._player.fast:
            await asyncio.sleep(self.began + at - monotonic())
        return await self._until_asked(at)

    async def _until_asked(self, at: float) -> bool:
        if self._asked is None:
            return True
        return await self._asked.until(sum(each <= at for each in self._changes))

    # ------------------------------------------------------------------ streams

    async def _stream(self, taped: Stream) -> bool:
        """Begin to play a stream; False: our side has asked for none."""
        if taped.sid in self._by_rest:
            place = self._by_rest.index(taped.sid)
            found = self._lines.started[place] if place < len(self._lines.started) else None
        else:
            found = self._lines.stream
        if found is None:
            return False
        url, parameters = found
        if self._player.fast and taped.sid not in self._by_rest:
            self.begin(max(taped.opened, monotonic() - self.began))
        player = replace(self._player, fast=False)

        async def stop() -> None:
            if taped.closed is not None:
                await self._until_asked(taped.closed)

        task = asyncio.create_task(player.play(url, taped, self.began, parameters, stop))
        self._playing.append((taped, task))
        return True

    # ------------------------------------------------------------------ webhooks

    async def _webhook(self, hook: Exchange) -> bool:
        """Post a webhook; False: its answer was not to be had, so the call cannot go on."""
        url = self._lines.status_url if is_callback(hook) else self._lines.voice_url
        assert url is not None
        form = self.form(hook.form)
        now = Exchange(monotonic() - self.began, hook.path, hook.form, hook.query)
        self.now.hooks.append(now)
        try:
            answer = await asyncio.to_thread(post, url, form, self._player.token)
        except requests.RequestException as error:
            if len(self.now.hooks) == 1:
                raise InvalidRequestError(
                    f"no answer from {mask_url(url)}: {reason(error)}"
                ) from error
            return False
        now.status, now.body = answer.status_code, answer.text if answer.content else ""
        if not is_callback(hook):
            self._lines.answered(now.body)
            return answer.ok
        return True

    def form(self, form: Form) -> dict[str, str]:
        """The fields of a webhook, for the present account and numbers."""
        numbers = self._lines.numbers
        told = {name: str(value) for name, value in form.items()}
        told = {name: numbers.get(value, value) for name, value in told.items()}
        return {n: self._player.account if v == ACCOUNT else v for n, v in told.items()}


def post(url: str, form: Mapping[str, str], token: str) -> requests.Response:
    """Post a form as Twilio does: signed, and without the fragment."""
    url = url.partition("#")[0]
    headers = {"User-Agent": "TwilioProxy/1.1"}
    if token:
        headers["X-Twilio-Signature"] = sign(token, url, form.items())
    with Session() as session:
        return session.post(
            url, data=dict(form), headers=headers, timeout=ANSWER_WITHIN, allow_redirects=False
        )


def is_base(url: str) -> bool:
    """It is a stack's public URL, and no webhook's."""
    parts = urlsplit(url)
    return parts.path.strip("/") == "" and not parse_qsl(parts.query)
