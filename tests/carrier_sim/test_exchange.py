"""Call control: who calls whom, how a document runs, when a call ends."""

from __future__ import annotations

import pytest

from trunkline.carrier_sim import tones, wav
from trunkline.carrier_sim.bots import Busy, Echo, Failed, NoAnswer, Play, Record, Silence
from trunkline.carrier_sim.call import Call
from trunkline.carrier_sim.exchange import Fetched
from trunkline.carrier_sim.far_ends import start_bot
from trunkline.carrier_sim.leg import Fetch
from trunkline.carrier_sim.mulaw import SILENCE

from .bench import CALLEE, CONNECT, OTHER, OURS, Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_answered_inbound_call_streams_both_ways(bench: Bench) -> None:
    bot = start_bot(Echo())
    call = bench.inbound(bot)
    assert bench.fetches[0][1] == Fetch("https://h/1234", "POST")
    bench.run(0.5)
    assert call.record.status == "ringing" and not bot.heard
    bench.answer(CONNECT.format(""))
    assert call.record.status == "in-progress"
    stream = call.streams[0]
    bench.run(0.1)
    stream.playback.add(bench.now, b"\x11" * 320)
    bench.run(0.2)
    assert bytes(bot.heard).count(b"\x11") == 320
    assert bytes(bot.said).count(b"\x11") == 320
    assert stream.frames_in == len(bot.said) // 160 == 15
    bench.over(call)
    assert call.record.status == "completed" and call.record.end_reason == "twiml"


def test_redirect_after_the_stream_then_the_same_document_again(bench: Bench) -> None:
    call = bench.inbound()
    bench.answer(CONNECT.format("<Redirect>/again</Redirect>"))
    bench.run(0.1)
    bench.over(call)
    assert bench.fetches[0][1] == Fetch("https://h/again", "POST")
    bench.answer(CONNECT.format("<Redirect/>"))
    assert len(call.streams) == 2 and call.streams[0].sid != call.streams[1].sid
    bench.over(call)
    # An empty Redirect asks for the document that it stands in.
    assert bench.fetches[0][1].url == "https://h/again"
    bench.answer("<Response><Hangup/></Response>")
    assert call.record.end_reason == "hangup-verb" and not bench.judge.errors


def test_action_of_connect_is_fetched(bench: Bench) -> None:
    call = bench.inbound()
    bench.answer(
        '<Response><Connect action="done" method="GET"><Stream url="wss://h/s"/></Connect>'
        "<Hangup/></Response>"
    )
    bench.over(call)
    assert bench.fetches[0][1] == Fetch("https://h/done", "GET")


@pytest.mark.parametrize(
    ("reject", "status"), [("<Reject/>", "no-answer"), ('<Reject reason="busy"/>', "busy")]
)
def test_reject_does_not_answer(bench: Bench, reject: str, status: str) -> None:
    call = bench.inbound()
    bench.answer(f"<Response>{reject}</Response>")
    assert call.record.status == status and call.record.duration == 0


def test_pause_and_redirect_do_not_answer_yet(bench: Bench) -> None:
    call = bench.inbound()
    bench.answer('<Response><Pause length="1"/><Redirect/></Response>')
    bench.run(0.9)
    assert call.record.status == "ringing" and not bench.fetches
    bench.run(0.2)
    assert call.record.status == "ringing" and len(bench.fetches) == 1
    bench.answer('<Response><Reject reason="busy"/></Response>')
    assert call.record.status == "busy"


def test_fallback_then_application_error(bench: Bench) -> None:
    bench.x.numbers[OURS].voice_fallback_url = "https://old/voice"
    call = bench.inbound()
    bench.fail(11205)
    fetch = bench.fetches[0][1]
    assert fetch.url == "https://old/voice"
    assert dict(fetch.params) == {"ErrorCode": "11205", "ErrorUrl": "https://h/1234"}
    bench.fail(11200)
    assert call.record.status == "failed" and call.record.end_reason == "application-error"
    assert bench.judge.codes() == [11205, 11200]


