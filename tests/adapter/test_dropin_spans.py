"""The spans that scenario's users query: names, attributes, outcomes, and none too many."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from fake_stack import OURS, THEIRS, FakeStack
from later import scenario, testing
from line_sound import NAMES, pcm, silence, words
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from phone import adapter, answered, dials, placed, press

from trunkline.bus import messages as m
from trunkline.bus.testing import until
from trunkline.errors import CallFailedError, CarrierError

PREFIX = "voice.twilio."


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def attributes_of(spans: InMemorySpanExporter, name: str) -> dict[str, Any]:
    """The attributes of the one span that has this name."""
    (span,) = named(spans, name)
    return dict(span.attributes or {})


async def test_connect_stamps_the_executors_span(
    stack: FakeStack, spans: InMemorySpanExporter
) -> None:
    agent = adapter(stack, http_port=8765)
    with trace.get_tracer("test").start_as_current_span("voice.adapter.connect"):
        await agent.connect()
    await agent.disconnect()
    found = attributes_of(spans, "voice.adapter.connect")
    assert found == {
        f"{PREFIX}phone_number_sid": "PN" + "2" * 32,
        f"{PREFIX}validate_signature": True,
        f"{PREFIX}webhook_port": 8765,
    }


async def test_an_outbound_dial(stack: FakeStack, spans: InMemorySpanExporter) -> None:
    async with adapter(stack) as agent:
        _, info = await placed(stack, agent)
    found = attributes_of(spans, "voice.adapter.dial")
    assert isinstance(found.pop(f"{PREFIX}stream_connect_latency_ms"), int)
    assert found == {
        "langwatch.span.type": "span",
        "voice.adapter.class": "TwilioAgentAdapter",
        f"{PREFIX}direction": "outbound",
        f"{PREFIX}to": "***0101",
        f"{PREFIX}from": "***0100",
        f"{PREFIX}call_sid": info.dialled_sid,
    }
    # The rest of the stack joins this trace.
    trace_of_the_dial = dials(stack)[0].trace["traceparent"]
    (span,) = named(spans, "voice.adapter.dial")
    assert span.context is not None
    assert f"{span.context.trace_id:032x}-{span.context.span_id:016x}" in trace_of_the_dial


async def test_the_span_of_a_dial_never_has_the_other_legs_sid(
    stack: FakeStack, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    """The other leg's stream may be up before Twilio has answered the dial."""
    caplog.set_level(logging.INFO, "scenario.voice.twilio")
    stack.controller.answers[m.Dial] = None
    async with adapter(stack) as agent:
        placing = asyncio.ensure_future(agent.place_call(THEIRS, timeout=5))
        dial = await stack.controller.wait_for(m.Dial)
        stack.start_call(dial.session, dial=dial, taken=False)
        await placing
    assert f"{PREFIX}call_sid" not in attributes_of(spans, "voice.adapter.dial")
    assert "placed call (Twilio has not told its SID yet) from" in caplog.text


async def test_an_originated_dial_has_no_latency(
    stack: FakeStack, spans: InMemorySpanExporter
) -> None:
    async with adapter(stack) as agent:
        await agent.place_call(THEIRS, attach_stream_to_self=False)
    found = attributes_of(spans, "voice.adapter.dial")
    assert f"{PREFIX}stream_connect_latency_ms" not in found
    assert found[f"{PREFIX}call_sid"].startswith("CA")


async def test_an_inbound_dial_has_no_from(stack: FakeStack, spans: InMemorySpanExporter) -> None:
    async with adapter(stack) as agent:
        _, info = await answered(stack, agent)
    found = attributes_of(spans, "voice.adapter.dial")
    assert (found[f"{PREFIX}direction"], found[f"{PREFIX}to"]) == ("inbound", "***0100")
    assert f"{PREFIX}from" not in found
    assert found[f"{PREFIX}call_sid"] == info.sid


async def test_a_timeout_marks_the_dial(stack: FakeStack, spans: InMemorySpanExporter) -> None:
    async with adapter(stack) as agent:
        with pytest.raises(asyncio.TimeoutError):
            await agent.wait_for_call(timeout=0.05)
    (span,) = named(spans, "voice.adapter.dial")
    assert (span.attributes or {})[f"{PREFIX}dial_outcome"] == "stream_connect_timeout"
    assert f"{PREFIX}stream_connect_latency_ms" not in (span.attributes or {})
    assert span.status.status_code is trace.StatusCode.ERROR


