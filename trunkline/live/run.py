"""A live run: listen at the public URL, arm the number, place calls, judge, put it all back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from trunkline.bus import hosts
from trunkline.bus.clock import monotonic
from trunkline.bus.errors import SettingsError, TrunklineError
from trunkline.bus.process import StoppedError, unless
from trunkline.bus.redact import mask_url
from trunkline.bus.settings import Settings
from trunkline.bus.twilio_urls import HEALTH_PATH
from trunkline.controller.twilio.carrier import TwilioCarrier
from trunkline.controller.twilio.operations import Operations

from ..stack.http_get import get
from ..stack.tunnel import Tunnel, TunnelError
from . import probes
from .listener import Hook, Listener
from .number import Override, operations, override, put_back, try_writes
from .trial import LONGEST, LiveRun, Trial, UnreachedError
from .verdicts import Verdicts

#: Where a first call does not reach us, another is tried, so many seconds after the last write.
TRY_AGAIN_AFTER: Final = (8.0, 20.0)
#: The number is put back within this, or later, by the next start or `trunkline restore`.
PUT_BACK_WITHIN: Final = 60.0
#: The same where the run is interrupted: a command ends within 4 s of its signal.
PUT_BACK_SOON: Final = 3.5
_LEFT: Final = "{} may not be put back yet; run `trunkline restore`"

COST: Final = (
    f"5 calls to the number from itself (7 at most, each ended after {LONGEST} s): 3 are answered, "
    "for under a minute each. At Twilio's US list prices (about $0.014 a minute out, $0.0085 in, "
    "$0.004 for Media Streams; twilio.com/voice/pricing) that is about 10 cents; other countries' "
    "prices differ"
)


class LeftBehindError(TrunklineError, RuntimeError):
    """A run was interrupted, and its number is not put back, as far as is known."""


@dataclass(frozen=True)
class Plan:
    """The options of the run."""

    number: str
    caller: str
    tunnel: str | None = None


@dataclass
class Outcome:
    """The findings of a run. ``error``: why it ended early. ``back``: the number is as it was."""

    verdicts: Verdicts
    error: TrunklineError | None = None
    back: bool = True


async def run(settings: Settings, plan: Plan, say: Callable[[str], None]) -> Outcome:
    """The whole run. Raises TrunklineError before anything is spent, where something is in its way.

    Cancelled: the calls are hung up and the number is put back first, within
    :data:`PUT_BACK_SOON`; LeftBehindError where that does not succeed.
    """
    carrier = TwilioCarrier.of(settings)
    try:
        async with operations(settings, carrier) as ops:
            listener = Listener(settings.auth_tokens, ops.stack)
            async with _reached(settings, plan, listener, say):
                live = LiveRun(carrier, listener, Verdicts(), plan.number, plan.caller)
                stop = asyncio.Event()
                trying = asyncio.create_task(_try(ops, live, say, stop))
                try:
                    return await asyncio.shield(trying)
                except asyncio.CancelledError:
                    stop.set()
                    ops.hurry()
                    await asyncio.wait({trying}, timeout=PUT_BACK_SOON)
                    trying.cancel()
                    (outcome,) = await asyncio.gather(trying, return_exceptions=True)
                    if not (isinstance(outcome, Outcome) and outcome.back):
                        raise LeftBehindError(_LEFT.format(plan.number)) from None
                    raise
    finally:
        carrier.close()


async def _try(
    ops: Operations, live: LiveRun, say: Callable[[str], None], stop: asyncio.Event
) -> Outcome:
    """Arm the number, place the calls until all is judged or ``stop`` is set, put it all back."""
    say(f"taking over the voice_url of {live.number}")
    made = await override(ops, live.base, live.number)
    outcome = Outcome(live.verdicts)
    try:
        await unless(stop, _calls(live, made, say))
    except StoppedError:
        pass  # what was found by then is told
    except TrunklineError as error:
        outcome.error = error
    finally:
        outcome.back = await _leave(live, made)
    return outcome


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
            answer = await get(listener.public_url + HEALTH_PATH)
            if answer.status != 200 or listener.stack.encode() not in answer.body:
                # Where there is no status, the body says why, and through which proxy it went.
                got = f"HTTP {answer.status}" if answer.status else answer.body.decode()
                raise SettingsError(
                    f"TRUNKLINE_PUBLIC_URL={mask_url(listener.public_url)} does not lead to "
                    f"{hosts.join(settings.http_host, port)} ({got}): start its tunnel or proxy, "
                    "or let --tunnel open one"
                )
        yield


async def _calls(live: LiveRun, made: Override, say: Callable[[str], None]) -> None:
    await try_writes(made, live.verdicts)
    say("placing calls")
    first, hook = await _first_call(live, made, say)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(probes.conversation(first, hook))
            for name, probe, limit in probes.OTHERS:
                trial = Trial(live, name)
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


async def _first_call(
    live: LiveRun, made: Override, say: Callable[[str], None]
) -> tuple[Trial, Hook]:
    """The first call that reaches us. Where it is not the very first one, that is judged."""
    name = "voice-url-counts-at-once"
    for wait in TRY_AGAIN_AFTER:
        trial = Trial(live, "talk")
        try:
            hook = await trial.place(probes.CONVERSATION)
        except UnreachedError:
            say("the call did not reach us; another one is tried")
            await asyncio.sleep(max(0.0, made.written_at + wait - monotonic()))
        else:
            if trial.sid == live.placed[0]:
                live.verdicts.holds(name, "the first call after the write asked it")
            else:
                seen = "the first call after the write did not ask it, a later one did"
                live.verdicts.contradicted(name, seen)
            return trial, hook
    trial = Trial(live, "talk")
    hook = await trial.place(probes.CONVERSATION)
    live.verdicts.contradicted(name, f"it took more than {TRY_AGAIN_AFTER[0]:g} s")
    return trial, hook


async def _leave(live: LiveRun, made: Override) -> bool:
    """Put the number back and hang up, both at once. True: the number is back."""

    async def back() -> bool:
        try:
            async with asyncio.timeout(PUT_BACK_WITHIN):
                await put_back(made)
        except TimeoutError:
            return False
        return True

    is_back, _ = await asyncio.gather(back(), live.hang_up_all())
    return is_back