def test_an_error_in_the_middle_is_heard(bench: Bench) -> None:
    bot = start_bot(Record())
    call = bench.inbound(bot)
    bench.answer("<Response><Say>hello</Say><Redirect>/next</Redirect></Response>")
    said = wav.say("hello")
    bench.run(len(said) / 8000 + 0.1)
    assert bytes(bot.heard).startswith(said)
    bench.fail()
    assert call.record.live
    bench.run(1.2)
    assert call.record.status == "completed" and call.record.end_reason == "application-error"


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ("<Response>", "text/xml", 12100),
        ("<Response/>", "application/json", 12300),
        (f"<Response><Say>{'x' * 70000}</Say></Response>", "text/xml", 11750),
    ],
)
def test_documents_that_cannot_be_run(bench: Bench, body: str, kind: str, code: int) -> None:
    call = bench.inbound()
    bench.answer(body, kind)
    assert bench.judge.codes(call.record.sid) == [code]
    assert call.record.status == "failed"


def test_a_number_routed_elsewhere_or_nowhere(bench: Bench) -> None:
    bench.x.numbers[OURS].trunk_sid = "TK1"
    assert bench.inbound().record.end_reason == "routed-elsewhere"
    bench.x.numbers[OURS].trunk_sid = ""
    bench.x.numbers[OURS].voice_url = ""
    assert bench.inbound().record.end_reason == "no-voice-url"


@pytest.mark.parametrize(
    ("spec", "statuses"),
    [
        (Silence(ring=1.0), ["initiated", "ringing", "in-progress"]),
        (Busy(ring=0.5), ["initiated", "ringing", "busy"]),
        (NoAnswer(), ["initiated", "ringing", "no-answer"]),
        (Silence(ring=30.0), ["initiated", "ringing", "no-answer"]),
        (Failed(), ["initiated", "failed"]),
    ],
)
def test_outbound_to_a_callee(bench: Bench, spec: Silence, statuses: list[str]) -> None:
    bench.x.callees[CALLEE] = spec
    call = bench.outbound(CALLEE, timeout=5.0)
    bench.run(6.0)
    assert bench.events(call) == statuses
    assert not bench.judge.errors


def test_outbound_to_nobody_is_13224(bench: Bench) -> None:
    call = bench.outbound("+14155559999")
    bench.run(0.1)
    assert call.record.status == "failed"
    assert bench.judge.codes() == [13224]
    assert bench.strangers == ["+14155559999"]


def test_a_callee_that_fails_is_somebody(bench: Bench) -> None:
    bench.x.callees[CALLEE] = Failed()
    call = bench.outbound(CALLEE)
    bench.run(0.1)
    assert (call.record.status, bench.strangers) == ("failed", [])


def test_the_time_limit_ends_a_call(bench: Bench) -> None:
    bench.x.callees[CALLEE] = Silence()
    call = bench.outbound(CALLEE, time_limit=3.0)
    bench.run(2.9)
    assert call.record.status == "in-progress"
    bench.run(0.2)
    assert call.record.status == "completed" and call.record.end_reason == "time-limit"
    assert call.record.duration == 3 and call.streams[0].ended_by == "stop"
    assert bench.closed == [call.streams[0]]


def test_one_call_a_second() -> None:
    bench = Bench(calls_per_second=1.0)
    bench.x.callees[CALLEE] = Silence()
    calls = [bench.outbound(CALLEE) for _ in range(3)]
    assert [call.record.queue_time_ms for call in calls] == [0, 1000, 2000]
    bench.run(1.5)
    assert [call.record.status for call in calls] == ["in-progress", "in-progress", "queued"]
    bench.x.end_by_api(calls[2], "canceled", bench.now)
    bench.run(1.0)
    assert calls[2].record.status == "canceled"
    assert bench.events(calls[2]) == ["canceled"]


def place_b_leg(bench: Bench, twiml: str, document: str) -> tuple[Call, Call]:
    a = bench.outbound(OTHER, twiml)
    bench.run(0.01)
    b = a.other
    assert b is not None and b.record.direction == "inbound"
    assert (a.record.status, b.record.status) == ("ringing", "ringing")
    bench.answer(document)
    return a, b


