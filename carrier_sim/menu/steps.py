"""A menu as data: steps by name, each with its sound and the ways that lead on.

No I/O. A menu travels between processes as JSON, so its sound is in it, and no path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

#: The mistake in a step at which a call would not stay for a moment.
NOTHING: Final = "nothing happens at this step: it needs say, digits, listen or bot"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One place in the menu. Times are in seconds.

    The far end says ``sound``. After that it does the first of these that is given: it listens for
    a message (``listen``); it waits for keys (``digits``); another bot takes the call over
    (``bot``); it goes to the step ``then``; it ends, as ``end`` says. Once a message is over, it
    does the first of the last three that is given.
    """

    #: The prompt as μ-law, and the texts that it was made from.
    sound: bytes = b""
    said: tuple[str, ...] = ()
    #: Keys -> the step that they lead to. ``.`` stands for any of 0 to 9, as in ``....#``.
    digits: Mapping[str, str] = {}
    #: How long it waits for the first key after the prompt, and for each further one.
    timeout: float = 5.0
    between: float = 2.0
    #: How often the prompt is said again, after no key or a wrong one.
    repeats: int = 1
    #: Where it goes when nobody has chosen after the last repeat. "": it hangs up.
    on_timeout: str = ""
    #: Where a wrong key leads. "": the prompt is said again, as after no key.
    on_wrong: str = ""
    #: A key ends the prompt, and counts. False: keys are not noticed before its end.
    barge_in: bool = True
    #: It listens so long at most, or until the caller has spoken and then been silent for
    #: ``silence``, or has pressed one of ``digits``.
    listen: float = 0.0
    silence: float = 3.0
    #: The bot that takes the call over, as an object (bots.py).
    bot: Mapping[str, object] | None = None
    then: str = ""
    end: Literal["hang-up", "dead"] = "hang-up"

    @property
    def is_empty(self) -> bool:
        """Nothing is said here, and nobody waited for."""
        return not (self.sound or self.digits or self.listen or self.bot is not None)

    def leads_to(self) -> list[tuple[str, str]]:
        """(how, step) of each way out."""
        ways = [*self.digits.items(), ("wrong key", self.on_wrong), ("no key", self.on_timeout)]
        return [(how, step) for how, step in [*ways, ("then", self.then)] if step]


class Menu(msgspec.Struct, frozen=True, kw_only=True):
    """All steps, and where a call begins."""

    name: str
    start: str
    steps: Mapping[str, Step]

    def __post_init__(self) -> None:
        """ValueError where the machine would not know where to go, or would go round for ever."""
        for name, step in self.steps.items():
            for how, target in step.leads_to():
                if target not in self.steps:
                    raise ValueError(f"{name}: {how} leads to {target!r}, which is no step")
            if step.is_empty and (step.then or step.end != "dead"):
                raise ValueError(f"{name}: {NOTHING}")
        if self.start not in self.steps:
            raise ValueError(f"start: {self.start!r} is no step")


class Visit(msgspec.Struct, frozen=True):
    """The call came to a step, so many seconds after the answer, and how: a row of keys, ``again``
    (the prompt was repeated), ``wrong key``, ``no key``, ``then``, or ``""`` at the start."""

    at: float
    step: str
    how: str
