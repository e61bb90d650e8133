"""A live run: listens at the public URL, overrides the number, places calls, judges what happens,
and puts the number back."""

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
from ..stack.tunnel import REACHABLE_WITHIN, Tunnel, TunnelError
from . import probes
from .listener import Hook, Listener
from .number import Override, operations, override, put_back, try_writes
from .trial import LONGEST, LiveRun, Trial, UnreachedError
from .verdicts import Verdicts

#: Where the first call does not reach us, a second and a third are placed so many seconds after the
#: last write to the number.
TRY_AGAIN_AFTER: Final = (8.0, 20.0)
#: Seconds for which the run tries to put the number back. After that, the next start of a stack or
#: `trunkline restore` has to do it.
PUT_BACK_WITHIN: Final = 60.0
#: The same where the run is interrupted, because a command has to end within 4 s of its signal.
PUT_BACK_SOON: Final = 3.5
_LEFT: Final = "{} may not be put back yet; run `trunkline restore`"

COST: Final = (
    f"5 calls to the number (7 at most, each ended after {LONGEST} s at the latest). 3 of them are "
    "answered, for under a minute each. At Twilio's US list prices (about $0.014 a minute out, "
    "$0.0085 in, $0.004 for Media Streams; twilio.com/voice/pricing) that is about 10 cents; other "
    "countries' prices differ"
)


class LeftBehindError(TrunklineError, RuntimeError):
    """A run was interrupted, and its number may not be put back."""


@dataclass(frozen=True)
class Plan:
    """The options of the run. ``number``: the one to call. ``caller``: the one that calls it."""

    number: str
    caller: str
    tunnel: str | None = None


@dataclass
class Outcome:
    """The outcome of a run. ``error``: why it ended early, or None. ``back``: whether the number is
    as it was before."""

    verdicts: Verdicts
    error: TrunklineError | None = None
    back: bool = True


async def run(settings: Settings, plan: Plan, say: Callable[[str], None]) -> Outcome:
    """Make the whole run. Raises TrunklineError where something stands in its way, before anything
    is spent.

    When it is cancelled, it first hangs the calls up and puts the number back. LeftBehindError
    where that does not succeed within :data:`PUT_BACK_SOON`.
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
    """Override the number, and place the calls until all is judged or ``stop`` is set. Then hang up
    and put the number back."""
    say(f"taking over the voice_url of {live.number}")
    made = await override(ops, live.base, live.number)
    outcome = Outcome(live.verdicts)
    try:
        await unless(stop, _calls(live, made, say))
    except StoppedError:
        pass  # the caller tells what was found by then
    except TrunklineError as error:
        outcome.error = error
    finally:
        outcome.back = await _leave(live, made)
    return outcome


@contextlib.asynccontextmanager
async def _reached(
    settings: Settings, plan: Plan, listener: Listener, say: Callable[[str], None]
) -> AsyncIterator[None]:
    """Listen during the block, reachable at the public URL. Raises SettingsError or TunnelError
    where that is not so."""
    async with contextlib.AsyncExitStack() as leave:
        port = await leave.enter_async_context(
            listener.serving(settings.http_host, settings.http_port)
        )
        if plan.tunnel is not None:
            tunnel = await Tunnel.open(plan.tunnel, settings.http_host, port)
            leave.push_async_callback(tunnel.close)
            listener.public_url = tunnel.url
            say(f"waiting until {tunnel.url} can be reached")
            if not await tunnel.wait_reachable():
                raise TunnelError(
                    f"{tunnel.url} could not be reached within {REACHABLE_WITHIN:g} s: try again, "
                    "or with the other kind of --tunnel"
                )
        else:
            listener.public_url = settings.require("public_url")
            answer = await get(listener.public_url + HEALTH_PATH)
            if answer.status != 200 or listener.stack.encode() not in answer.body:
                # Without a status, the body says why there was no answer, and through which proxy.
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
    """Place calls until one reaches us, and judge by which one it is whether the written voice_url
    counts at once."""
    name = "voice-url-counts-at-once"
    for wait in TRY_AGAIN_AFTER:
        trial = Trial(live, "talk")
        try:
            hook = await trial.place(probes.CONVERSATION)
        except UnreachedError:
            say("the call did not reach this machine; placing another one")
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
    """Put the number back and hang the calls up, both at the same time. Returns whether the number
    is back."""

    async def back() -> bool:
        try:
            async with asyncio.timeout(PUT_BACK_WITHIN):
                await put_back(made)
        except TimeoutError:
            return False
        return True

    is_back, _ = await asyncio.gather(back(), live.hang_up_all())
    return is_back
