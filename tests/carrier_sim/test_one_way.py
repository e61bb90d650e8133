"""One-way streams, the seam between two documents, and far ends that hear one kind of key."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from twilio.rest import Client

from trunkline.carrier_sim import tones, twiml
from trunkline.carrier_sim.bots import Play, Record, Silence, parse_bot
from trunkline.carrier_sim.call import Call
from trunkline.carrier_sim.far_ends import start_bot
from trunkline.carrier_sim.habits import HABITS
from trunkline.carrier_sim.sim import CarrierSim
from trunkline.carrier_sim.stream import Stream

from .bench import CONNECT, Bench
from .server import CALLEE, OURS, Customer, refused

DIGITS = (
    '<Response>{}<Play digits="1#"/><Connect><Stream url="wss://h/again"/></Connect></Response>'
)
START = '<Start><Stream url="wss://h/side" name="side" track="inbound_track"/></Start>'
SIDE = twiml.Stream(url="wss://h/side", name="side")
BOTH_TRACKS = twiml.Stream(url="wss://h/side", name="side", track="both_tracks")
#: 3 s in which each frame of 20 ms is another one.
COUNTED = b"".join(bytes([n]) * 160 for n in range(1, 151))


def wired(**options: Any) -> Bench:
    pinned = {"one-way-start": "0.1", "timestamps": "grid", "first-timestamp": "0"}
    options["habits"] = pinned | options.get("habits", {})
    return Bench(**options)


def sent(bench: Bench, stream: Stream) -> list[dict[str, Any]]:
    """The stream's messages to the server."""
    return [msgspec.json.decode(message) for message in bench.sent[stream.sid]]


def frames(bench: Bench, stream: Stream) -> list[bytes]:
    """The sound in them."""
    payloads = [m["media"]["payload"] for m in sent(bench, stream) if m["event"] == "media"]
    return [msgspec.json.decode(f'"{p}"', type=bytes) for p in payloads]


def events(bench: Bench, stream: Stream) -> list[str]:
    """The others, by name."""
    return [m["event"] for m in sent(bench, stream) if m["event"] != "media"]


def called(bench: Bench) -> Call:
    """A call in <Connect><Stream> with somebody who talks."""
    call = bench.inbound(start_bot(Play(audio=COUNTED)))
    bench.answer(CONNECT.format(""))
    bench.run(0.1)
    return call


# ----------------------------------------------------------------------------- the seam


@pytest.mark.parametrize("seam", HABITS["seam"])
def test_a_new_document_costs_its_seam_of_the_far_end(seam: str) -> None:
    bench = wired(habits={"seam": seam})
    call = called(bench)
    bench.x.run_twiml(call, DIGITS.format(""), bench.now)
    bench.run(2.4)
    first, again = call.streams
    assert first.ended_by == "stop" and again.live
    # The old stream went on for a third of the seam; then the digits, then the seam itself.
    took = frames(bench, first)[-1][0], frames(bench, again)[0][0]
    assert (took[1] - took[0] - 1) * 0.02 == pytest.approx(0.4 + float(seam), abs=0.05)


def test_the_seam_is_drawn_by_seed() -> None:
    def seams(seed: int) -> list[float]:
        found = []
        bench = wired(seed=seed)
        for _ in range(12):
            call = called(bench)
            bench.x.run_twiml(call, DIGITS.format(""), bench.now)
            bench.run(2.4)
            found.append(round(call.streams[1].opened_at - call.streams[0].ended_at, 1))  # type: ignore[operator]  # both are
        return found

    assert seams(3) == seams(3) != seams(4)
    assert len(set(seams(3))) > 2


def test_a_call_that_ends_in_the_seam_opens_nothing() -> None:
    bench = wired(habits={"seam": "1.2"})
    call = called(bench)
    bench.x.run_twiml(call, DIGITS.format(""), bench.now)
    bench.run(1.2)
    assert call.leg.connecting is not None
    bench.x.far_end_hangs_up(call, bench.now)
    bench.run(2.0)
    assert len(call.streams) == 1 and call.record.status == "completed"


# ----------------------------------------------------------------------------- both tracks


def tracks(bench: Bench, stream: Stream) -> dict[str, list[tuple[int, int, int]]]:
    """By track: (chunk, timestamp, first byte) of each frame."""
    found: dict[str, list[tuple[int, int, int]]] = {"inbound": [], "outbound": []}
    for message in sent(bench, stream):
        if message["event"] == "media":
            body = message["media"]
            byte = msgspec.json.decode(f'"{body["payload"]}"', type=bytes)[0]
            found[body["track"]].append((int(body["chunk"]), int(body["timestamp"]), byte))
    return found


