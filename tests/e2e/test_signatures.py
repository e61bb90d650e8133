"""Real calls while the carrier signs in every form, and while the account's token is rotated."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from trunkline import Line

from .stack import ALICE, CALLEE, CALLER, Stack, called, until

#: A webhook that was answered 403, and the prior voice_url's host, which is asked then and does not
#: exist; a stream whose url has a user name, where that is refused.
REFUSED, NO_HOST, MALFORMED = 11200, 11210, 31923


@pytest.fixture
def stack() -> Iterator[Stack]:
    """A public URL with all that Twilio may leave out when it signs, and an account with two auth
    tokens. No proxy is in front: the path arrives as Twilio was given it."""
    stack = Stack()
    stack.public_url = f"http://me:pa55@127.0.0.1:{stack.public}/base"
    stack.environment |= {
        "TRUNKLINE_PUBLIC_URL": stack.public_url,
        "TWILIO_AUTH_TOKEN_SECONDARY": "0123456789abcdef" * 2,
    }
    try:
        stack.start_carrier()
        stack.up(gateways=1, codec_workers=1)
        yield stack
    finally:
        stack.close()


async def talk(stack: Stack) -> None:
    """A call each way: voice and status webhooks, redirects and upgrades are all signed."""
    async with called(stack, "silence") as call:
        assert await call.send_audio(bytes(4_800)) == 2_400
        await call.hang_up()
    async with Line(ALICE, allowed_callees=[CALLEE], bus=stack.bus) as line:
        call = await line.place_call(CALLEE, timeout=20.0, attach_stream="a-leg")
        assert await call.send_audio(bytes(4_800)) == 2_400
        await call.hang_up()
    await until(lambda: not stack.live_calls(), "both calls are over")

    def statuses() -> set[str]:
        entries = stack.sim.webhook_log()
        of_the_dial = [e["form"] for e in entries if e["call_sid"] == call.dialled_sid]
        return {form["CallStatus"] for form in of_the_dial if form.get("CallbackSource")}

    # One that others overtake comes last, and is signed as the carrier signs by then.
    await until(lambda: len(statuses()) == 4, "all callbacks of the dial are answered")


async def test_every_form_both_tokens_and_a_rotation(stack: Stack) -> None:
    print("seed", stack.sim.health()["seed"])
    stack.sim.add_callee(CALLEE, "silence")
    await talk(stack)
    stack.sim.promote_token()  # TWILIO_AUTH_TOKEN is void from here on
    await talk(stack)
    # The upgrade's url may have no user name: the next document offers it without.
    stack.provoked.add(MALFORMED)
    stack.sim.contradict("stream-user-info")
    await talk(stack)
    assert [e["code"] for e in stack.sim.errors()].count(MALFORMED) >= 2
    assert all(entry["status"] in (200, 204) for entry in stack.sim.webhook_log())
    stack.check_nothing_left()

    # A shared key: refused, and said by log, status and doctor.
    stack.provoked |= {REFUSED, NO_HOST}
    stack.sim.contradict("the-auth-token-signs")
    async with Line(ALICE, bus=stack.bus) as line:
        with pytest.raises(TimeoutError):
            await line.wait_for_call(0.01)
        await until(lambda: stack.held(ALICE), "the number is armed")
        sid = stack.sim.place_call(CALLER, ALICE)["sid"]
        assert stack.sim.wait_for(sid)["status"] == "failed"
        await until(lambda: stack.status()["gateways"][0].get("refused"), "the gateway has told")
        (gateway,) = stack.status()["gateways"]
        assert set(gateway["refused"]) == {"shared key"}
        doctor = stack.command("doctor").stdout
    assert "because a shared key has signed them (HMAC_SHA256)" in doctor
    assert "takes TWILIO_AUTH_TOKEN_SECONDARY, and answers HTTP 401 to TWILIO_AUTH_TOKEN" in doctor
    assert f"http://me:***@127.0.0.1:{stack.public}/base answers in" in doctor
    said = stack.lines("up")
    assert any("refused POST /twilio/voice" in line and "a shared key" in line for line in said)
    assert not any("pa55" in line for line in [*said, doctor])
    stack.sim.contradict()
    stack.check_nothing_left()
