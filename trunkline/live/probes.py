"""The probes of a live run, each with a call of its own.

A probe judges each belief that its call can settle. Where something before it did not go as
expected, it judges "unknown" rather than guess, so that "contradicted" is never said by mistake.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from trunkline.bus.clock import monotonic
from trunkline.controller.twilio.calls import ENDED_STATUSES
from trunkline.controller.twilio.carrier import RestFailure

from .listener import Hook, LiveStream, Signed
from .trial import Trial
from .verdicts import Verdicts

#: TwiML of our leg: silence with a digit every 2 s, and silence alone.
CONVERSATION: Final = '<Pause length="2"/><Play digits="5"/>' * 12
QUIET: Final = '<Pause length="40"/>'
#: ``TimeLimit``, in seconds, of the call that tries it.
LIMIT: Final = 5
#: The CallStatus of each callback that was asked for.
_EVENTS: Final = ("initiated", "ringing", "in-progress", "completed")
#: Seconds out of 1 s of audio after which its mark has waited for it; and by which a timestamp has
#: to be ahead of its frame to count from something else than the stream's start.
_SURE: Final = 0.8


async def conversation(trial: Trial, hook: Hook) -> None:
    """A whole call: retries, ringing, a stream with all its messages, the verb after the stream,
    the end, and the callbacks."""
    listed = asyncio.create_task(_listed(trial))
    try:
        await _talk(trial, hook)
    finally:
        await _end(trial)
        await listed
    told = await trial.told_end(5.0)
    await trial.told_all(_EVENTS, 2.0)
    missing = [event for event in _EVENTS if event not in trial.told]
    seen = f"{len(trial.callbacks)} came" + (f"; none for {', '.join(missing)}" if missing else "")
    if told or missing != list(_EVENTS):
        trial.live.verdicts.decide("callbacks-for-each-event", not missing, seen)


async def _talk(trial: Trial, first: Hook) -> None:
    verdicts = trial.live.verdicts
    first.fail()
    hook = await trial.hook()
    if hook is None:
        verdicts.contradicted("fragment-is-followed", "an HTTP error was followed by nothing")
        return
    verdicts.decide(
        "fragment-is-followed",
        not hook.is_fallback,
        "after an HTTP error "
        + ("the fallback was asked at once" if hook.is_fallback else "the URL was asked again"),
    )
    hook.answer(f'<Pause length="2"/>{trial.redirect()}')
    await asyncio.sleep(1.0)
    status = await trial.status()
    hook = await trial.hook()
    if hook is None:
        verdicts.unknown("pause-keeps-ringing", "nothing came after <Pause> and <Redirect>")
        return
    answered = status == "in-progress" or "in-progress" in trial.told
    verdicts.decide("pause-keeps-ringing", not answered, f"the caller's leg was {status}")
    stream = await trial.stream(hook)
    if stream is None:
        return
    await _messages(stream, verdicts)
    await stream.close()
    hook = await _fell_through(trial, "next-verb-after-close", "our close")
    stream = await trial.stream(hook) if hook else None
    if stream is None:
        return
    trial.live.listener.break_stream(stream)
    hook = await _fell_through(trial, "next-verb-after-break", "the break")
    stream = await trial.stream(hook) if hook else None
    if stream is None:
        return
    await _end(trial)
    try:
        async with asyncio.timeout(6.0):
            await stream.over.wait()
    except TimeoutError:
        verdicts.unknown("stop-before-close", "the socket was not closed within 6 s")
        return
    stopped = any(message.get("event") == "stop" for _, message in stream.messages)
    verdicts.decide("stop-before-close", stopped, f"stop {'came' if stopped else 'did not come'}")


async def _messages(stream: LiveStream, verdicts: Verdicts) -> None:
    given = stream.start.get("customParameters", {})
    verdicts.decide("parameters-arrive", given.get("nonce") == stream.name, f"{len(given)} came")
    await _marks(stream, verdicts)
    waits = stream.started_at + 7.0 - monotonic()
    await stream.news.until(lambda: bool(stream.events("dtmf")) or stream.over.is_set(), waits)
    digits = [body.get("digit") for _, body in stream.events("dtmf")]
    if digits or not stream.over.is_set():
        seen = f"{len(digits)} came within {monotonic() - stream.started_at:.0f} s"
        verdicts.decide("digits-arrive", "5" in digits, seen)
    _sound(stream, verdicts)


async def _marks(stream: LiveStream, verdicts: Verdicts) -> None:
    began = monotonic()
    await stream.say(1.0)
    await stream.mark("one")
    at = await stream.wait_mark("one", 5.0)
    if at is None:
        verdicts.contradicted("marks-wait-for-playback", "a mark behind 1 s of audio never came")
        return
    took = at - began
    seen = f"a mark behind 1 s of audio came after {took:.1f} s"
    verdicts.decide("marks-wait-for-playback", took > _SURE, seen)
    await stream.say(6.0)
    await stream.mark("two")
    await asyncio.sleep(0.5)
    if stream.mark_at("two") is not None:
        for name in ("clear-returns-marks", "clear-empties-buffer"):
            verdicts.unknown(name, "the mark had come back before the clear")
        return
    began = monotonic()
    await stream.clear()
    await stream.say(0.2)
    await stream.mark("three")
    third = await stream.wait_mark("three", 3.0)
    second = stream.mark_at("two")
    seen = "never came" if second is None else f"came after {second - began:.1f} s"
    verdicts.decide("clear-returns-marks", second is not None, f"the mark {seen}")
    seen = "was not played within 3 s" if third is None else f"was played {third - began:.1f} s on"
    verdicts.decide("clear-empties-buffer", third is not None, f"what was said after it {seen}")


def _sound(stream: LiveStream, verdicts: Verdicts) -> None:
    sound = stream.sound
    seconds = monotonic() - stream.started_at
    heard = sum(size for _, _, size in sound) / 8000
    seen = f"{heard:.1f} s of sound came in {seconds:.1f} s of near silence"
    verdicts.decide("silence-is-sent", heard > seconds / 2, seen)
    if not sound:
        return
    sizes = sorted({size for _, _, size in sound})
    verdicts.decide("frames-of-20-ms", sizes == [160], f"frames of {sizes} bytes came")
    at, timestamp, _ = sound[0]
    ahead = timestamp / 1000 - (at - stream.started_at)
    seen = f"the first frame, {at - stream.started_at:.1f} s after start, has {timestamp} ms"
    verdicts.decide("timestamps-from-stream-start", ahead < _SURE, seen)


async def _fell_through(trial: Trial, name: str, what: str) -> Hook | None:
    began = monotonic()
    hook = await trial.hook()
    if hook is not None:
        trial.live.verdicts.holds(name, f"it ran {monotonic() - began:.1f} s after {what}")
        return hook
    status = await trial.status()
    trial.live.verdicts.contradicted(name, f"it did not run after {what}; the call is {status}")
    return None


async def _listed(trial: Trial) -> None:
    """Judge whether the list of calls soon shows the call."""
    live, name = trial.live, "new-calls-are-listed"
    began = monotonic()
    while monotonic() - began < 10.0:
        try:
            calls = await live.carrier.list_calls(live.number, live.caller, trial.created - 60.0)
        except RestFailure as failure:
            live.verdicts.unknown(name, f"the list could not be had: {failure.text}")
            return
        if any(call.sid == trial.sid for call in calls):
            live.verdicts.holds(name, f"it was there {monotonic() - began:.1f} s after the answer")
            return
        await asyncio.sleep(1.0)
    live.verdicts.contradicted(name, "10 s after its creation a call was not listed")


async def fallback(trial: Trial, hook: Hook) -> None:
    """Answer with errors until the fallback URL is asked, and refuse a stream's upgrade there."""
    verdicts = trial.live.verdicts
    found: Hook | None = hook
    while found is not None and not found.is_fallback:
        found.fail()
        found = await trial.hook()
    if found is None:
        verdicts.contradicted("fallback-is-asked", "errors of voice_url were followed by nothing")
        return
    verdicts.holds("fallback-is-asked", f"with ErrorCode {found.asked.form.get('ErrorCode')}")
    stream = await trial.stream(found, refuse=True)
    if stream is None:
        verdicts.unknown("next-verb-after-refusal", "no upgrade came")
        return
    last = await _fell_through(trial, "next-verb-after-refusal", "the refusal")
    if last is not None:
        last.answer("<Hangup/>")


