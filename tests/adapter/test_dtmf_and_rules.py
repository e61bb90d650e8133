"""DTMF tones after mu-law, and what a place_call may ask for."""

from __future__ import annotations

import numpy as np
import pytest

from trunkline.adapter.dial_rules import (
    DialPlan,
    callee_set,
    caller_set,
    check_e164,
    plan_dial,
    resolve_max_duration,
    resolve_stream_mode,
)
from trunkline.adapter.dtmf import PAIRS, tones
from trunkline.bus.digits import check_digits
from trunkline.bus.sound import LINE_RATE

ALL = "1234567890*#"


def mulaw_8k(pcm: bytes) -> np.ndarray:
    """Every third sample through G.711 mu-law and back: what the carrier's detector gets."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)[::3] / 32768
    compressed = np.sign(samples) * np.log1p(255 * np.abs(samples)) / np.log(256)
    steps = np.round(compressed * 127) / 127
    found: np.ndarray = np.sign(steps) * (np.power(256, np.abs(steps)) - 1) / 255
    return found


def goertzel(samples: np.ndarray, frequency: float) -> float:
    angle = 2 * np.pi * frequency / 8000 * np.arange(len(samples))
    return float(np.hypot(samples @ np.cos(angle), samples @ np.sin(angle)) * 2 / len(samples))


def digit_of(samples: np.ndarray) -> str:
    low = {f: goertzel(samples, f) for f in (697.0, 770.0, 852.0, 941.0)}
    high = {f: goertzel(samples, f) for f in (1209.0, 1336.0, 1477.0)}
    pair = max(low, key=lambda f: low[f]), max(high, key=lambda f: high[f])
    first, second = low[pair[0]], high[pair[1]]
    assert min(first, second) > 0.1
    others = [v for f, v in (low | high).items() if f not in pair]
    assert max(others) < 0.1 * min(first, second)
    assert 0.4 < second / first < 2.5  # the twist that ITU-T Q.24 receivers take
    return next(key for key, known in PAIRS.items() if known == pair)


def test_a_detector_knows_every_digit() -> None:
    line = mulaw_8k(tones(ALL))
    assert len(line) == len(ALL) * 1600
    assert "".join(digit_of(line[i * 1600 : i * 1600 + 800]) for i in range(len(ALL))) == ALL
    for i in range(len(ALL)):
        assert np.abs(line[i * 1600 + 801 : (i + 1) * 1600]).max() == 0


def test_waits_are_silence() -> None:
    assert len(tones("w")) == LINE_RATE // 2 * 2
    assert len(tones("W")) == LINE_RATE * 2
    assert not any(tones("wW"))


@pytest.mark.parametrize("digits", ["", "1\n", "1a", "A", "\u0661", "1 2", '"/><Say>', None])
def test_what_is_no_digit(digits: object) -> None:
    with pytest.raises(ValueError, match=r"must match \[0-9\*#wW\]\+.*XML injection"):
        check_digits(digits)  # type: ignore[arg-type]  # what a user may pass


@pytest.mark.parametrize(
    "number", ["", "2025550123", "+0205550123", "+120255", "+1202555012345678", "+12025550123\n"]
)
def test_what_is_no_number(number: str) -> None:
    with pytest.raises(ValueError, match=r"not in E.164 format \(expected e.g. '\+1") as caught:
        check_e164(number)
    assert "20255" not in str(caught.value)


def test_seven_digits_are_the_shortest_number() -> None:
    check_e164("+1202555")


def test_arabic_digits_are_none() -> None:
    with pytest.raises(ValueError, match=r"E\.164"):
        check_e164("+1\u0664\u0665\u0665\u0665\u0665\u0661\u0662")


def test_callees_are_stripped_and_checked() -> None:
    assert callee_set([" +14155551234 "]) == {"+14155551234"}
    assert callee_set(None) is None
    assert callee_set([]) == set()
    with pytest.raises(ValueError, match=r"allowed_callees\[1\] sip:\*\*\* is not in E\.164"):
        callee_set(["+14155551234", "sip:alice@example.com"])
    with pytest.raises(ValueError, match="allowed_callees is a list, not one string"):
        callee_set("+14155551234")
    with pytest.raises(ValueError, match=r"allowed_callees\[0\] is int, not a phone number"):
        callee_set([14155551234])  # type: ignore[list-item]  # as a user could


def test_callers_are_whatever_a_carrier_may_report() -> None:
    given = [" +14155551234", "sip:alice@example.com", "client:joe", "anonymous", "Anonymous"]
    given += ["12345", "+266696687", ""]
    assert caller_set(given) == {given[0].strip(), *given[1:]}
    assert caller_set(None) is None
    assert caller_set([]) == set()
    with pytest.raises(ValueError, match="allowed_callers is a list, not one string"):
        caller_set("anonymous")
    with pytest.raises(ValueError, match=r"allowed_callers\[1\] has control characters"):
        caller_set(["client:joe", "client:\x1b[2J"])
    with pytest.raises(ValueError, match=r"allowed_callers\[0\] is int, not text"):
        caller_set([5])  # type: ignore[list-item]  # as a user could


def test_an_error_names_the_parameter_that_was_wrong() -> None:
    with pytest.raises(ValueError, match=r"^phone_number \*\*\*5551 is not in E\.164"):
        check_e164("4155551")
    with pytest.raises(ValueError, match=r"^place_call: to \*\*\*5551 is not in E\.164"):
        plan(to="4155551")


@pytest.mark.parametrize(
    ("attach", "to_self", "mode"),
    [
        (None, None, "b-leg"),
        (None, True, "b-leg"),
        (None, False, "originator-only"),
        ("b-leg", None, "b-leg"),
        ("b-leg", True, "b-leg"),
        ("a-leg", None, "a-leg"),
    ],
)
def test_where_the_stream_is(attach: str | None, to_self: bool | None, mode: str) -> None:
    assert resolve_stream_mode(attach, to_self) == mode


@pytest.mark.parametrize(
    ("attach", "to_self"), [("a-leg", True), ("a-leg", False), ("b-leg", False)]
)
def test_parameters_that_disagree(attach: str, to_self: bool) -> None:
    with pytest.raises(ValueError, match=r"conflicts with .*pass only one"):
        resolve_stream_mode(attach, to_self)


def test_an_unknown_stream_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="a_leg"):
        resolve_stream_mode("a_leg", None)


def test_durations() -> None:
    assert [resolve_max_duration(s) for s in (None, 1, 300, 30.0)] == [300, 1, 300, 30]
    for wrong in (0, -1, 0.5, True):
        with pytest.raises(ValueError, match="must be a positive number of seconds"):
            resolve_max_duration(wrong)
    with pytest.raises(ValueError, match="=301 exceeds the 300s cap on a-leg calls"):
        resolve_max_duration(301)


def plan(to: str = "+14155557777", allowed: set[str] | None = None, **how: object) -> DialPlan:
    given: dict[str, object] = {
        "attach_stream": None,
        "attach_stream_to_self": None,
        "max_call_duration_seconds": None,
    }
    return plan_dial(to, allowed_callees=allowed, owner="Line", **(given | how))  # type: ignore[arg-type]  # as given


def test_an_a_leg_call_needs_an_allow_list() -> None:
    with pytest.raises(ValueError, match=r"requires allowed_callees.*deny-by-default.*\*\*\*7777"):
        plan(attach_stream="a-leg")
    with pytest.raises(ValueError, match=r"\*\*\*7777 is not in allowed_callees"):
        plan(attach_stream="a-leg", allowed={"+141555577771"})
    assert plan(attach_stream="a-leg", allowed={"+14155557777"}).max_duration == 300


def test_other_modes() -> None:
    assert plan(allowed={"+14155550000"}).bus_mode == "b-leg"
    with pytest.raises(ValueError, match="only supported with attach_stream"):
        plan(max_call_duration_seconds=10)
    assert plan(attach_stream_to_self=False).bus_mode == "originate"
    with pytest.raises(ValueError, match="not in allowed_callees"):
        plan(attach_stream_to_self=False, allowed={"+14155550000"})
