"""What speech_gate= takes, what it refuses, and what it warns of."""

from __future__ import annotations

from typing import Any

import pytest
from phone import adapter

from trunkline.adapter.turns.gate_options import OPTIONS, GateOptions, read_gate_options


def silent(text: str, value: float) -> None:
    raise AssertionError(f"warned: {text % value}")


def test_true_false_and_each_option() -> None:
    assert read_gate_options(False, silent) is None
    for given in (True, {}, {"preroll_ms": 300, "hangover_ms": 400}):
        assert read_gate_options(given, silent) == GateOptions(pre_roll=0.3, hangover=0.4)
    assert read_gate_options({"hangover_ms": 1500}, silent) == GateOptions(0.3, 1.5)
    assert read_gate_options({"preroll_ms": 0}, silent) == GateOptions(0.0, 0.4)
    assert read_gate_options({"preroll_ms": 62.5}, silent) == GateOptions(0.0625, 0.4)


@pytest.mark.parametrize(
    "given",
    [{"hangoverMs": 400}, {"rmsThreshold": 800}, {"hangover": 1}, {"": 1}, {3: 4}],
)
def test_an_unknown_option_is_named_and_the_known_ones_are_listed(given: Any) -> None:
    with pytest.raises(ValueError, match="unknown option") as refused:
        read_gate_options(given, silent)
    for name in (repr(next(iter(given))), "rms_threshold", "hangover_ms", "preroll_ms"):
        assert name in str(refused.value)


@pytest.mark.parametrize("name", sorted(OPTIONS))
@pytest.mark.parametrize(
    "value", [None, "400", True, -1, -0.001, 1e6, float("nan"), float("inf"), [400]]
)
def test_a_value_that_is_no_number_in_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a number from 0 to") as refused:
        read_gate_options({name: value}, silent)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize("given", [None, 1, 0, "yes", ["hangover_ms"], 0.4])
def test_what_is_neither_a_bool_nor_a_mapping_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="True, False, or a mapping of the options rms_threshold"):
        read_gate_options(given, silent)


def test_the_adapter_checks_when_it_is_made_and_whenever_it_is_set(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(ValueError, match="unknown option 'hangoverMs'"):
        adapter(speech_gate={"hangoverMs": 400})
    options = {"hangover_ms": 700}
    agent = adapter(speech_gate=options)
    assert agent.speech_gate is options
    assert not caplog.records
    with pytest.raises(ValueError, match="hangover_ms must be a number"):
        agent.speech_gate = {"hangover_ms": "long"}  # type: ignore[dict-item]  # that is the point
    assert agent.speech_gate is options


def test_a_threshold_has_no_meaning_for_this_gate_and_the_warning_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    adapter(speech_gate={"rms_threshold": 800, "hangover_ms": 700})
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("scenario.voice.twilio", "WARNING")
    assert "rms_threshold=800 has no effect" in record.message
    assert "what stands out of the noise of the line" in record.message