def test_both_tracks_are_on_one_clock_and_in_one_sequence() -> None:
    bench = wired()
    call = called(bench)
    call.streams[0].playback.add(bench.now, COUNTED)
    side = bench.x.start_side(call, BOTH_TRACKS, bench.now)
    bench.run(1.0)
    assert side.live and bench.judge.errors == []
    start, *rest = [m for m in sent(bench, side) if m["event"] != "connected"]
    assert start["start"]["tracks"] == ["inbound", "outbound"]
    assert [int(m["sequenceNumber"]) for m in rest] == list(range(2, len(rest) + 2))
    found = tracks(bench, side)
    said, heard = found["inbound"], found["outbound"]
    assert len(said) == len(heard) > 40
    for n, (inbound, outbound) in enumerate(zip(said, heard, strict=True)):
        assert inbound[:2] == outbound[:2] == (n + 1, 20 * n)
        # Both parties have counted since the same time, so 20 ms of both belong together.
        assert inbound[2] - said[0][2] == outbound[2] - heard[0][2] == n


def test_the_outbound_track_alone() -> None:
    bench = wired()
    call = called(bench)
    verb = twiml.Stream(url="wss://h/side", track="outbound_track")
    side = bench.x.start_side(call, verb, bench.now)
    bench.run(0.5)
    found = tracks(bench, side)
    assert found["inbound"] == [] and len(found["outbound"]) > 10


def test_tracks_with_clocks_of_their_own() -> None:
    bench = wired(contradict=("tracks-share-a-clock",))
    call = called(bench)
    side = bench.x.start_side(call, BOTH_TRACKS, bench.now)
    bench.run(0.5)
    found = tracks(bench, side)
    assert found["outbound"][0][1] - found["inbound"][0][1] == 200


def test_silence_that_is_not_sent_leaves_its_place_on_both_tracks() -> None:
    bench = wired(contradict=("silence-is-sent",))
    call = called(bench)
    side = bench.x.start_side(call, BOTH_TRACKS, bench.now)
    bench.run(0.4)
    call.streams[0].playback.add(bench.now, COUNTED)
    bench.run(0.4)
    found = tracks(bench, side)
    first = found["outbound"][0]
    assert first[0] > 10 and first[1] == 20 * (first[0] - 1)


# ----------------------------------------------------------------------------- one-way streams


def test_a_one_way_stream_brings_every_frame_through_the_documents() -> None:
    bench = wired()
    call = called(bench)
    side = bench.x.start_side(call, SIDE, bench.now)
    bench.run(0.12)
    bench.x.run_twiml(call, DIGITS.format(""), bench.now)
    bench.run(2.2)
    first, _, again = call.streams
    assert (first.ended_by, side.live, again.live) == ("stop", True, True)
    brought = [frame[0] for frame in frames(bench, side)]
    assert brought == list(range(brought[0], brought[0] + len(brought)))
    assert brought[0] < frames(bench, first)[-1][0] < frames(bench, again)[0][0] <= brought[-1]
    bench.x.stop_side(call, side, bench.now)
    assert side.ended_by == "stop" and events(bench, side)[-1] == "stop"
    assert again.live and bench.judge.errors == []


@pytest.mark.parametrize("start", HABITS["one-way-start"])
def test_a_one_way_stream_takes_a_while_to_begin(start: str) -> None:
    bench = wired(habits={"one-way-start": start})
    call = called(bench)
    asked = bench.now
    side = bench.x.start_side(call, SIDE, bench.now)
    bench.run(0.8)
    assert side.opened_at == pytest.approx(asked + float(start), abs=0.006)


def test_one_that_is_stopped_before_it_began_never_begins() -> None:
    bench = wired()
    call = called(bench)
    side = bench.x.start_side(call, SIDE, bench.now)
    bench.x.stop_side(call, side, bench.now)
    bench.run(0.5)
    assert (side.opened_at, side.ended_by) == (None, "stop")


def test_start_and_stop_in_documents() -> None:
    bench = wired()
    call = bench.inbound()
    stop = '<Stop><Stream name="side"/></Stop>'
    bench.answer(f"<Response>{START}<Pause length='1'/>{stop}<Pause length='1'/></Response>")
    bench.run(0.5)
    (side,) = call.streams
    assert side.one_way and side.live and call.record.status == "in-progress"
    bench.run(1.0)
    assert side.ended_by == "stop" and call.record.live


def test_it_takes_no_messages_and_tells_no_keys() -> None:
    bench = wired()
    call = bench.inbound(start_bot(Silence(dtmf=((0.3, "5"),))))
    bench.answer(CONNECT.format(""))
    side = bench.x.start_side(call, SIDE, bench.now)
    bench.run(0.12)
    for text in (b"{}", b'{"event":"clear","streamSid":"%b"}' % side.sid.encode()):
        side.message(text, bench.now)
    bench.run(1.0)
    assert side.invalid == 2 and [e.code for e in bench.judge.errors] == [31951, 31951]
    assert events(bench, side) == ["connected", "start"]  # and no clear's mark
    assert "dtmf" in events(bench, call.streams[0])


