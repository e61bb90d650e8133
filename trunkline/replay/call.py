"""Plays the carrier's part of a whole call: its webhooks, and its streams at the URLs that TwiML
gives.

Each event of the carrier has its time in the cassette. An event also waits until our side has made
as many REST requests as it had made by then (:class:`Asked`): for example, the carrier ended a
stream only after it had been told to hang up.
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

#: Seconds that Twilio waits for the answer to a webhook.
ANSWER_WITHIN: Final = 15.0
#: Seconds by which a REST request of our side may come later than in the cassette.
PATIENCE: Final = 10.0

Parameters = dict[str, str]


class Asked:
    """Counts the REST requests by which our side has changed something."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = asyncio.Event()

    def add(self) -> None:
        self.count += 1
        self._changed.set()

    async def until(self, count: int, within: float = PATIENCE) -> bool:
        """Wait for so many requests. False: they did not come within so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self.count < count:
                    self._changed.clear()
                    await self._changed.wait()
        return self.count >= count


@dataclass
class Lines:
    """The state of the present call: the URLs at which our side is reached, its numbers, and what
    our side has asked for.

    ``status_url`` None: status callbacks are not played. ``numbers``: masked number of the cassette
    -> the number to say instead.
    """

    voice_url: str
    status_url: str | None = None
    numbers: Mapping[str, str] = field(default_factory=dict)
    #: the present TwiML of the call, and the URL and the parameters of each stream that our side
    #: has started by REST
    document: twiml.Document | None = None
    started: list[tuple[str, Parameters]] = field(default_factory=list)

    def answered(self, body: str) -> None:
        """Take TwiML that our side has sent for the call."""
        self.document = twiml.parse(body)
        for verb in self.document.verbs or ():
            if isinstance(verb, twiml.Redirect):
                self.voice_url = urljoin(self.voice_url, verb.url)

    @property
    def stream(self) -> tuple[str, Parameters] | None:
        """URL and parameters of the stream that the present TwiML asks for."""
        for verb in (self.document and self.document.verbs) or ():
            if isinstance(verb, twiml.Connect | twiml.Start):
                return verb.stream.url, verb.stream.parameters
        return None


class CallPlayer:
    """Plays the cassette ``taped``. ``now`` is the cassette of this run, which is complete once
    :meth:`run` has returned. ``asked`` None: our side's REST requests go elsewhere, so no event
    waits for them."""

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
        """Let the cassette's time ``at`` be now."""
        self.began = monotonic() - at
        self._went_on.set()

    async def until(self, at: float) -> None:
        """Wait until the cassette's time ``at``. Where the carrier's waits are left out, a stream
        begins before its time, and then everything behind it is that much earlier, too."""
        while (left := self.began + at - monotonic()) > 0.0:
            self._went_on.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._went_on.wait()

    async def run(self) -> Cassette:
        """Play all events in order. Returns the cassette of this run. InvalidRequestError where our
        side cannot be reached."""
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
        except asyncio.CancelledError:  # do not wait for the ends of streams
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
        """Wait for the cassette's time ``at``, for the ends of streams that had ended by then, and
        for our side's REST requests. False: these did not come."""
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
        """Begin to play a stream. False: our side has asked for none, so the call cannot go on."""
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
        """Post a webhook. False: it got no answer, or an error, so the call cannot go on."""
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
        """The fields of a webhook, with the present account and numbers."""
        numbers = self._lines.numbers
        told = {name: str(value) for name, value in form.items()}
        told = {name: numbers.get(value, value) for name, value in told.items()}
        return {n: self._player.account if v == ACCOUNT else v for n, v in told.items()}


def post(url: str, form: Mapping[str, str], token: str) -> requests.Response:
    """Post a form as Twilio does: signed, and to the URL without its fragment."""
    url = url.partition("#")[0]
    headers = {"User-Agent": "TwilioProxy/1.1"}
    if token:
        headers["X-Twilio-Signature"] = sign(token, url, form.items())
    with Session() as session:
        return session.post(
            url, data=dict(form), headers=headers, timeout=ANSWER_WITHIN, allow_redirects=False
        )


def is_base(url: str) -> bool:
    """Whether a URL has neither path nor query, and so is a stack's public URL, not a webhook."""
    parts = urlsplit(url)
    return parts.path.strip("/") == "" and not parse_qsl(parts.query)
