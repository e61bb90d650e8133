"""What can be seen of the adapter without a call: ours beside scenario's own, asked the same."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any

import pytest
from fake_stack import ACCOUNT, OURS, THEIRS
from later import imported, scenario, testing, trunkline, twilio
from phone import CREDENTIALS


def both() -> list[Any]:
    """Scenario's adapter, and ours."""
    return [scenario.voice.TwilioAgentAdapter, trunkline.TwilioAgentAdapter]


def made(kind: Any, **given: Any) -> Any:
    return kind(**(CREDENTIALS | given))


def parameters(function: Any) -> dict[str, tuple[Any, Any]]:
    """Name -> (kind, default) of each parameter."""
    found = inspect.signature(function).parameters
    return {name: (p.kind, p.default) for name, p in found.items() if name != "self"}


def test_the_constructor_takes_what_scenarios_takes_and_two_keywords_more() -> None:
    theirs, ours = (parameters(kind.__init__) for kind in both())
    assert {name: ours[name] for name in theirs} == theirs
    more = {name: default for name, (_, default) in ours.items() if name not in theirs}
    assert more == {"bus": None, "speech_gate": True}


@pytest.mark.parametrize(
    "name",
    [
        *("connect", "disconnect", "place_call", "wait_for_call", "send_audio", "recv_audio"),
        *("interrupt", "send_dtmf", "is_connected", "call"),
    ],
)
def test_each_method_takes_what_scenarios_takes(name: str) -> None:
    theirs, ours = (getattr(kind, name) for kind in both())
    more = parameters(ours)
    assert {known: more.pop(known) for known in parameters(theirs)} == parameters(theirs)
    if name in ("place_call", "wait_for_call"):
        keyword = inspect.Parameter.KEYWORD_ONLY
        known = {"callee_speaks_first": (keyword, False), "greeting_timeout": (keyword, 10.0)}
        if name == "place_call":
            known["machine_detection"] = (keyword, None)
        assert more == known
    else:
        assert more == {}
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)


@pytest.mark.parametrize(
    "number",
    ["4155551234", "+0155551234", "+141555", "+1415555123456789", "+1", "", "+1415x551234"],
)
def test_a_number_that_is_none_is_refused_in_the_same_words(number: str) -> None:
    said = []
    for kind in both():
        with pytest.raises(ValueError, match=r"is not in E\.164 format") as refused:
            made(kind, phone_number=number)
        said.append(str(refused.value).split("'+14155551234'")[0])
    assert said[0] == said[1]
    if len(number) > 5:
        assert number not in said[1] and number[-4:] in said[1]


@pytest.mark.parametrize("number", ["+1234567", "+123456789012345"])
def test_the_shortest_and_the_longest_number_are_taken(number: str) -> None:
    assert [made(kind, phone_number=number).phone_number for kind in both()] == [number] * 2


def test_attributes_are_what_was_given_and_can_be_written() -> None:
    class Tunnel:
        async def wait_until_edge_reachable(self) -> None: ...

    given = {
        "public_base_url": "https://line.example.com/",
        "on_dtmf": print,
        "http_port": 0,
        "role": scenario.AgentRole.USER,
        "tunnel_readiness": Tunnel(),
    }
    for kind in both():
        adapter = made(kind, **given)
        for name, value in given.items():
            assert getattr(adapter, name) is value
        for name in (*given, "account_sid", "auth_token", "phone_number", "validate_signature"):
            setattr(adapter, name, "another")
            assert getattr(adapter, name) == "another"


def test_allow_lists() -> None:
    for kind in both():
        adapter = made(kind, allowed_callees=[f" {THEIRS} ", THEIRS], allowed_callers=[THEIRS])
        assert (adapter.allowed_callees, adapter.allowed_callers) == ({THEIRS}, {THEIRS})
        assert made(kind).allowed_callees is None
        assert made(kind).allowed_callers is None
        assert made(kind, allowed_callees=[]).allowed_callees is None
        with pytest.raises(ValueError, match=r"E\.164"):
            made(kind, allowed_callees=["junk"])
        # Callers are whatever a carrier reports.
        callers = ["sip:alice@example.com", "client:joe", "anonymous", "12345", "+266696687", ""]
        assert made(kind, allowed_callers=callers).allowed_callers == set(callers)
    # An empty list of callers lets nobody in; scenario's lets everybody in.
    assert made(trunkline.TwilioAgentAdapter, allowed_callers=[]).allowed_callers == set()