def test_b_leg_hears_what_the_a_leg_says(bench: Bench) -> None:
    twiml = "<Response><Say>I will hold the call</Say><Pause length='5'/></Response>"
    a, b = place_b_leg(bench, twiml, CONNECT.format(""))
    assert (a.record.status, b.record.status) == ("in-progress", "in-progress")
    said = wav.say("I will hold the call")
    frames: list[bytes] = []
    stream = b.streams[0]
    stream.send = frames.append
    stream.playback.add(bench.now, b"\x22" * 1600)
    bench.run(1.0)
    assert a.circuit is b.circuit and a.circuit is not None
    assert bytes(a.circuit.played) == said[: len(a.circuit.played)]
    assert bytes(a.circuit.said).startswith(b"\x22" * 1600)
    assert len(frames) == 50
    bench.x.end_by_api(a, "completed", bench.now)
    assert (a.record.status, b.record.status) == ("completed", "completed")
    assert (a.record.end_reason, b.record.end_reason) == ("completed-by-api", "far-end")


def test_b_leg_that_is_busy_makes_the_a_leg_busy(bench: Bench) -> None:
    twiml = "<Response><Pause/></Response>"
    a, b = place_b_leg(bench, twiml, '<Response><Reject reason="busy"/></Response>')
    assert (a.record.status, b.record.status) == ("busy", "busy")


def test_keys_that_the_a_leg_plays_arrive_at_the_b_legs_stream(bench: Bench) -> None:
    _, b = place_b_leg(bench, "<Response><Pause length='9'/></Response>", CONNECT.format(""))
    a = b.other
    assert a is not None
    bench.run(0.1)
    bench.x.run_twiml(a, '<Response><Play digits="1w#"/><Pause length="9"/></Response>', bench.now)
    bench.run(2.0)
    assert b.streams[0].digits_sent == "1#"
    assert a.record.live and b.record.live and b.streams[0].live


def test_tones_in_our_audio_are_heard_as_keys(bench: Bench) -> None:
    bot = start_bot(Record())
    call = bench.inbound(bot)
    bench.answer(CONNECT.format(""))
    call.streams[0].playback.add(bench.now, b"\xff" * 57 + tones.dtmf("90*"))
    bench.run(1.0)
    assert bot.digits == "90*"


def test_keys_of_the_far_end_are_events(bench: Bench) -> None:
    call = bench.inbound(start_bot(Silence(dtmf=((0.2, "7#"),))))
    bench.answer(CONNECT.format(""))
    bench.run(1.0)
    assert call.streams[0].digits_sent == "7#"


def test_new_twiml_replaces_the_stream(bench: Bench) -> None:
    call = bench.inbound()
    bench.answer(CONNECT.format("<Hangup/>"))
    bench.run(0.1)
    bench.x.run_twiml(call, "<Response><Pause length='3'/></Response>", bench.now)
    assert call.streams[0].live  # for a moment yet
    bench.run(0.42)
    assert call.streams[0].ended_by == "stop" and bench.closed == [call.streams[0]]
    # The socket's end, which follows, must not advance the new program.
    bench.x.streams.over(call, call.streams[0], bench.now)
    assert call.record.live
    bench.run(3.1)
    assert call.record.status == "completed"


def test_a_late_answer_to_an_outdated_webhook_is_nothing(bench: Bench) -> None:
    call = bench.inbound()
    bench.answer("<Response><Pause length='9'/><Hangup/></Response>")
    bench.x.redirect(call, "https://h/one", "POST", bench.now)
    bench.x.redirect(call, "https://h/two", "POST", bench.now)
    first, second = bench.fetches
    bench.x.fetched(*first, Fetched(b"<Response><Hangup/></Response>", "text/xml"), bench.now)
    assert call.record.live
    bench.x.fetched(*second, Fetched(b"<Response><Hangup/></Response>", "text/xml"), bench.now)
    assert call.record.status == "completed"