async def rejected(trial: Trial, hook: Hook) -> None:
    """Reject the call as busy, and compare the last callback with REST."""
    verdicts = trial.live.verdicts
    hook.answer('<Reject reason="busy"/>')
    status = await _ended(trial, 10.0)
    if status not in ENDED_STATUSES:
        return
    seen = f"the caller's leg ended as {status}"
    verdicts.decide("reject-does-not-answer", status != "completed", seen)
    if status == "completed":
        verdicts.unknown("reject-is-busy", "the call was answered")
        return
    verdicts.decide("reject-is-busy", status == "busy", seen)
    told = await trial.told_end(5.0)
    if told:
        name = "callbacks-name-the-cause"
        verdicts.decide(name, told == status, f"REST says {status}, the callback {told}")


async def ended_while_ringing(trial: Trial, hook: Hook) -> None:
    """End the call by ``Status=completed`` before it is answered."""
    name, live = "completed-ends-ringing", trial.live
    hook.answer(f'<Pause length="20"/>{trial.redirect()}')
    await asyncio.sleep(1.0)
    before = await trial.status()
    if before not in ("queued", "initiated", "ringing"):
        live.verdicts.unknown(name, f"the call was {before}")
        return
    try:
        await live.carrier.complete_call(trial.sid)
    except RestFailure as failure:
        live.verdicts.contradicted(name, f"it was refused while {before}: {failure.text}")
        return
    after = await _ended(trial, 5.0)
    live.verdicts.decide(name, after in ENDED_STATUSES, f"{before} before, {after} after")


