"""A live run: listen at the public URL, arm the number, place calls, judge, put it all back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from trunkline.bus.clock import monotonic
from trunkline.bus.errors import SettingsError, TrunklineError
from trunkline.bus.settings import Settings
from trunkline.controller.carrier import TwilioCarrier
from trunkline.http_get import get
from trunkline.tunnel import Tunnel, TunnelError

from . import probes
from .listener import Hook, Listener
from .number import Override, operations, override, put_back, try_writes
from .trial import LONGEST, Line, Trial, UnreachedError
from .verdicts import Verdicts

#: Where a first call does not reach us, another is tried, so many seconds after the last write.
TRY_AGAIN_AFTER: Final = (8.0, 20.0)
#: The number is put back within this, or later, by the next start or `trunkline restore`.
PUT_BACK_WITHIN: Final = 60.0

COST: Final = (
    f"5 calls to the number from itself (7 at most, each ended after {LONGEST} s): 3 are answered, "
    "for under a minute each. At Twilio's US list prices (about $0.014 a minute out, $0.0085 in, "
    "$0.004 for Media Streams; twilio.com/voice/pricing) that is about 10 cents; other countries' "
    "prices differ"
)


@dataclass(frozen=True)
class Plan:
    """What the user asked for."""

    number: str
    caller: str
    tunnel: str | None = None


@dataclass
class Outcome:
    """What a run found; ``error``: why it ended early; ``back``: the number is as it was."""

    verdicts: Verdicts
    error: TrunklineError | None = None
    back: bool = True


async def run(settings: Settings, plan: Plan, say: Callable[[str], None]) -> Outcome:
    """The whole run. Raises TrunklineError for what stands in its way before anything is spent."""
    carrier = TwilioCarrier.of(settings)
    try:
        async with operations(settings, carrier) as ops:
            listener = Listener(settings.auth_tokens, ops.stack)
            async with _reached(settings, plan, listener, say):
                outcome = Outcome(Verdicts())
                line = Line(carrier, listener, outcome.verdicts, plan.number, plan.caller)
                say(f"{plan.number} calls us for a moment")
                made = await override(ops, listener.public_url, plan.number)
                try:
                    await _calls(line, made, say)
                except TrunklineError as error:
                    outcome.error = error
                finally:
                    outcome.back = await _leave(line, made)
                return outcome
    finally:
        carrier.close()


@contextlib.asynccontextmanager
async def _reached(
    settings: Settings, plan: Plan, listener: Listener, say: Callable[[str], None]
) -> AsyncIterator[None]:
    """Listen, and be reached at the public URL."""
    async with contextlib.AsyncExitStack() as leave:
        port = await leave.enter_async_context(
            listener.serving(settings.http_host, settings.http_port)
        )
        if plan.tunnel is not None:
            tunnel = await Tunnel.open(plan.tunnel, settings.http_host, port)
            leave.push_async_callback(tunnel.close)
            listener.public_url = tunnel.url
            say(f"waiting until {tunnel.url} is reached")
            if not await tunnel.wait_reachable():
                raise TunnelError(f"{tunnel.url} is not reached from outside")
        else:
            listener.public_url = settings.require("public_url")
            answer = await get(f"{listener.public_url}/healthz")
            if answer.status != 200 or listener.stack.encode() not in answer.body:
                raise SettingsError(
                    f"TRUNKLINE_PUBLIC_URL={listener.public_url} does not lead to "
                    f"{settings.http_host}:{port} (HTTP {answer.status or 'not answered'}): start "
                    "its tunnel or proxy, or let --tunnel open one"
                )
        yield


async def _calls(line: Line, made: Override, say: Callable[[str], None]) -> None:
    await try_writes(made, line.verdicts)
    say("placing calls")
    first, hook = await _first_call(line, made, say)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(probes.conversation(first, hook))
            for name, probe, limit in probes.OTHERS:
                trial = Trial(line, name)
                try:
                    hook = await trial.place(probes.QUIET, time_limit=limit or LONGEST)
                except UnreachedError as error:
                    say(str(error))
                else:
                    group.create_task(probe(trial, hook))
    except* TrunklineError as errors:
        raise errors.exceptions[0] from None
    finally:
        probes.judge_requests(first)


async def _first_call(line: Line, made: Override, say: Callable[[str], None]) -> tuple[Trial, Hook]:
    """The first call that reaches us; that not the very first did is judged."""
    name = "voice-url-counts-at-once"
    for wait in TRY_AGAIN_AFTER:
        trial = Trial(line, "talk")
        try:
            hook = await trial.place(probes.CONVERSATION)
        except UnreachedError:
            say("the call did not reach us; another one is tried")
            await asyncio.sleep(max(0.0, made.written_at + wait - monotonic()))
        else:
            if trial.sid == line.placed[0]:
                line.verdicts.holds(name, "the first call after the write asked it")
            else:
                seen = "the first call after the write did not ask it, a later one did"
                line.verdicts.contradicted(name, seen)
            return trial, hook
    trial = Trial(line, "talk")
    hook = await trial.place(probes.CONVERSATION)
    line.verdicts.contradicted(name, f"it took more than {TRY_AGAIN_AFTER[0]:g} s")
    return trial, hook


async def _leave(line: Line, made: Override) -> bool:
    """Hang up, and put the number back; whether it is back."""
    await line.hang_up_all()
    try:
        async with asyncio.timeout(PUT_BACK_WITHIN):
            await put_back(made)
    except TimeoutError:
        return False
    return True
