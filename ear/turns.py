"""Who answered, yielded and interrupted: what the segments of two sides say of each other.

The rules:

- An *answer* is their first segment that begins after one of ours ended, with none of ours between.
  If they were speaking when ours ended, they may pause for less than :data:`PAUSE` and go on. That
  is the rest of what they were saying, and no answer.
- Ours of less than :data:`BACKCHANNEL` that begins over theirs is a *backchannel* ("mhm"), also
  where theirs ends first. It asks for nothing, so what follows it is no answer.
- A *yield* is ours, and no backchannel, that begins while theirs runs. Theirs has ended once they
  pause for :data:`PAUSE`, or until ours ends: a speaker who only draws breath has not yielded.
- A *false yield* is a backchannel for which they stop: while it sounds, or within
  :data:`STOPS_WITHIN` after it, and for at least a :data:`PAUSE`.
- They *interrupt* when one of their segments begins while ours runs, unless ours broke into what
  they say, and they only go on with it after a pause.
"""

from __future__ import annotations

from typing import Final

from .figures import Answer, FalseYield, Interruption, Segment, Yield, rounded

#: Ours that is shorter is a backchannel, if it is said over theirs (seconds).
BACKCHANNEL: Final = 0.7
#: They may pause for less than this, and still go on with what they say (seconds).
PAUSE: Final = 0.7
#: They stop for a backchannel so soon after its end at the latest (seconds).
STOPS_WITHIN: Final = 0.5
#: Nobody speaks for so long: a silence (seconds).
SILENCE: Final = 1.0


def _running(at: float, segments: list[Segment]) -> int | None:
    """Which segment runs at a moment; one that begins then does not run yet."""
    return next((n for n, each in enumerate(segments) if each.start < at < each.end), None)


def _stretch(first: int, segments: list[Segment], until: float) -> tuple[int, float]:
    """(last segment, its end) of what a side says from segment ``first`` on without a pause, as far
    as it begins before ``until``."""
    last = first
    while (
        last + 1 < len(segments)
        and segments[last + 1].start < until
        and segments[last + 1].start - segments[last].end < PAUSE
    ):
        last += 1
    return last, segments[last].end


def is_backchannel(said: Segment, theirs: list[Segment]) -> bool:
    return said.end - said.start < BACKCHANNEL and _running(said.start, theirs) is not None


def answers(ours: list[Segment], theirs: list[Segment]) -> list[Answer]:
    found = []
    for n, said in enumerate(ours):
        if is_backchannel(said, theirs):
            continue
        until = ours[n + 1].start if n + 1 < len(ours) else float("inf")
        running = _running(said.end, theirs)
        first = 0 if running is None else _stretch(running, theirs, until)[0] + 1
        answer = next((each for each in theirs[first:] if each.start >= said.end), None)
        if answer is not None and answer.start < until:
            latency = rounded(answer.start - said.end)
            found.append(Answer(after=said.end, start=answer.start, latency=latency))
    return found


def yields(
    ours: list[Segment], theirs: list[Segment]
) -> tuple[list[Yield], list[FalseYield], list[Interruption]]:
    """All that begins over the other side's speech."""
    found: list[Yield] = []
    false: list[FalseYield] = []
    resumed: set[int] = set()
    for said in ours:
        running = _running(said.start, theirs)
        if running is None:
            continue
        backchannel = is_backchannel(said, theirs)
        until = said.end + (STOPS_WITHIN + PAUSE if backchannel else 0.0)
        last, stopped = _stretch(running, theirs, until)
        resumed.update(range(running + 1, last + 1))
        if not backchannel:
            seconds = None if stopped > said.end else rounded(stopped - said.start)
            found.append(Yield(at=said.start, seconds=seconds))
        elif stopped <= said.end + STOPS_WITHIN:
            false.append(FalseYield(at=said.start))
    interruptions = []
    for n, begun in enumerate(theirs):
        over = _running(begun.start, ours)
        if over is not None and n not in resumed:
            seconds = rounded(min(begun.end, ours[over].end) - begun.start)
            interruptions.append(Interruption(at=begun.start, seconds=seconds))
    return found, false, interruptions


def talk_over(ours: list[Segment], theirs: list[Segment]) -> float:
    """Seconds in which both speak."""
    both = sum(max(0.0, min(a.end, b.end) - max(a.start, b.start)) for a in ours for b in theirs)
    return rounded(both)


def silences(ours: list[Segment], theirs: list[Segment], seconds: float) -> list[Segment]:
    """Where neither speaks for a second or more, the beginning and the end included."""
    found = []
    heard_to = 0.0
    for each in sorted([*ours, *theirs], key=lambda segment: segment.start):
        if each.start - heard_to >= SILENCE:
            found.append(Segment(start=heard_to, end=each.start))
        heard_to = max(heard_to, each.end)
    if seconds - heard_to >= SILENCE:
        found.append(Segment(start=heard_to, end=rounded(seconds)))
    return found
