"""The calls of a load test: one, two, five and more at a time.

In each step all calls are dialled together. Once each of them is up or has failed, those that are
up say the question at the same time, and listen to the answer to its end. So an agent's answers are
measured while it has all of the step's calls. The ramp ends early where no call of a step comes up
or a cap of the stack is reached, because further calls would cost money and tell nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from typing import TYPE_CHECKING, Final

from trunkline.bus.errors import (
    CallFailedError,
    CarrierError,
    LimitReachedError,
    TrunklineError,
    WrongModeError,
)

from ..reports.recordings import Heard
from .figures import HUNG_UP, SILENT, Step, steps

if TYPE_CHECKING:
    from trunkline.adapter.call import Call
    from trunkline.adapter.line import Line

#: How many calls keep their sound for the page: those with the slowest answers.
WORST_KEPT: Final = 5
#: Seconds that a call which has failed may take to end.
ENDED_WITHIN: Final = 3.0


@dataclass(frozen=True)
class Plan:
    """The options of the command. Times are in seconds. ``question``: PCM16 at 24 kHz.
    ``answer_within``: for an answer to the question. ``answer_call_within``: for a call to come up.
    ``longest``: a call's longest duration."""

    to: str
    number: str
    most: int
    question: bytes = field(repr=False)
    questions: int = 1
    answer_within: float = 10.0
    answer_call_within: float = 120.0
    callee_speaks_first: bool = False
    longest: int = 300

    @property
    def calls(self) -> int:
        """All calls of the ramp."""
        return sum(steps(self.most))


class Ramp:
    """The calls, on an open line. ``begun`` and ``over`` are called with each step."""

    def __init__(
        self,
        line: Line,
        plan: Plan,
        begun: Callable[[Step], None],
        over: Callable[[Step], None],
    ) -> None:
        self.steps: list[Step] = []
        #: why the ramp ended early
        self.stopped: str | None = None
        self._line = line
        self._plan = plan
        self._begun = begun
        self._over = over
        #: calls of the present step that came up
        self._calls: list[Call] = []
        self._worst: list[tuple[float, str, Heard]] = []

    @property
    def worst(self) -> list[Heard]:
        """Calls with the slowest answers, the slowest first."""
        return [heard for _, _, heard in sorted(self._worst, key=lambda each: -each[0])]

    async def run(self) -> None:
        """Place all calls of the ramp. When cancelled, it hangs up those that are up, and counts
        them like the others."""
        for concurrency in steps(self._plan.most):
            step = Step(concurrency)
            self.steps.append(step)
            self._begun(step)
            try:
                await self._run(step)
            finally:
                self._listen(step)
                self._over(step)
            if self.stopped is None and not step.reports:
                self.stopped = f"no call came up with {concurrency} at a time"
            if self.stopped is not None:
                return

    async def _run(self, step: Step) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(step.concurrency):
                group.create_task(self._dial(step))
        async with asyncio.TaskGroup() as group:
            for call in self._calls:
                group.create_task(self._talk(step, call))

    async def _dial(self, step: Step) -> None:
        plan = self._plan
        step.dialled += 1
        try:
            call = await self._line.place_call(
                plan.to,
                timeout=plan.answer_call_within,
                attach_stream="a-leg",
                max_call_duration_seconds=plan.longest,
                callee_speaks_first=plan.callee_speaks_first,
            )
        except CallFailedError as error:
            step.fail(error.status, str(error))
        except TimeoutError as error:
            step.fail("timeout", str(error))
        except LimitReachedError as error:
            step.fail("over a cap", str(error))
            self.stopped = str(error)
        except CarrierError as error:
            step.fail("refused by the carrier", str(error))
        except TrunklineError as error:
            step.fail(type(error).__name__, str(error))
        else:
            step.up += 1
            self._calls.append(call)

    async def _talk(self, step: Step, call: Call) -> None:
        try:
            for _ in range(self._plan.questions):
                await self._ask(call)
            await call.hang_up()
        except (TimeoutError, TrunklineError) as error:
            kind = type(error).__name__
            if isinstance(error, TimeoutError):
                kind = SILENT
            elif isinstance(error, WrongModeError):
                kind = HUNG_UP
            step.fail(kind, f"{call.sid}: {error}")
            call.abandon()
            with contextlib.suppress(TimeoutError):
                await call.wait_ended(ENDED_WITHIN)
        step.up -= 1

    async def _ask(self, call: Call) -> None:
        """Say the question, and listen to the answer to its end. TimeoutError where the far end
        does not speak."""
        within = self._plan.answer_within
        await call.say(self._plan.question)
        call.sound.take_all()  # what the far end said before the end of the question is no answer
        turn = await call.next_turn(within)
        if turn.latency is None:  # the far end began this turn before that; its answer may follow
            with contextlib.suppress(TimeoutError):
                await call.next_turn(within)

    def _listen(self, step: Step) -> None:
        """Let the ear listen to the step's calls. They are over by now, unless the ramp was
        cancelled."""
        calls, self._calls = self._calls, []
        step.up = 0
        for call in calls:
            call.abandon()  # does nothing to a call that is over
            ours, theirs = call.both_sides()
            report = call.report()
            step.note(call.sid, call.age, report)
            title = f"{call.sid}, one of {step.concurrency} at a time"
            self._keep(Heard(title, ours, theirs, report))

    def _keep(self, heard: Heard) -> None:
        """Keep the sound of a call, if its answers are among the slowest."""
        slowest = (heard.report.latency.max or 0.0, heard.title, heard)
        if len(self._worst) < WORST_KEPT:
            heappush(self._worst, slowest)
        else:
            heappushpop(self._worst, slowest)