def test_it_stops_with_the_call() -> None:
    bench = wired()
    call = called(bench)
    side = bench.x.start_side(call, SIDE, bench.now)
    bench.run(0.12)
    bench.x.far_end_hangs_up(call, bench.now)
    assert side.ended_by == "stop" and events(bench, side)[-1] == "stop"
    assert side in bench.closed


def test_what_is_wrong_with_the_elements_is_listed() -> None:
    for text, why in (
        ("<Start/>", "<Start> with 0 <Stream>"),
        ("<Start><Stream/></Start>", "<Stream> without url"),
        ("<Stop><Stream/></Stop>", "<Stop> without the name"),
        ("<Start><Play/></Start>", "<Play> in <Start> is not known here"),
    ):
        document = twiml.parse(f"<Response>{text}</Response>")
        assert document.verbs == () and any(why in p.text for p in document.problems), text


# ----------------------------------------------------------------------------- beliefs turned round


def test_two_streams_can_differ_in_the_lowest_bit() -> None:
    bench = wired(contradict=("streams-alike",))
    call = called(bench)
    side = bench.x.start_side(call, SIDE, bench.now)
    bench.run(0.3)
    ours, theirs = frames(bench, call.streams[0]), frames(bench, side)
    assert [frame[0] ^ 1 for frame in theirs] == [frame[0] for frame in ours[-len(theirs) :]]


def test_a_closed_one_way_stream_can_come_once_more() -> None:
    bench = wired(contradict=("one-way-close-ends",))
    call = called(bench)
    side = bench.x.start_side(call, SIDE, bench.now)
    for _ in range(2):
        bench.run(0.12)
        bench.over(call)
    again = call.streams[-1]
    assert again is not side and again.verb == side.verb and len(call.streams) == 3


def test_a_document_can_end_a_stream_without_a_stop() -> None:
    bench = wired(contradict=("update-sends-stop",))
    call = called(bench)
    bench.x.run_twiml(call, DIGITS.format(""), bench.now)
    bench.run(0.5)
    assert call.streams[0].ended_by == "stop" and "stop" not in events(bench, call.streams[0])
    assert call.streams[0] in bench.closed


# ----------------------------------------------------------------------------- by REST


async def test_rest_starts_and_stops_them(
    sim: CarrierSim, twilio: Client, customer: Customer
) -> None:
    sim.add_number(OURS)
    sim.add_callee(CALLEE, Record())
    document = "<Response><Pause length='30'/></Response>"
    call = await asyncio.to_thread(
        lambda: twilio.calls.create(to=CALLEE, from_=OURS, twiml=document)
    )
    streams = twilio.calls(call.sid).streams
    await sim.wait_for(sim.calls[call.sid], "in-progress")
    url = customer.stream_url
    made = await asyncio.to_thread(
        lambda: streams.create(
            url=url, name="side", track="inbound_track", parameter1_name="a", parameter1_value="b"
        )
    )
    stream = await sim.wait_for_stream(sim.calls[call.sid])
    assert (made.sid, made.name, made.status) == (stream.sid, "side", "in-progress")
    assert stream.verb.parameters == {"a": "b"}
    by_name = await asyncio.to_thread(
        lambda: twilio.calls(call.sid).streams("side").update("stopped")
    )
    assert (by_name.sid, by_name.status, stream.ended_by) == (stream.sid, "stopped", "stop")
    assert await refused(lambda: streams("side").update("stopped")) == (404, 20404)
    sim.exchange.beliefs.contradict(["streams-stop-by-name"])
    other = await asyncio.to_thread(
        lambda: streams.create(url=url, name="both", track="both_tracks")
    )
    await sim.wait_for_stream(sim.calls[call.sid], 2)
    assert await refused(lambda: streams("both").update("stopped")) == (404, 20404)
    await asyncio.to_thread(lambda: streams(other.sid).update("stopped"))
    assert await refused(lambda: streams.create(url="")) == (400, 20001)
    await asyncio.to_thread(lambda: twilio.calls(call.sid).update(status="completed"))
    assert await refused(lambda: streams.create(url=url)) == (400, 21220)


# ----------------------------------------------------------------------------- keys


@pytest.mark.parametrize(("hears", "heard"), [("both", "19"), ("digits", "9"), ("tones", "1")])
def test_a_far_end_hears_the_kinds_of_key_that_it_knows(hears: str, heard: str) -> None:
    bot = start_bot(parse_bot(f"record,hears={hears}"))  # type: ignore[arg-type]  # one that answers
    bench = Bench()
    call = bench.inbound(bot)
    bench.answer(CONNECT.format('<Play digits="9"/><Pause length="3"/>'))
    call.streams[0].playback.add(bench.now, tones.dtmf("1"))
    bench.run(0.6)
    bench.over(call)
    bench.run(0.6)
    assert bot.digits == heard


def test_an_unknown_kind_of_key_is_refused() -> None:
    with pytest.raises(ValueError, match="hears"):
        parse_bot("record,hears=bells")
