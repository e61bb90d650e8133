"""The real `twilio` package against the carrier's REST."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from twilio.base.exceptions import TwilioException
from twilio.rest import Client

from trunkline.carrier_sim.bots import Silence
from trunkline.carrier_sim.sim import CarrierSim

from .server import CALLEE, OURS, refused, twilio_client

T = TypeVar("T")

TWIML = "<Response><Pause length='30'/></Response>"


async def do(call: Callable[[], T]) -> T:
    return await asyncio.to_thread(call)


@pytest.fixture(autouse=True)
def account(sim: CarrierSim) -> None:
    sim.add_number(OURS, voice_url="https://old.example/voice?pw=s", voice_method="GET")
    sim.add_number("+442071838750")
    sim.add_callee(CALLEE, Silence())


async def test_wrong_credentials(sim: CarrierSim) -> None:
    with twilio_client(sim, "wrong") as client:
        assert await refused(lambda: client.calls("CA1").fetch()) == (401, 20003)
        # The package's lists raise the base class, without status and code.
        with pytest.raises(TwilioException, match="20003"):
            await do(client.incoming_phone_numbers.list)


async def test_the_account(sim: CarrierSim, twilio: Client) -> None:
    account = await do(lambda: twilio.api.accounts(sim.account_sid).fetch())
    assert (account.sid, account.status) == (sim.account_sid, "active")


async def test_a_number_is_found_by_its_phone_number(sim: CarrierSim, twilio: Client) -> None:
    (found,) = await do(lambda: twilio.incoming_phone_numbers.list(phone_number=OURS, limit=1))
    assert found.sid == sim.numbers[OURS].sid
    assert found.voice_url == "https://old.example/voice?pw=s"
    assert not found.voice_application_sid and found.trunk_sid is None
    assert found.date_created is not None
    assert await do(lambda: twilio.incoming_phone_numbers.list(phone_number="+19995550000")) == []


@pytest.mark.parametrize(("form", "shown"), [("empty", ""), ("null", None)])
async def test_how_unset_fields_of_a_number_are_shown(form: str, shown: str | None) -> None:
    async with CarrierSim(habits={"unset-fields": form}) as sim:
        sim.add_number(OURS, voice_url="https://old.example/voice")
        with twilio_client(sim, sim.auth_token) as client:
            number = client.incoming_phone_numbers(sim.numbers[OURS].sid)
            read = await do(number.fetch)
            written = await do(lambda: number.update(voice_url=""))
    assert read.voice_url == "https://old.example/voice" and written.voice_url == shown
    for found in (read, written):
        assert found.voice_fallback_url == found.voice_application_sid == shown
        assert found.trunk_sid is None and found.status_callback == ""


async def test_pages(sim: CarrierSim, twilio: Client) -> None:
    for n in range(7):
        sim.add_number(f"+1999555000{n}")
    rows = await do(lambda: twilio.incoming_phone_numbers.list(page_size=2))
    assert [row.phone_number for row in rows] == list(sim.numbers)
    assert len(sim.rest_log) == 5
    some = await do(lambda: twilio.incoming_phone_numbers.list(phone_number="+1999", page_size=3))
    assert len(some) == 7


async def test_all_voice_fields_are_written_and_kept(sim: CarrierSim, twilio: Client) -> None:
    context = twilio.incoming_phone_numbers(sim.numbers[OURS].sid)
    fields = {
        "voice_url": "https://new.example/v?a=1&b=%20#rc=3&rp=all",
        "voice_method": "POST",
        "voice_fallback_url": "https://old.example/voice",
        "voice_fallback_method": "GET",
        "voice_receive_mode": "fax",
        "status_callback": "https://new.example/s",
        "status_callback_method": "GET",
        "friendly_name": "ours",
    }
    await do(lambda: context.update(**fields))
    number = await do(context.fetch)
    assert {name: getattr(number, name) for name in fields} == fields
    (write,) = sim.number_writes
    assert write.number == OURS and write.sent["VoiceUrl"] == fields["voice_url"]
    assert write.before["voice_url"] == "https://old.example/voice?pw=s"
    assert write.after["voice_url"] == fields["voice_url"]
    await do(lambda: context.update(voice_url=""))
    assert not (await do(context.fetch)).voice_url


async def test_an_app_and_a_trunk_delete_each_other(sim: CarrierSim, twilio: Client) -> None:
    context = twilio.incoming_phone_numbers(sim.numbers[OURS].sid)
    app, trunk = "AP" + "1" * 32, "TK" + "2" * 32
    number = await do(lambda: context.update(voice_application_sid=app))
    assert routes(number) == (app, None)
    number = await do(lambda: context.update(trunk_sid=trunk))
    assert routes(number) == (None, trunk)
    number = await do(lambda: context.update(voice_application_sid=app))
    assert routes(number) == (app, None)
    number = await do(lambda: context.update(voice_application_sid=""))
    assert routes(number) == (None, None)


def routes(number: Any) -> tuple[str | None, str | None]:
    """Its application and its trunk; None for one that is not set."""
    return number.voice_application_sid or None, number.trunk_sid


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"voice_url": "nonsense"}, 21402),
        ({"voice_url": "ftp://h/x"}, 21402),
        ({"voice_url": "https://under_score.example/"}, 21402),
        ({"voice_url": "https://h/a b"}, 21402),
        ({"voice_url": "https://h/" + "x" * 2100}, 21402),
        ({"voice_fallback_url": "https:///x"}, 21402),
        ({"voice_method": "PUT"}, 21403),
        ({"voice_application_sid": "XX1"}, 20001),
        ({"trunk_sid": "XX1"}, 20001),
    ],
)
async def test_what_a_number_cannot_be(
    sim: CarrierSim, twilio: Client, fields: dict[str, str], code: int
) -> None:
    context = twilio.incoming_phone_numbers(sim.numbers[OURS].sid)
    assert await refused(lambda: context.update(**fields)) == (400, code)
    assert sim.number_writes == []


@pytest.mark.parametrize("host", ["line.example.com", "127.0.0.1", "[::1]", "[2001:DB8::1]"])
async def test_a_host_may_be_a_name_or_an_address(
    sim: CarrierSim, twilio: Client, host: str
) -> None:
    number = sim.add_number(OURS)
    url = f"https://{host}:8443/voice"
    row = await asyncio.to_thread(twilio.incoming_phone_numbers(number.sid).update, voice_url=url)
    assert row.voice_url == url


async def test_what_does_not_exist(sim: CarrierSim, twilio: Client) -> None:
    nobody = "PN" + "0" * 32
    assert await refused(lambda: twilio.incoming_phone_numbers(nobody).fetch()) == (404, 20404)
    assert await refused(lambda: twilio.calls("CA" + "0" * 32).fetch()) == (404, 20404)
    assert await refused(lambda: twilio.queues("QU1").fetch()) == (404, 20404)


async def test_a_call_from_beginning_to_end(sim: CarrierSim, twilio: Client) -> None:
    call = await do(lambda: twilio.calls.create(to=CALLEE, from_=OURS, twiml=TWIML, time_limit=60))
    assert (call.status, call.direction, call.queue_time) == ("queued", "outbound-api", "0")
    await sim.wait_for(sim.calls[call.sid], "in-progress")
    again = await do(lambda: twilio.calls(call.sid).fetch())
    assert again.status == "in-progress" and again.start_time is not None
    assert (again.to, again._from, again.duration) == (CALLEE, OURS, None)
    ended = await do(lambda: twilio.calls(call.sid).update(status="completed"))
    assert ended.status == "completed" and ended.duration == "0"
    await do(lambda: twilio.calls(call.sid).update(status="completed"))
    late = await refused(lambda: twilio.calls(call.sid).update(twiml=TWIML))
    assert late == (400, 21220)


async def test_twiml_of_a_live_call_is_replaced(sim: CarrierSim, twilio: Client) -> None:
    call = await do(lambda: twilio.calls.create(to=CALLEE, from_=OURS, twiml=TWIML))
    handle = sim.calls[call.sid]
    await sim.wait_for(handle, "in-progress")
    twiml = '<Response><Play digits="12"/><Pause length="9"/></Response>'
    await do(lambda: twilio.calls(call.sid).update(twiml=twiml))
    await sim.wait_until(lambda: handle.bot is not None and handle.bot.digits == "12")
    cancel = await refused(lambda: twilio.calls(call.sid).update(status="canceled"))
    assert cancel == (400, 21220)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"to": "junk"}, 21211),
        ({"to": "+0123"}, 21211),
        ({"to": "+1415555777٣"}, 21211),
        ({"from_": "+14155550009"}, 21210),
        ({"from_": "me"}, 21212),
        ({"twiml": "<Response>" + "x" * 4000 + "</Response>"}, 32018),
        ({"twiml": None}, 21205),
        ({"twiml": None, "url": "nonsense"}, 21205),
        ({"timeout": 601}, 21208),
        ({"time_limit": 90000}, 20001),
        ({"status_callback": "x"}, 21205),
        ({"status_callback_event": ["answred"]}, 21626),
        ({"send_digits": "1x"}, 21206),
        ({"machine_detection": "Yes"}, 21234),
        ({"machine_detection": "Enable", "machine_detection_timeout": 2}, 21234),
        ({"machine_detection": "Enable", "machine_detection_timeout": 60}, 21234),
        ({"machine_detection": "Enable", "machine_detection_silence_timeout": 1999}, 21234),
        ({"machine_detection": "Enable", "async_amd_status_callback": "x"}, 21205),
    ],
)
async def test_calls_that_are_refused(
    sim: CarrierSim, twilio: Client, changes: dict[str, Any], code: int
) -> None:
    fields = {"to": CALLEE, "from_": OURS, "twiml": TWIML} | changes
    fields = {name: value for name, value in fields.items() if value is not None}
    assert await refused(lambda: twilio.calls.create(**fields)) == (400, code)
    assert sim.calls == {}


async def test_a_verified_caller_id_may_call(sim: CarrierSim, twilio: Client) -> None:
    sim.add_caller_id("+14155550009")
    call = await do(lambda: twilio.calls.create(to=CALLEE, from_="+14155550009", twiml=TWIML))
    assert call.sid in sim.calls


async def test_calls_are_listed_by_filters(sim: CarrierSim, twilio: Client) -> None:
    one = await do(lambda: twilio.calls.create(to=CALLEE, from_=OURS, twiml=TWIML))
    two = await do(lambda: twilio.calls.create(to="+14155558888", from_=OURS, twiml=TWIML))
    await sim.wait_for(sim.calls[one.sid], "in-progress")
    await sim.wait_for(sim.calls[two.sid], "failed")
    now = datetime.now(UTC)

    async def sids(**filters: Any) -> list[str | None]:
        return [c.sid for c in await do(lambda: twilio.calls.list(**filters))]

    assert await sids() == [two.sid, one.sid]
    assert await sids(to=CALLEE) == [one.sid]
    assert await sids(status="failed", from_=OURS) == [two.sid]
    assert await sids(start_time_after=now - timedelta(minutes=1)) == [two.sid, one.sid]
    assert await sids(start_time_before=now - timedelta(minutes=1)) == []
    assert await sids(start_time=now) in ([two.sid, one.sid], [])


async def test_the_log_has_what_was_asked(sim: CarrierSim, twilio: Client) -> None:
    await do(lambda: twilio.calls.create(to=CALLEE, from_=OURS, twiml=TWIML))
    (entry,) = sim.rest_log
    assert (entry.method, entry.status, entry.form["Twiml"]) == ("POST", 201, TWIML)