async def limited(trial: Trial, hook: Hook) -> None:
    """Let the call end by its TimeLimit."""
    name, verdicts = "time-limit-ends-calls", trial.live.verdicts
    hook.answer(f'<Play digits="1"/>{QUIET}')
    deadline = monotonic() + 8.0
    while await trial.status() != "in-progress":
        if monotonic() > deadline:
            verdicts.unknown(name, "the call was not answered")
            return
        await asyncio.sleep(0.25)
    status = await _ended(trial, LIMIT + 5.0)
    verdicts.decide(name, status == "completed", f"{LIMIT} s: the call is {status} at the end")


async def _ended(trial: Trial, seconds: float) -> str:
    """Wait for the end of our leg, and return its last status: REST's, or the callback's where REST
    goes on showing an earlier one."""
    status = await trial.ended(seconds)
    name, verdicts = "rest-shows-ends", trial.live.verdicts
    if status in ENDED_STATUSES:
        verdicts.holds(name, f"a call that had ended was {status}")
        return status
    told = await trial.told_end(1.0)
    if told:
        verdicts.contradicted(name, f"REST says {status} of a call whose callback said {told}")
    return told or status


async def _end(trial: Trial) -> None:
    try:
        await trial.live.carrier.end_call(trial.sid)
    except RestFailure:
        return  # the run ends every call at its end, and otherwise its TimeLimit does


def judge_requests(trial: Trial) -> None:
    """Judge the signatures and queries of all webhooks, callbacks and upgrades of the run."""
    listener, verdicts = trial.live.listener, trial.live.verdicts
    asked = [*listener.hooks, *listener.callbacks]
    upgrades = Counter(stream.signed for stream in listener.streams.values() if stream.signed)
    if asked:
        _judge_signatures(Counter(a.signed for a in asked), upgrades, verdicts)
        with_query = [a for a in asked if not a.path.endswith("/fallback")]
        bare = sum(not a.query for a in with_query)
        seen = f"{bare} of {len(with_query)} came without theirs"
        verdicts.decide("query-is-kept", not bare, seen)
    if upgrades:
        seen = _counted(upgrades)
        verdicts.decide("upgrades-are-signed", not upgrades["missing"], seen)


def _judge_signatures(
    webhooks: Counter[Signed], upgrades: Counter[Signed], verdicts: Verdicts
) -> None:
    seen = _counted(webhooks)
    readable = webhooks["right"] + webhooks["with-fragment"]
    verdicts.decide("webhooks-are-signed", not webhooks["missing"], seen)
    name = "the-auth-token-signs"
    if webhooks["shared-key"] + upgrades["shared-key"]:
        verdicts.contradicted(name, f"webhooks: {seen}; streams: {_counted(upgrades)}")
    elif readable + upgrades["right"]:
        verdicts.holds(name, f"webhooks: {seen}; streams: {_counted(upgrades)}")
    for name, other in (
        ("signed-url-is-the-given-one", webhooks["wrong"] + upgrades["wrong"]),
        ("fragment-is-not-signed", webhooks["with-fragment"]),
    ):
        if other:
            verdicts.contradicted(name, seen)
        elif readable:
            verdicts.holds(name, seen)
        else:
            verdicts.unknown(name, seen)


def _counted(kinds: Counter[Signed]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none came"


#: The probes beside :func:`conversation`. Of each call: its name, its probe, and its TimeLimit in
#: seconds, or None for the longest.
OTHERS: Final = (
    ("fallback", fallback, None),
    ("rejected", rejected, None),
    ("ringing", ended_while_ringing, None),
    ("limited", limited, LIMIT),
)
