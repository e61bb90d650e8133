"""Is it Twilio's? Upgrades to a WebSocket are judged here by their signature. :mod:`.app` judges
webhooks by theirs, with the same check, and has them refused here.

A refusal is counted and logged (:mod:`.refusals`). The controller hears of refused voice webhooks
too, so that whoever waits on the number learns why nobody came.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import unquote

from trunkline.bus.redact import is_e164, redact_number
from trunkline.bus.refusals import Kind
from trunkline.bus.twilio_urls import STREAM_PATH, stream_base

from . import signature, twiml
from .refusals import Refusals
from .signature import without_user_info
from .websocket import Refusal, Upgrade

#: The controller hears of refused voice webhooks together, after this time (seconds), and of this
#: many numbers at most.
REFUSED_TOLD_AFTER: Final = 0.05
MAX_REFUSED_NUMBERS: Final = 100
_UPGRADED: Final = frozenset((STREAM_PATH,))


@dataclass
class Authenticator:
    """Judges upgrades by their signature, and reports upgrades and webhooks that are refused.

    ``check`` None: signatures are not checked (tests only). ``public_url``: the base that Twilio
    was given. While it is not known (None), every webhook and every upgrade with a signature to
    check is refused. ``account``: the SID that webhooks have to name. While it is not known (None),
    they may name any.
    """

    check: signature.SignatureCheck | None
    public_url: Callable[[], str | None]
    #: where refusals are counted
    refusals: Refusals
    account: Callable[[], str | None] = lambda: None
    #: called with a kind of refusals, and how many voice webhooks of each number (To) it was
    refused: Callable[[Kind, dict[str, int]], object] = lambda kind, numbers: None

    def __post_init__(self) -> None:
        self._refused: Counter[tuple[Kind, str]] = Counter()

    def refused_voice(self, kind: Kind, number: str | None) -> None:
        """Count a refused voice webhook to ``number`` (which a stranger may have made up), and soon
        report it."""
        if number is None or not is_e164(number):
            return
        if not self._refused:
            asyncio.get_running_loop().call_later(REFUSED_TOLD_AFTER, self._tell_refused)
        if (kind, number) in self._refused or len(self._refused) < MAX_REFUSED_NUMBERS:
            self._refused[kind, number] += 1

    def _tell_refused(self) -> None:
        by_kind: dict[Kind, dict[str, int]] = {}
        for (kind, number), count in self._refused.items():
            by_kind.setdefault(kind, {})[number] = count
        self._refused.clear()
        for kind, numbers in by_kind.items():
            self.refused(kind, numbers)

    def forbidden(
        self,
        what: str,
        why: signature.Reason,
        checked: tuple[str, str, str] | None,
        number: str | None = None,
    ) -> str:
        """Count and log a request that is refused; ``checked``: the base, path and query of the URL
        whose signature was checked. Returns the body of the answer. It names that URL, because the
        operator of a stack finds the answer in Twilio's debugger. A stranger can read it too, so it
        has no user name."""
        caller = f" from {redact_number(number)}" if number else ""
        details, body = "", "forbidden"
        if checked is not None:
            details = f"checked: {signature.shown(*checked)}"
            if why == "wrong signature" and self.check is not None:
                details += f", {self.check.tried}"
            base, path, query = checked
            body += f": {why} (checked: {signature.shown(without_user_info(base), path, query)})"
        self.refusals.add(why, f"{what}{caller}", details)
        return body

    def refusal(self, upgrade: Upgrade) -> Refusal | None:
        """Why a WebSocket upgrade is refused. None: Twilio has signed it for our stream's URL, or
        signatures are not checked."""
        public_url = self.public_url()
        if twiml.local_path(unquote(upgrade.path), public_url, _UPGRADED) != STREAM_PATH:
            self.refusals.add("not found", "a WebSocket")
            return Refusal(404, "not found")
        if self.check is None:
            return None
        why: signature.Reason | None = "no public URL"
        checked = None
        if public_url is not None:
            checked = stream_base(public_url), STREAM_PATH, upgrade.query
            matches = partial(self.check.upgrade, public_url, STREAM_PATH, upgrade.query)
            why = signature.objection(
                upgrade.header(signature.HEADER), upgrade.header(signature.SETTINGS_HEADER), matches
            )
        if why is None:
            return None
        return Refusal(403, self.forbidden("a WebSocket", why, checked))
