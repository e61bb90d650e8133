"""A test's part of the run's shared stack: numbers that no other test uses, and who answers."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from later import imported

from trunkline.carrier_sim.client import SimClient
from trunkline.pytest_plugin import PhoneStack

if TYPE_CHECKING:
    from trunkline import TwilioAgentAdapter

#: All workers of pytest-xdist share the stack.
_WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_numbers = count(1)


class Scene:
    def __init__(self, stack: PhoneStack, sim: SimClient) -> None:
        imported()  # before an adapter is made, which imports it too
        self.stack = stack
        self.sim = sim

    def number(self) -> str:
        """A number of the account, with a voice_url of its own."""
        number = f"+14155{57 + _WORKER}{next(_numbers):04d}"
        self.sim.add_number(number, voice_url=f"https://agent.example/{number[1:]}")
        return number

    def callee(self, bot: str) -> str:
        """A number outside of the account, at which ``bot`` answers."""
        number = f"+14155{67 + _WORKER}{next(_numbers):04d}"
        self.sim.add_callee(number, bot)
        return number

    def adapter(self, *callees: str, **settings: Any) -> TwilioAgentAdapter:
        """An adapter on a number of its own, which may dial ``callees``."""
        return self.stack.adapter(self.number(), allowed_callees=list(callees), **settings)

    def call(self, to: str) -> dict[str, Any]:
        """The carrier's one call to this number."""
        (call,) = [call for call in self.sim.calls() if call["to"] == to]
        return call


def dialling(agent: TwilioAgentAdapter, to: str, **how: Any) -> Callable[[Any], Awaitable[None]]:
    """A step of a script: an a-leg call to this number."""

    async def step(state: Any) -> None:
        await agent.place_call(to, attach_stream="a-leg", **how)

    return step