async def test_a_dial_that_nobody_answers_marks_its_span_with_the_call(
    stack: FakeStack, spans: InMemorySpanExporter
) -> None:
    async with adapter(stack) as agent:
        placing = asyncio.ensure_future(agent.place_call(THEIRS, timeout=5))
        dial = await stack.controller.wait_for(m.Dial)
        stack.controller.tell(
            m.DialFailed(request=dial.request, call="x", status="busy", sid="CAx")
        )
        with pytest.raises(CallFailedError):
            await placing
    found = attributes_of(spans, "voice.adapter.dial")
    assert (found[f"{PREFIX}call_sid"], found[f"{PREFIX}dial_outcome"]) == ("CAx", "busy")


async def test_a_refusal_of_rest_marks_the_dial_and_is_raised(
    stack: FakeStack, spans: InMemorySpanExporter
) -> None:
    stack.controller.answers[m.Dial] = CarrierError("Twilio could not", status=500)
    async with adapter(stack) as agent:
        with pytest.raises(CarrierError):
            await agent.place_call(THEIRS)
    (span,) = named(spans, "voice.adapter.dial")
    assert (span.status.status_code, span.status.description) == (
        trace.StatusCode.ERROR,
        "CarrierError",
    )
    assert [event.name for event in span.events] == ["exception"]


async def test_what_is_refused_before_the_dial_makes_no_span(
    stack: FakeStack, spans: InMemorySpanExporter
) -> None:
    async with adapter(stack) as agent:
        for to, how in [
            ("junk", {}),
            (THEIRS, {"attach_stream": "a-leg"}),
            (THEIRS, {"max_call_duration_seconds": 5}),
        ]:
            with pytest.raises(ValueError, match=r"\w"):
                await agent.place_call(to, **how)  # type: ignore[arg-type]  # as users write it
    assert named(spans, "voice.adapter.dial") == []


async def test_disconnect_says_what_came_and_how_it_ended(
    stack: FakeStack, spans: InMemorySpanExporter
) -> None:
    agent = adapter(stack)
    await agent.connect()
    _, info = await answered(stack, agent)
    session = info.session
    stack.controller.tell(m.WebhooksCounted(session=session, received=1))
    stack.controller.tell(m.WebhooksCounted(session=session, received=2, rejected=2))
    stack.workers[0].hear(info.call, bytes(960 * 7))
    press(stack, info, "12")
    stack.end_call(info, by_far_end=True)
    await until(lambda: agent.stream_ended_reason == "stop")
    with trace.get_tracer("test").start_as_current_span("voice.adapter.disconnect"):
        await agent.disconnect()
    assert attributes_of(spans, "voice.adapter.disconnect") == {
        f"{PREFIX}frames_received": 7,
        f"{PREFIX}dtmf_received": 2,
        f"{PREFIX}stream_ended_reason": "stop",
        f"{PREFIX}webhook_invocations": 3,
        f"{PREFIX}webhook_rejected": 2,
        f"{PREFIX}rest_restore_failed": False,
        f"{PREFIX}speech_gate.dropped_chunks": 1,
        f"{PREFIX}speech_gate.dropped_ms": 140,
        f"{PREFIX}speech_gate.onsets": 0,
    }


async def test_disconnect_counts_the_frames_of_its_last_call_and_the_webhooks_of_all(
    stack: FakeStack, spans: InMemorySpanExporter
) -> None:
    agent = adapter(stack)
    await agent.connect()

    async def called(frames: int, callers: list[str]) -> None:
        agent.allowed_callers = callers  # type: ignore[assignment]  # as users write it
        _, info = await answered(stack, agent)
        stack.controller.tell(m.WebhooksCounted(session=info.session, received=2, rejected=1))
        stack.workers[0].hear(info.call, bytes(960 * frames))
        await until(lambda: agent.frames_received == frames)

    await called(7, ["+14155550001"])
    await called(3, ["+14155550002"])
    with trace.get_tracer("test").start_as_current_span("voice.adapter.disconnect"):
        await agent.disconnect()
    found = attributes_of(spans, "voice.adapter.disconnect")
    assert found[f"{PREFIX}frames_received"] == 3
    assert found[f"{PREFIX}webhook_invocations"] == 4
    assert found[f"{PREFIX}webhook_rejected"] == 2


async def test_disconnect_tells_of_a_restore_that_failed_when_the_lists_were_changed(
    stack: FakeStack, spans: InMemorySpanExporter
) -> None:
    agent = adapter(stack)
    await agent.connect()
    await answered(stack, agent)
    stack.controller.answers[m.CloseSession] = lambda body: m.SessionClosed(
        session=body.session, pending=[OURS]
    )
    agent.allowed_callers = [THEIRS]
    await answered(stack, agent)
    del stack.controller.answers[m.CloseSession]
    with trace.get_tracer("test").start_as_current_span("voice.adapter.disconnect"):
        await agent.disconnect()
    found = attributes_of(spans, "voice.adapter.disconnect")
    assert found[f"{PREFIX}rest_restore_failed"] is True