def test_an_unchecked_signature_is_warned_about_alike(caplog: pytest.LogCaptureFixture) -> None:
    for kind in both():
        made(kind, validate_signature=False)
    theirs, ours = caplog.records
    assert (ours.name, ours.levelno, ours.message) == (
        theirs.name,
        logging.WARNING,
        theirs.message,
    )


def test_the_repr_is_the_same_and_shows_no_secret() -> None:
    shown = {repr(made(kind, public_base_url="https://line.example.com")) for kind in both()}
    assert len(shown) == 1
    assert ACCOUNT not in str(shown) and "no-token" not in str(shown) and OURS in str(shown)


def test_capabilities_and_defaults_are_the_same() -> None:
    theirs, ours = (made(kind) for kind in both())
    assert ours.capabilities == theirs.capabilities
    names = ("response_timeout", "response_tail_silence", "response_max_duration", "agent_hung_up")
    for name in (*names, "role", "name"):
        assert getattr(ours, name) == getattr(theirs, name), name
    ours.response_timeout = 1.5
    another = made(trunkline.TwilioAgentAdapter)
    assert (ours.response_timeout, another.response_timeout) == (1.5, 60.0)
    assert isinstance(ours._agent_speaking_event, asyncio.Event)
    assert ours._agent_speaking_event is ours._agent_speaking


def test_it_is_a_voice_agent_adapter_with_scenarios_own_turn() -> None:
    theirs, ours = both()
    assert issubclass(ours, scenario.VoiceAgentAdapter)
    assert not issubclass(ours, theirs)
    assert ours.call is scenario.VoiceAgentAdapter.call


def test_scenarios_names_have_their_counterparts() -> None:
    imported()
    import scenario.voice.adapters.twilio as upstream
    import scenario.voice.testing as upstream_testing

    for name in twilio.__all__:
        assert getattr(twilio, name) is not None
    for name in ("PLACE_CALL_A_LEG_SAY_TEXT", "A_LEG_SEND_DTMF_UNSUPPORTED"):
        assert getattr(twilio, name) == getattr(upstream, name)
    assert set(twilio.TwilioAdapterMode.__args__) == set(upstream.TwilioAdapterMode.__args__)
    ends = set(upstream.TwilioStreamEndedReason.__args__)
    assert set(twilio.TwilioStreamEndedReason.__args__) == ends | {"hang_up"}
    assert set(upstream.StreamAttachMode.__args__) <= {"a-leg", "b-leg", "originator-only"}
    assert set(twilio.StreamAttachMode.__args__) == {"a-leg", "b-leg", "originator-only"}
    for name in ("CloudflareTunnel", "TunnelUnavailableError", "drive_call", "make_agent_input"):
        assert getattr(testing, name) is getattr(upstream_testing, name)
    ours, theirs = (
        parameters(kind.__init__)
        for kind in (testing.TwilioHarness, upstream_testing.TwilioHarness)
    )
    assert {name: ours[name] for name in theirs} == theirs
    assert set(ours) - set(theirs) == {"bus", "speech_gate"}


def test_errors_are_scenarios_own() -> None:
    assert twilio.TunnelNotReadyError is scenario.TunnelNotReadyError
    assert twilio.TunnelReadiness is scenario.voice.TunnelReadiness
    assert issubclass(scenario.TunnelNotReadyError, RuntimeError)
    assert isinstance(testing.CloudflareTunnel(1), twilio.TunnelReadiness)


def test_an_audio_chunk_is_scenarios() -> None:
    chunk = scenario.AudioChunk(data=bytes(48_000))
    assert (chunk.sample_rate, chunk.channels, chunk.duration_seconds) == (24_000, 1, 1.0)
    with pytest.raises(ValueError, match="not valid PCM16"):
        scenario.AudioChunk(data=b"123")
