"""The far end's digits on their way to the user's ``on_dtmf``.

The callback is called for one digit after another. A coroutine is awaited, and may take its time,
so the last digits of a call may be handed on after the call's end.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any, Final

from ..call import Call

log = logging.getLogger("scenario.voice.twilio")

#: Once a call has ended, ``on_dtmf`` has this long (seconds) for the digits that are left.
HANDED_ON_WITHIN: Final = 3.0


class HandedDigits:
    """Hands on the digits of one call after another. ``on_dtmf`` gives the user's callback, which
    the user may exchange. ``ended`` is called with each call that has ended, behind its last
    digit."""

    def __init__(
        self, on_dtmf: Callable[[], Callable[[str], Any] | None], ended: Callable[[Call], None]
    ) -> None:
        #: digits that have come since this was set to 0
        self.received = 0
        self._on_dtmf = on_dtmf
        self._ended = ended
        self._call: Call | None = None
        self._task: asyncio.Task[None] | None = None

    def follow(self, call: Call) -> None:
        """Hand on the digits of this call from now on."""
        self._call = call
        self._task = asyncio.get_running_loop().create_task(self._hand_on(call))

    async def finish(self) -> None:
        """If the call has ended, wait until its digits are handed on, for
        :data:`HANDED_ON_WITHIN` at most."""
        call, task = self._call, self._reachable()
        if task is None or call is None or call.ended_reason is None:
            return
        await asyncio.wait({task}, timeout=HANDED_ON_WITHIN)
        if not task.done():
            log.warning(
                "TwilioAgentAdapter: on_dtmf took longer than %g s after the end of call %s; it is "
                "cancelled, and gets no more of the call's digits",
                HANDED_ON_WITHIN,
                call.sid,
            )
            task.cancel()
            self._ended(call)

    def drop(self) -> None:
        """Hand on no more digits of the call."""
        task = self._reachable()
        if task is not None:
            task.cancel()
        self._call = self._task = None

    def _reachable(self) -> asyncio.Task[None] | None:
        """The task, if the running one may wait for it and cancel it. ``scenario.run`` has a loop
        of its own, and a task of another loop ends with the call's digits. ``on_dtmf`` itself may
        disconnect the adapter, and goes on then."""
        task = self._task
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            return None
        return None if task is asyncio.current_task() else task

    async def _hand_on(self, call: Call) -> None:
        async for digit in call.dtmf:
            self.received += 1
            on_dtmf = self._on_dtmf()
            if on_dtmf is None:
                continue
            try:
                answer = on_dtmf(digit)
                if inspect.isawaitable(answer):
                    await answer
            except Exception:  # a user's callback may raise anything
                log.warning(
                    "TwilioAgentAdapter: on_dtmf callback raised; continuing", exc_info=True
                )
        self._ended(call)
