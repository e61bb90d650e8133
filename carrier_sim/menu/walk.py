"""One call's way through a menu: a machine without I/O, and the clock is an argument.

Events go in (``key``, ``said``, ``sound``, ``tick``), and instructions for the bot
come out. The rules:

- *saying*: the prompt is being said. A key ends it, unless the step says that keys are not noticed
  meanwhile.
- *waiting*: the prompt is over, or a key has ended it. Keys are collected until they are one of
  the step's and could not become longer, or until the time for the next key is up.
- A wrong key leads to ``on_wrong``. Where a step has none, and where no key comes in time, the
  prompt is said again, ``repeats`` times; then the way leads to ``on_timeout``.
- *listening*: the caller leaves a message. It is over when the caller falls silent, or when the
  time is up. A key of the step ends it, too.
- *passed-on*: another bot has the call. Nothing leads back.
- *dead*: the line carries nothing more, and nobody hangs up.
- *over*: the far end hangs up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from .steps import Menu, Visit

#: state -> event -> next state. An event that a state does not list cannot happen there.
TABLE: Final[dict[str, dict[str, str]]] = {
    "saying": {
        # keys, before the prompt is over
        "chosen": "saying",
        "more": "waiting",
        "wrong": "saying",
        "again": "saying",
        # the prompt is over
        "asks": "waiting",
        "listens": "listening",
        "passes-on": "passed-on",
        "leads": "saying",
        "dies": "dead",
        "ends": "over",
    },
    "waiting": {
        "chosen": "saying",
        "more": "waiting",
        "wrong": "saying",
        "again": "saying",
        "leads": "saying",
        "ends": "over",
    },
    "listening": {
        "chosen": "saying",
        "passes-on": "passed-on",
        "leads": "saying",
        "dies": "dead",
        "ends": "over",
    },
    "passed-on": {},
    "dead": {},
    "over": {},
}


class Say(msgspec.Struct, frozen=True):
    """Say this from now on, in place of the present sound; ``said`` when it is over."""

    sound: bytes


class PassOn(msgspec.Struct, frozen=True):
    """This bot has the call from now on."""

    bot: Mapping[str, object]


class HangUp(msgspec.Struct, frozen=True):
    """The call is over."""


Do = Say | PassOn | HangUp
HUSH: Final = Say(b"")


class Walk:
    """The machine of one call."""

    def __init__(self, menu: Menu) -> None:
        self._menu = menu
        self.state = "saying"
        #: The steps that the call came to, in order.
        self.way: list[Visit] = []
        self._here = menu.steps[menu.start]
        #: How often the prompt of this step has begun, and the keys that were typed since it did.
        self._prompts = 0
        self._typed = ""
        #: When the present wait is up.
        self._due: float | None = None
        #: While it listens: when the caller was last heard to speak.
        self._heard_at: float | None = None

    def begin(self, now: float) -> list[Do]:
        """The call was answered."""
        return self._enter(self._menu.start, "", now)

    def said(self, now: float) -> list[Do]:
        """The sound is over."""
        if self.state != "saying":
            return []
        if self._here.listen:
            self._step("listens")
            self._due, self._heard_at = now + self._here.listen, None
            return []
        if self._here.digits:
            self._step("asks")
            self._due = now + self._here.timeout
            return []
        return self._leave(now)

    def key(self, digit: str, now: float) -> list[Do]:
        """The caller pressed a key."""
        here = self._here
        ignored = self.state == "saying" and not here.barge_in
        if not here.digits or ignored or self.state not in ("saying", "waiting", "listening"):
            return []
        typed = self._typed + digit
        target, could_grow = match(here.digits, typed)
        if target and not could_grow:
            return self._choose(target, typed, now)
        if self.state == "listening":
            self._typed = typed if could_grow else ""
            return []
        if not could_grow:
            return self._refuse(now)
        self._step("more")
        self._typed, self._due = typed, now + here.between
        return [HUSH]

    def sound(self, quiet: bool, now: float) -> list[Do]:
        """The caller was silent, or spoke, in the time up to now."""
        if self.state != "listening":
            return []
        if not quiet:
            self._heard_at = now
        elif self._heard_at is not None and now - self._heard_at >= self._here.silence:
            return self._leave(now)
        return []

    def tick(self, now: float) -> list[Do]:
        """Time has passed."""
        if self._due is None or now < self._due:
            return []
        self._due = None
        if self.state == "listening":
            return self._leave(now)
        if not self._typed:
            return self._once_more("no key", now)
        target, _ = match(self._here.digits, self._typed)
        return self._choose(target, self._typed, now) if target else self._refuse(now)

    def _choose(self, target: str, typed: str, now: float) -> list[Do]:
        self._step("chosen")
        return self._enter(target, typed, now)

    def _refuse(self, now: float) -> list[Do]:
        """The keys lead nowhere."""
        if self._here.on_wrong:
            self._step("wrong")
            return self._enter(self._here.on_wrong, "wrong key", now)
        return self._once_more("wrong key", now)

    def _once_more(self, why: str, now: float) -> list[Do]:
        """Say the prompt again, or give up."""
        here = self._here
        if self._prompts <= here.repeats:
            self._step("again")
            return self._enter(self.way[-1].step, "again", now, again=True)
        if here.on_timeout:
            self._step("leads")
            return self._enter(here.on_timeout, why, now)
        self._step("ends")
        return [HangUp()]

    def _leave(self, now: float) -> list[Do]:
        """All has been said and heard here."""
        here = self._here
        if here.bot is not None:
            self._step("passes-on")
            return [PassOn(here.bot)]
        if here.then:
            self._step("leads")
            return self._enter(here.then, "then", now)
        if here.end == "dead":
            self._step("dies")
            return []
        self._step("ends")
        return [HangUp()]

    def _enter(self, name: str, how: str, now: float, *, again: bool = False) -> list[Do]:
        self.way.append(Visit(round(now, 2), name, how))
        self._here = self._menu.steps[name]
        self._prompts = self._prompts + 1 if again else 1
        self._typed, self._due = "", None
        return [Say(self._here.sound)] if self._here.sound else self.said(now)

    def _step(self, event: str) -> None:
        following = TABLE[self.state].get(event)
        assert following is not None, f"{self.state}, {event}: {self.way}"
        self.state = following
        self._due = None


def match(digits: Mapping[str, str], typed: str) -> tuple[str, bool]:
    """The step that these keys lead to ("": none yet), and whether one more key may be wanted."""
    target, fewest, could_grow = "", len(typed) + 1, False
    for pattern, step in digits.items():
        fits = all(
            wanted == key or (wanted == "." and key.isdigit())
            for wanted, key in zip(pattern, typed, strict=False)
        )
        if not fits or len(pattern) < len(typed):
            continue
        if len(pattern) > len(typed):
            could_grow = True
        elif (open_places := pattern.count(".")) < fewest:
            target, fewest = step, open_places
    return target, could_grow