@pytest.mark.parametrize("busy", [True, False])
async def test_a_call_that_has_no_stream_ends_no_stream(
    stack: FakeStack, spans: InMemorySpanExporter, busy: bool
) -> None:
    agent = adapter(stack)
    await agent.connect()
    await agent.place_call(THEIRS, attach_stream_to_self=False)
    if busy:
        (dial,) = dials(stack)
        failed = m.DialFailed(request=dial.request, call=dial.request[::-1], status="busy")
        stack.controller.tell(failed)
        await until(lambda: not agent.is_connected())
    with trace.get_tracer("test").start_as_current_span("voice.adapter.disconnect"):
        await agent.disconnect()
    found = attributes_of(spans, "voice.adapter.disconnect")
    assert found[f"{PREFIX}stream_ended_reason"] == "none"


@pytest.mark.parametrize("looked", [True, False])
async def test_disconnect_has_the_figures_of_a_call_that_was_judged_and_of_no_other(
    stack: FakeStack, spans: InMemorySpanExporter, looked: bool
) -> None:
    agent = adapter(stack)
    await agent.connect()
    _, info = await answered(stack, agent)
    stack.workers[0].hear(info.call, bytes(960 * 7))
    await until(lambda: agent.frames_received == 7)
    if looked:
        assert agent.report().seconds == pytest.approx(0.14)
    stack.workers[0].hear(info.call, bytes(960 * 3))
    await until(lambda: agent.frames_received == 10)
    with trace.get_tracer("test").start_as_current_span("voice.adapter.disconnect"):
        await agent.disconnect()
    found = attributes_of(spans, "voice.adapter.disconnect")
    told = {name for name in found if name.startswith("trunkline.")}
    if looked:
        assert found["trunkline.report.reliable"] is False
        assert found["trunkline.report.latency.n"] == 0
        assert found["trunkline.call_sid"] == info.sid
    else:
        assert told == set(), "and the ear was not asked"


async def test_disconnect_without_a_call_and_with_a_restore_that_failed(
    stack: FakeStack, spans: InMemorySpanExporter
) -> None:
    agent = adapter(stack)
    await agent.connect()
    stack.controller.answers[m.CloseSession] = lambda body: m.SessionClosed(
        session=body.session, pending=[OURS]
    )
    with trace.get_tracer("test").start_as_current_span("voice.adapter.disconnect"):
        await agent.disconnect()
    found = attributes_of(spans, "voice.adapter.disconnect")
    assert found[f"{PREFIX}stream_ended_reason"] == "none"
    assert found[f"{PREFIX}rest_restore_failed"] is True


async def test_a_turn_has_one_marker_for_its_sound_and_none_between_turns(
    stack: FakeStack, spans: InMemorySpanExporter
) -> None:
    async with adapter(stack) as agent:
        agent.response_max_duration = 2.0
        _, info = await answered(stack, agent)
        said = pcm(silence(0.3)) + pcm(words(NAMES[1])[:24_000]) + pcm(silence(1.5))
        for begin in range(0, len(said), 960):
            stack.workers[0].hear(info.call, said[begin : begin + 960])
        await agent.call(testing.make_agent_input(scenario.AudioChunk(bytes(960))))
    (turn,) = named(spans, "voice.turn")
    (sent,) = named(spans, "voice.audio.send")
    received = named(spans, "voice.audio.receive")
    assert sent.parent is not None and turn.context is not None
    assert sent.parent.span_id == turn.context.span_id
    markers = [s for s in received if f"{PREFIX}recv.source" in (s.attributes or {})]
    (marker,) = markers
    assert marker.parent is not None and marker.parent.span_id == turn.context.span_id
    attributes = dict(marker.attributes or {})
    assert attributes[f"{PREFIX}recv.source"] == "background_loop"
    assert attributes["voice.adapter.class"] == "TwilioAgentAdapter"
    assert attributes["voice.audio.bytes"] > 0
    assert len(received) == 2, "the base call's own, and the marker; none for each frame"


async def test_an_exporter_that_raises_never_breaks_a_dial(
    stack: FakeStack, tracer_provider: TracerProvider, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(SimpleSpanProcessor):
        def __init__(self) -> None:
            super().__init__(InMemorySpanExporter())

        def on_end(self, span: ReadableSpan) -> None:
            raise OSError("no collector")

    tracer_provider.add_span_processor(Broken())
    async with adapter(stack) as agent:
        await agent.place_call(THEIRS, attach_stream_to_self=False)
    (warned,) = [r for r in caplog.records if "failed to export" in r.message]
    assert (warned.name, warned.levelno) == ("scenario.voice", logging.WARNING)
