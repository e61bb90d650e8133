"""Does another stack live? Its public URL answers ``/healthz`` with its id while it does; one on
this machine holds its lock, whatever has become of its URL.

A gateway answers ``{"ok": true, "stack": "3fa9c2d01b7e"}``, and ``ok`` is false while it does not
hear its controller. One of a fleet adds ``"stacks": ["3fa9c2d01b7e", …]``: those whose controllers
it hears. Anything else (a tunnel's own page, a 404, nobody) means that no stack of ours is there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import requests

from trunkline.bus.http import Session
from trunkline.bus.twilio_urls import HEALTH_PATH

from ..journal.state_dir import lives_here
from .threads import DaemonPool

#: Seconds. A tunnel whose process is gone often takes a request and never answers it.
_TIMEOUT: Final = 3.0


class Prober:
    """Asks in threads of its own. ``holder``: how we name ourselves in the locks that we hold."""

    def __init__(self, state_dir: Path, holder: str) -> None:
        self._pool = DaemonPool("trunkline-probe", 2)
        self._state_dir = state_dir
        self._holder = holder

    async def __call__(self, base: str, stack: str) -> bool:
        """True where a gateway at ``base`` says that ``stack``'s controller is well, or the stack
        lives on this machine."""
        if await self._pool.run(lives_here, self._state_dir, stack, self._holder):
            return True
        found = await self._pool.run(_ask, base)
        if "stacks" in found:
            return _of_fleet(found, stack)
        return found.get("stack") == stack and found.get("ok") is True

    async def present(self, base: str, stack: str) -> bool:
        """True where a gateway of ``stack`` is at ``base``, with or without its controller. A
        gateway of a fleet is there for all its stacks, so what counts is that it hears this one's
        controller."""
        found = await self._pool.run(_ask, base)
        return _of_fleet(found, stack) if "stacks" in found else found.get("stack") == stack

    def close(self) -> None:
        """A question under way is not waited for."""
        self._pool.close()


def _of_fleet(found: dict[str, Any], stack: str) -> bool:
    """A stranger may answer there, so ``stacks`` may be anything."""
    stacks = found["stacks"]
    return isinstance(stacks, list) and stack in stacks


def _ask(base: str) -> dict[str, Any]:
    """The answer of ``/healthz`` there; {} where nobody of ours answers."""
    try:
        with Session() as session:
            answer = session.get(base + HEALTH_PATH, timeout=_TIMEOUT, allow_redirects=False)
            found = answer.json()
    except (requests.RequestException, ValueError):
        return {}  # nobody, or somebody else, answers there
    return found if isinstance(found, dict) else {}
