"""Is it Twilio's? Webhooks and WebSocket upgrades are judged here by their signature.

A refusal is counted by its reason, which the gateway's beats tell, and logged in bounds. That of a
voice webhook is told to the controller too, so that whoever waits on the number learns why nobody
came.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from urllib.parse import unquote

from trunkline.bus.clock import Clock, monotonic
from trunkline.bus.redact import is_e164, redact_number
from trunkline.bus.twilio_urls import STREAM_PATH, stream_base

from . import signature, twiml
from .websocket import Refusal, Upgrade

log = logging.getLogger("trunkline.gateway")

#: Refused voice webhooks are told together, after so many seconds, and of so many numbers at most.
REFUSED_TOLD_AFTER: Final = 0.05
MAX_REFUSED_NUMBERS: Final = 100
_UPGRADED: Final = frozenset((STREAM_PATH,))


@dataclass
class Authenticator:
    """Judges webhooks and upgrades by their signature, and tells of those that it refuses.

    ``check`` None: signatures are not checked (tests only). ``public_url``: the base that Twilio
    was given, None while unknown (then everything that needs it is refused). ``account``: the SID
    that webhooks name, None while unknown (then any is taken).
    """

    check: signature.SignatureCheck | None
    public_url: Callable[[], str | None]
    account: Callable[[], str | None] = lambda: None
    clock: Clock = monotonic
    #: told of voice webhooks that were refused for their signature, by the number that they named
    refused: Callable[[dict[str, int]], object] = lambda numbers: None
    #: requests and upgrades that were refused, by the reason
    objections: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._warnings = SparseWarnings(self.clock)
        self._refused: Counter[str] = Counter()

    def refused_voice(self, number: str | None) -> None:
        """Count a refused voice webhook to ``number`` (what a stranger says); it is told soon."""
        if number is None or not is_e164(number):
            return
        if not self._refused:
            asyncio.get_running_loop().call_later(REFUSED_TOLD_AFTER, self._tell_refused)
        if number in self._refused or len(self._refused) < MAX_REFUSED_NUMBERS:
            self._refused[number] += 1

    def _tell_refused(self) -> None:
        numbers, self._refused = self._refused, Counter()
        self.refused(dict(numbers))

    def forbidden(
        self, what: str, why: signature.Reason, checked: str | None, number: str | None = None
    ) -> None:
        """Count and log a request that is refused; ``checked``: the URL, as a log may show it."""
        self.objections[why] += 1
        caller = f" from {redact_number(number)}" if number else ""
        text = f"refused {what}{caller}: {signature.REASONS[why]}"
        if checked is not None:
            text += f" (checked: {checked}"
            if why == "wrong signature" and self.check is not None:
                text += f", {self.check.tried}"
            text += ")"
        self._warnings.say(text)

    def refusal(self, upgrade: Upgrade) -> Refusal | None:
        """Why a WebSocket upgrade is refused; None for one that Twilio has signed for our stream's
        URL."""
        public_url = self.public_url()
        if twiml.local_path(unquote(upgrade.path), public_url, _UPGRADED) != STREAM_PATH:
            return Refusal(404, "not found")
        if self.check is None:
            return None
        why: signature.Reason | None = "no public URL"
        checked = None
        if public_url is not None:
            base = stream_base(public_url)
            checked = signature.shown(base, STREAM_PATH, upgrade.query)
            matches = partial(self.check.upgrade, public_url, STREAM_PATH, upgrade.query)
            why = signature.objection(
                upgrade.header(signature.HEADER), upgrade.header(signature.SETTINGS_HEADER), matches
            )
        if why is None:
            return None
        self.forbidden("a WebSocket", why, checked)
        return Refusal(403, "forbidden")


class SparseWarnings:
    """Warnings that a stranger can cause: at most ten a second, the rest counted."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = clock()
        self._said = 0
        self._unsaid = 0

    def say(self, text: str) -> None:
        now = self._clock()
        if now - self._second >= 1.0:
            if self._unsaid:
                log.warning("%d more warnings like these were left out", self._unsaid)
            self._second, self._said, self._unsaid = now, 0, 0
        if self._said >= 10:
            self._unsaid += 1
            return
        self._said += 1
        log.warning("%s", text)