def test_dial_bridges_and_goes_on(bench: Bench) -> None:
    bench.x.callees[CALLEE] = Echo(hang_up_after=1.0)
    bot = start_bot(Record(keep=True))
    call = bench.inbound(bot)
    bench.answer(f'<Response><Dial action="/after">{CALLEE}</Dial><Hangup/></Response>')
    bench.run(0.2)
    child = call.child
    assert child is not None and child.record.direction == "outbound-dial"
    assert child.record.status == "in-progress"
    assert child.record.parent_call_sid == call.record.sid
    bench.run(1.5)
    assert child.record.status == "completed"
    fetch = bench.fetches[0][1]
    assert dict(fetch.params)["DialCallStatus"] == "completed"
    bench.answer("<Response><Hangup/></Response>")
    assert call.record.status == "completed"


def test_dial_carries_sound_both_ways(bench: Bench) -> None:
    bench.x.callees[CALLEE] = Echo()
    sound = b"\x31" * 800
    bot = start_bot(Play(audio=sound, after=0.5))
    bench.inbound(bot)
    bench.answer(f"<Response><Dial>{CALLEE}</Dial></Response>")
    bench.run(2.0)
    assert sound in bytes(bot.heard)


def test_the_caller_who_gives_up(bench: Bench) -> None:
    call = bench.inbound()
    bench.x.far_end_hangs_up(call, bench.now)
    assert call.record.status == "no-answer"
    bench.answer(CONNECT.format(""))
    assert not call.streams and call.record.status == "no-answer"


def test_documents_in_a_circle_end(bench: Bench) -> None:
    call = bench.inbound()
    for _ in range(60):
        if bench.fetches:
            bench.answer("<Response><Redirect>/me</Redirect></Response>")
    assert not call.record.live and 11200 in bench.judge.codes()


def test_a_refused_stream_goes_on_with_the_next_verb(bench: Bench) -> None:
    bot = start_bot(Record())
    call = bench.inbound(bot)
    bench.answer(
        '<Response><Connect><Stream url="https://h/s"/></Connect><Pause length="1"/></Response>'
    )
    assert bench.judge.codes() == [31922] and call.record.live
    bench.run(0.5)
    assert set(bytes(bot.heard)) == set(SILENCE)


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("kept", OURS),
        ("country-code-cut", "+4155551234"),
        ("national", "4155551234"),
        ("digits-added", "+01014155551234"),
        ("gateway-number", "+811045000"),
        ("anonymous", "anonymous"),
        ("capital-anonymous", "Anonymous"),
        ("spelled-anonymous", "+266696687"),
        ("restricted", "RESTRICTED"),
        ("empty", ""),
    ],
)
def test_carriers_rewrite_the_caller_that_the_callees_side_sees(form: str, shown: str) -> None:
    bench = Bench(habits={"caller-id": form})
    a = bench.outbound(OTHER, "<Response/>")
    bench.run(0.01)
    assert a.other is not None
    assert (a.record.from_, a.other.record.from_, a.other.record.to) == (OURS, shown, OTHER)
    # REST does not tell that the two belong together.
    assert a.other.record.parent_call_sid == ""


def test_the_caller_is_drawn_anew_for_each_call_and_the_same_way_for_a_seed() -> None:
    def callers(seed: int) -> list[str]:
        bench = Bench(seed=seed)
        found = []
        for _ in range(40):
            call = bench.outbound(OTHER, "<Response/>")
            bench.run(0.01)
            assert call.other is not None
            found.append(call.other.record.from_)
        return found

    assert callers(7) == callers(7) != callers(8)
    assert len(set(callers(7))) == 10


def test_a_number_that_is_not_asked_when_it_is_called_from_the_account() -> None:
    bench = Bench(contradict=("own-number-asks",))
    a = bench.outbound(OTHER, "<Response><Pause/></Response>")
    bench.run(0.1)
    assert (a.record.status, a.other, bench.fetches) == ("in-progress", None, [])
