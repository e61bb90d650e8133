"""The rules for ``place_call``: numbers, stream modes, allow-lists, durations.

Pure checks with the errors that langwatch-scenario's users know; nothing is dialled before all of
them have passed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from trunkline.bus.callers import caller_error
from trunkline.bus.messages import LONGEST_CALL, LONGEST_WAIT, DialMode, MachineDetection
from trunkline.bus.redact import is_e164, not_e164, redact_number

StreamAttachMode = Literal["a-leg", "b-leg", "originator-only"]


_BUS_MODES: dict[StreamAttachMode, DialMode] = {
    "a-leg": "a-leg",
    "b-leg": "b-leg",
    "originator-only": "originate",
}


@dataclass(frozen=True)
class DialPlan:
    """A call that may be placed: ``max_duration`` in seconds, always set."""

    to: str
    mode: StreamAttachMode
    max_duration: int
    machine_detection: MachineDetection | None = None

    @property
    def bus_mode(self) -> DialMode:
        return _BUS_MODES[self.mode]


def check_seconds(seconds: object, name: str = "timeout") -> None:
    """ValueError for a time that cannot be waited for: no number, NaN, more than thirty days. A
    time below zero is taken, and is over at once."""
    if type(seconds) is float and seconds <= LONGEST_WAIT:
        return  # as nearly always, 50 times a second for each call
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not seconds <= LONGEST_WAIT:  # type: ignore[operator]  # it is a number
        raise ValueError(
            f"{name} must be a number of seconds, {LONGEST_WAIT} at most, got {seconds!r}."
        )


def check_e164(number: str, name: str = "phone_number") -> None:
    """ValueError (the number redacted) unless ``number`` is E.164: + and 7 to 15 ASCII digits.
    ``name``: the parameter that the number came in."""
    if not isinstance(number, str):
        raise ValueError(f"{name} is {type(number).__name__}, not a phone number in E.164 format.")
    if not is_e164(number):
        raise ValueError(f"{name} {not_e164(redact_number(number))}.")


def callee_set(numbers: Iterable[str] | None) -> set[str] | None:
    """``allowed_callees`` as a set, each stripped and checked (ValueError); None stays None."""
    if numbers is None:
        return None
    found = set()
    for place, number in enumerate(_entries(numbers, "allowed_callees")):
        stripped = number.strip() if isinstance(number, str) else number
        check_e164(stripped, f"allowed_callees[{place}]")
        found.add(stripped)
    return found


def caller_set(callers: Iterable[str] | None) -> set[str] | None:
    """``allowed_callers`` as a set, each entry stripped; None stays None.

    An entry is whatever a carrier may report as From: a number, a short code, ``sip:…``,
    ``client:…``, ``anonymous``, or "" for a call without a From. ValueError for an entry that is no
    text, or has control characters.
    """
    if callers is None:
        return None
    found = set()
    for place, caller in enumerate(_entries(callers, "allowed_callers")):
        why = caller_error(caller)
        if why is not None:
            raise ValueError(f"allowed_callers[{place}] {why}")
        found.add(caller.strip())
    return found


def _entries(given: Iterable[str], name: str) -> list[str]:
    if isinstance(given, str):
        raise ValueError(f"{name} is a list, not one string")
    return list(given)


def resolve_stream_mode(
    attach_stream: str | None, attach_stream_to_self: bool | None
) -> StreamAttachMode:
    """Which leg carries the stream. ValueError: unknown, or the two parameters disagree."""
    if attach_stream is not None and attach_stream not in ("a-leg", "b-leg"):
        raise ValueError(
            f"place_call: attach_stream={attach_stream!r} is unknown; use 'a-leg' or 'b-leg'."
        )
    if attach_stream_to_self is None:
        return "a-leg" if attach_stream == "a-leg" else "b-leg"
    implied: StreamAttachMode = "b-leg" if attach_stream_to_self else "originator-only"
    if attach_stream is not None and attach_stream != implied:
        raise ValueError(
            f"place_call: attach_stream={attach_stream!r} conflicts with "
            f"attach_stream_to_self={attach_stream_to_self!r}; pass only one."
        )
    return implied


def resolve_max_duration(seconds: float | None) -> int:
    """An a-leg call's longest duration in whole seconds, 1 to 300; ValueError otherwise."""
    if seconds is None:
        return LONGEST_CALL
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise ValueError(
            f"max_call_duration_seconds must be a positive number of seconds, got {seconds!r}."
        )
    if seconds > LONGEST_CALL:
        raise ValueError(
            f"max_call_duration_seconds={seconds!r} exceeds the {LONGEST_CALL}s "
            "cap on a-leg calls. An a-leg call may dial numbers that this account does not own; "
            "the cap bounds what it can cost."
        )
    if seconds != int(seconds) or seconds < 1:
        raise ValueError(
            "max_call_duration_seconds must be a positive number of seconds, a whole one, "
            f"got {seconds!r}."
        )
    return int(seconds)


def check_callee(to: str, allowed: Collection[str] | None, owner: str) -> None:
    """ValueError unless ``to`` is on the allow-list of ``owner`` (a class's name). None, or an
    empty list, allows nobody."""
    if not allowed:
        raise ValueError(
            'place_call: attach_stream="a-leg" requires allowed_callees. It may dial numbers that '
            "this Twilio account does not own, so destinations are deny-by-default: pass "
            f"{owner}(allowed_callees=[...]) with every number that may be dialled, including "
            f"{redact_number(to)}."
        )
    if to not in allowed:
        raise ValueError(
            f"place_call: destination {redact_number(to)} is not in allowed_callees. Add it to "
            f"{owner}(allowed_callees=[...]) to permit it."
        )


def plan_dial(
    to: str,
    *,
    attach_stream: str | None,
    attach_stream_to_self: bool | None,
    max_call_duration_seconds: float | None,
    allowed_callees: Collection[str] | None,
    owner: str,
    machine_detection: str | None = None,
) -> DialPlan:
    """All checks of ``place_call``, in this order: number, stream mode, detection of machines,
    allow-list, duration."""
    check_e164(to, "place_call: to")
    mode = resolve_stream_mode(attach_stream, attach_stream_to_self)
    detection = _detection(machine_detection, mode)
    if mode == "a-leg":
        check_callee(to, allowed_callees, owner)
        return DialPlan(to, mode, resolve_max_duration(max_call_duration_seconds), detection)
    if mode == "originator-only" and allowed_callees:
        check_callee(to, allowed_callees, owner)
    if max_call_duration_seconds is not None:
        raise ValueError(
            'max_call_duration_seconds is only supported with attach_stream="a-leg"; b-leg and '
            "originator-only calls hold the line with <Pause> and are bounded by it."
        )
    return DialPlan(to, mode, LONGEST_CALL)


def _detection(asked: str | None, mode: StreamAttachMode) -> MachineDetection | None:
    """``asked``, if it is one of Twilio's words and ``mode`` is one in which Twilio is asked.
    ValueError otherwise."""
    if asked is None:
        return None
    if mode != "a-leg":
        raise ValueError(
            f'place_call: machine_detection is only supported with attach_stream="a-leg", not for '
            f"a call in {mode} mode."
        )
    if asked == "Enable" or asked == "DetectMessageEnd":
        return asked  # type: ignore[return-value]  # it is one of the two
    raise ValueError(
        f"place_call: machine_detection={asked!r} is unknown; use 'Enable' or 'DetectMessageEnd'."
    )
