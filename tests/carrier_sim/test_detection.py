"""Who has answered: the sound of far ends, frame by frame, and Twilio's times."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from trunkline.carrier_sim import sounds
from trunkline.carrier_sim.bots import parse_bot
from trunkline.carrier_sim.circuit import Circuit
from trunkline.carrier_sim.detection import Detection, Detector
from trunkline.carrier_sim.far_ends import start_bot
from trunkline.carrier_sim.leg import Detected, Leg
from trunkline.carrier_sim.line.profiles import PROFILES
from trunkline.carrier_sim.mulaw import frames
from trunkline.carrier_sim.sim import CarrierSim

from .server import CALLEE, OURS, Customer

SPEECH = "speech:austen-0870"  # 7 s, with no pause over a second


def decide(sound: str, mode: str = "Enable", **fields: Any) -> tuple[str | None, float]:
    """The answer, and after how many seconds it came."""
    given = fields.pop("given", None)
    detector = Detector(Detection(mode=mode, **fields), given)  # type: ignore[arg-type]  # one of the modes
    for frame in frames(sounds.read(sound)):
        found = detector.hear(frame)
        if found is not None:
            return found, detector.milliseconds / 1000
    return None, detector.milliseconds / 1000


def test_a_short_word_and_silence_are_a_human() -> None:
    found, at = decide("silence:0.5+music:1+silence:3")
    assert found == "human"
    assert 0.5 + 1.0 + 1.2 - 0.2 < at <= 0.5 + 1.0 + 1.2


def test_silence_is_unknown() -> None:
    assert decide("silence:20") == ("unknown", 5.0)
    assert decide("silence:20", silence=2.0) == ("unknown", 2.0)


def test_a_long_greeting_is_a_machine_at_once() -> None:
    found, at = decide(SPEECH)
    assert found == "machine_start" and 2.4 < at < 3.5


def test_the_greetings_end_is_a_beep() -> None:
    greeting = len(sounds.read(SPEECH)) / 8000
    found, at = decide(f"{SPEECH}+silence:0.3+beep:0.4+silence:5", "DetectMessageEnd")
    assert found == "machine_end_beep"
    assert greeting + 0.7 <= at <= greeting + 0.76


def test_the_greetings_end_is_silence() -> None:
    greeting = len(sounds.read(SPEECH)) / 8000
    found, at = decide(f"{SPEECH}+silence:5", "DetectMessageEnd")
    assert found == "machine_end_silence"
    assert at <= greeting + 1.25


def test_a_beep_alone_is_a_machine() -> None:
    assert decide("silence:0.5+beep:0.3+silence:5")[0] == "machine_start"


def test_a_human_is_told_as_soon_when_the_end_is_awaited() -> None:
    assert decide("music:1+silence:3", "DetectMessageEnd")[0] == "human"


def test_a_fax_is_heard_by_its_tone() -> None:
    assert decide("silence:0.5+fax:3") == ("fax", 1.5)


def test_endless_speech_is_unknown_in_the_end() -> None:
    assert decide("music:60", "DetectMessageEnd", timeout=10.0) == ("unknown", 10.0)


def test_a_far_end_that_names_itself_is_believed_at_the_same_moment() -> None:
    _, at = decide(SPEECH)
    assert decide(SPEECH, given="machine_end_other") == ("machine_end_other", at)


@pytest.mark.parametrize("line", ["", *PROFILES])
@pytest.mark.parametrize(
    ("bot", "mode", "answer"),
    [
        ("hand-over:silence:0.3+music:1", "Enable", "human"),
        ("silence", "Enable", "unknown"),
        (f"voicemail:{SPEECH}", "Enable", "machine_start"),
        (f"voicemail:{SPEECH}", "DetectMessageEnd", "machine_end_beep"),
    ],
)
def test_the_answer_is_the_same_on_every_line(
    line: str, bot: str, mode: Literal["Enable", "DetectMessageEnd"], answer: str
) -> None:
    near = Leg("CA1")
    near.detector = Detector(Detection(mode=mode))
    circuit = Circuit(near, start_bot(parse_bot(bot), line, "1"))
    circuit.connect(0.0)
    for n in range(1000):
        circuit.tick(n * 0.02, [])
        if near.detector is None:
            break
    assert [each.answered_by for each in near.instructions if isinstance(each, Detected)] == [
        answer
    ]


async def test_a_call_goes_on_while_it_is_found_out_who_answered(
    sim: CarrierSim, customer: Customer, twilio: Client
) -> None:
    """The callback is signed, and has neither From nor CallStatus; the call hears its TwiML from
    the start."""
    sim.add_number(OURS)
    sim.add_callee(CALLEE, "voicemail:silence:0.2+beep:0.2,beep=0.2,answered_by=machine_end_other")
    customer.pages |= {"/who": "", "/status": ""}
    call = await asyncio.to_thread(
        lambda: twilio.calls.create(
            to=CALLEE,
            from_=OURS,
            twiml='<Response><Play digits="1"/><Pause length="9"/></Response>',
            machine_detection="DetectMessageEnd",
            async_amd="true",
            async_amd_status_callback=customer.base + "/who?d=7",
        )
    )
    found = sim.calls[str(call.sid)]
    await sim.wait_until(lambda: bool(customer.posts))
    ((path, form, headers),) = customer.posts
    assert path == "/who"
    assert form["AnsweredBy"] == found.record.answered_by == "machine_end_other"
    assert sorted(form) == ["AccountSid", "AnsweredBy", "CallSid", "MachineDetectionDuration"]
    assert 600 <= int(form["MachineDetectionDuration"]) <= 660
    assert RequestValidator(sim.auth_token).validate(
        customer.base + "/who?d=7", form, headers["x-twilio-signature"]
    )
    assert found.bot is not None and found.bot.digits == "1"
    shown = await asyncio.to_thread(twilio.calls(found.sid).fetch)
    assert shown.answered_by == "machine_end_other"


async def test_without_async_the_call_waits_for_the_answer(
    sim: CarrierSim, customer: Customer, twilio: Client
) -> None:
    sim.add_number(OURS)
    sim.add_callee(CALLEE, "hand-over:fax:3,hang_up_after=2")
    customer.pages["/voice"] = '<Response><Play digits="1"/></Response>'
    call = await asyncio.to_thread(
        lambda: twilio.calls.create(
            to=CALLEE,
            from_=OURS,
            url=customer.base + "/voice",
            machine_detection="Enable",
        )
    )
    found = sim.calls[str(call.sid)]
    await sim.wait_until(lambda: bool(customer.posts))
    ((_, form, _),) = customer.posts
    assert form["AnsweredBy"] == "fax"
    assert found.record.answered_at is not None
    assert sim.now() - found.record.answered_at >= 0.95


async def test_async_without_a_callback_is_warned_of(sim: CarrierSim, twilio: Client) -> None:
    sim.add_number(OURS)
    sim.add_callee(CALLEE, "silence")
    twiml = "<Response><Hangup/></Response>"
    call = await asyncio.to_thread(
        lambda: twilio.calls.create(
            to=CALLEE, from_=OURS, twiml=twiml, machine_detection="Enable", async_amd="true"
        )
    )
    await sim.wait_for(sim.calls[str(call.sid)])
    assert sim.judge.codes() == [21262]
