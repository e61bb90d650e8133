"""Digits on a leg that carries our stream: the one-way stream, the document, and every way that it
can go wrong."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace
from simulation.memory_journal import MemoryJournal

from trunkline.bus import messages as m
from trunkline.bus.errors import CarrierError
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller.rules.book.call import MAY_RETURN_FOR, STREAMS_AN_EPOCH
from trunkline.controller.rules.digits import (
    BACK_WITHIN,
    CLOSED_AFTER,
    LISTENS_WITHIN,
)
from trunkline.controller.twilio import operations

from .fake_carrier import THEIRS, FakeCarrier, FakeTime, ops_for
from .stage import URL, Stage

REFUSED = CarrierError("Twilio could not send the digits", status=400, code=21220, message="no")
NO_ANSWER = CarrierError("Twilio could not send the digits: no answer", status=0)


class Scene:
    """A call that came in, whose stream is up at g1; a second gateway stands by."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.stage.hello("gateway", "g2")
        self.session = self.stage.armed()
        self.call = self.stage.called(self.session)
        self.stage.sent.clear()

    @property
    def state(self) -> str:
        return self.stage.core.book.calls[self.call.call].state

    def press(self, digits: str = "1w#") -> int:
        body = m.SendDigits(session=self.session.session, call=self.call.call, digits=digits)
        return self.stage.ask("a1", body)

    def listen(self, gateway: str = "g2") -> m.StreamAccepted:
        """REST takes the one-way stream, which comes up at ``gateway``."""
        order = self.stage.take(do.StartStream)
        self.stage.feed(ev.StreamAsked(order.call, order.serial, None))
        return self.stage.let_in(order.token, gateway=gateway)

    def told(self, error: CarrierError | None = None, *, unsure: bool = False) -> do.PlayDigits:
        """REST answers the document."""
        order = self.stage.take(do.PlayDigits)
        self.stage.feed(ev.DigitsSent(order.call, order.serial, error, unsure))
        return order

    def stopped(self, ordinal: int = 1, reason: m.StreamEndReason = "stop") -> None:
        witness = self.stage.core.book.calls[self.call.call].witness
        gateway = witness or "g1"
        self.stage.feed(
            m.StreamClosed(call=self.call.call, ordinal=ordinal, reason=reason, gateway=gateway)
        )

    def back(self, token: str | None) -> m.StreamAccepted:
        return self.stage.let_in(token)

    def quiet(self) -> None:
        """Neither the loss of the stream nor an end was told."""
        assert self.stage.events("a1", m.CallReconnecting) == []
        assert self.stage.events("a1", m.CallEnded) == []


def tokens(document: str) -> list[str]:
    return re.findall(r'name="nonce" value="([0-9a-f]{32})"', document)


@pytest.fixture
def scene() -> Scene:
    return Scene()


# ----------------------------------------------------------------------------- the plain row


def test_a_row_of_digits_from_the_one_way_stream_to_the_stream_that_is_back(scene: Scene) -> None:
    stage = scene.stage
    asked = scene.press("1w#")
    start = stage.all_work(do.StartStream)[0]
    assert (start.sid, start.url) == ("CA1", "wss://line.example.com/twilio/stream")
    assert not stage.all_work(do.PlayDigits)  # nothing ends the stream before another listens
    waiting = scene.listen("g2")
    assert (waiting.one_way, waiting.first, waiting.info.call) == (True, False, scene.call.call)
    order = scene.told()
    nonce = tokens(order.twiml)[0]
    assert order.twiml == (
        '<?xml version="1.0" encoding="UTF-8"?><Response><Play digits="1w#"/><Connect>'
        '<Stream url="wss://line.example.com/twilio/stream">'
        f'<Parameter name="nonce" value="{nonce}"/></Stream></Connect><Redirect method="POST">'
        f"{URL}/twilio/voice?c={scene.call.call}#rc=3&amp;rp=all</Redirect></Response>"
    )
    assert order.deadline == pytest.approx(stage.now + BACK_WITHIN + 0.2 + 0.5 + 0.2)
    scene.stopped(1)
    (turn,) = stage.events("g2", m.StreamTurn)
    assert (turn.info.call, turn.info.ordinal, scene.state) == (scene.call.call, 2, "live")
    assert not stage.answered("a1", asked)
    back = scene.back(nonce)
    assert (back.info.ordinal, back.overlaps, back.one_way, back.first) == (3, True, False, False)
    stage.body("a1", asked, m.DigitsPlayed)
    # For a moment both bring the far end's sound; then the one-way stream is closed.
    assert stage.events("g2", m.CloseStream) == []
    stage.pass_time(CLOSED_AFTER + 0.1)
    close = m.CloseStream(call=scene.call.call, one_way=True, ordinal=2)
    assert stage.events("g2", m.CloseStream) == [close]
    scene.quiet()


def test_the_stream_may_be_back_before_the_old_ones_end_is_told(scene: Scene) -> None:
    """The old one's gateway stands still. What was heard meanwhile is not thrown away."""
    stage = scene.stage
    asked = scene.press()
    scene.listen()
    nonce = tokens(scene.told().twiml)[0]
    back = scene.back(nonce)
    (turn,) = stage.events("g2", m.StreamTurn)
    assert (turn.info.ordinal, back.info.ordinal, back.overlaps) == (2, 3, True)
    assert stage.body("a1", asked, m.DigitsPlayed).ordinal == 3
    scene.stopped(1)
    assert scene.state == "live"
    stage.pass_time(CLOSED_AFTER + 0.1)
    close = m.CloseStream(call=scene.call.call, one_way=True, ordinal=2)
    assert stage.events("g2", m.CloseStream) == [close]
    scene.quiet()


def test_an_a_leg_comes_back_by_its_dials_redirect() -> None:
    stage = Stage()
    info = stage.open(allowed_callees=[THEIRS])
    request, _ = stage.dial(info, mode="a-leg")
    document = stage.take(do.Create).order.twiml
    stage.feed(ev.Taken(request, "CA9", "queued"))
    accepted = stage.let_in(tokens(document)[0], "CA9")
    body = m.SendDigits(session=info.session, call=accepted.info.call, digits="5")
    stage.ask("a1", body)
    stage.start(stage.take(do.StartStream).token, "CA9")
    order = stage.take(do.PlayDigits)
    assert order.sid == "CA9" and f"/twilio/voice?d={request}#" in order.twiml


def test_the_recording_and_the_client_hear_when_the_keys_were_pressed(scene: Scene) -> None:
    """They begin when the document takes the stream away, and a later stream is not told again."""
    stage = scene.stage
    stage.pass_time(3.0)
    asked = scene.press("1w#")
    scene.listen("g2")
    nonce = tokens(scene.told().twiml)[0]
    stage.pass_time(0.4)
    scene.stopped(1)
    stage.pass_time(1.5)
    back = scene.back(nonce)
    assert back.keys == m.Keys(digits="1w#", age=pytest.approx(3.4))
    assert stage.body("a1", asked, m.DigitsPlayed).age == back.keys.age
    second = scene.press("2")
    scene.listen("g1")
    nonce = tokens(scene.told().twiml)[0]
    assert not stage.answered("a1", second)
    stage.pass_time(1.0)
    # Nobody has told when the stream before stopped: they ended just now.
    keys = scene.back(nonce).keys
    assert keys == m.Keys(digits="2", age=pytest.approx(5.7))


@pytest.mark.parametrize("digits", ["", "1\n", '1"/>', "١", "a"])
def test_what_is_no_digit_never_reaches_twilio(scene: Scene, digits: str) -> None:
    assert scene.stage.error("a1", scene.press(digits)) == "InvalidRequestError"
    assert scene.stage.work == []


# ----------------------------------------------------------------------------- no one-way stream


@pytest.mark.parametrize("why", ["refused", "never comes"])
def test_without_a_one_way_stream_the_document_starts_one_itself(scene: Scene, why: str) -> None:
    stage = scene.stage
    asked = scene.press("7")
    first = stage.take(do.StartStream)
    if why == "refused":
        stage.feed(ev.StreamAsked(first.call, first.serial, REFUSED))
    else:
        stage.feed(ev.StreamAsked(first.call, first.serial, None))
        stage.pass_time(LISTENS_WITHIN + 0.1)
    document = scene.told().twiml
    listener, nonce = tokens(document)
    assert document.index("<Start><Stream ") < document.index("<Play ") < document.index("<Connect")
    assert 'track="inbound_track"' in document
    # The first one's token is void: a late one-way stream does not come in beside the other.
    assert isinstance(stage.start(first.token), m.StreamRefused)
    scene.stopped(1)
    assert scene.state == "reconnecting"
    waiting = stage.start(listener, gateway="g2")
    assert isinstance(waiting, m.StreamAccepted) and waiting.one_way
    # Its turn is told behind the answer that lets it in.
    kinds = [type(x).__name__ for x in stage.sent["g2"]]
    assert kinds.index("Reply") < kinds.index("StreamTurn") and scene.state == "live"
    assert scene.back(nonce).overlaps
    stage.body("a1", asked, m.DigitsPlayed)
    scene.quiet()


def test_the_digits_go_where_no_one_way_stream_ever_comes(scene: Scene) -> None:
    asked = scene.press("7")
    first = scene.stage.take(do.StartStream)
    scene.stage.feed(ev.StreamAsked(first.call, first.serial, REFUSED))
    _, nonce = tokens(scene.told().twiml)
    scene.stopped(1)
    assert not scene.back(nonce).overlaps
    scene.stage.body("a1", asked, m.DigitsPlayed)
    scene.quiet()


def test_a_one_way_stream_that_is_gone_when_its_turn_comes(scene: Scene) -> None:
    """Its gateway says so; the call waits for its stream as after any loss."""
    asked = scene.press()
    scene.listen()
    nonce = tokens(scene.told().twiml)[0]
    scene.stopped(1)
    scene.stopped(2, "error")
    assert scene.state == "reconnecting"
    assert not scene.back(nonce).overlaps
    scene.stage.body("a1", asked, m.DigitsPlayed)


# ----------------------------------------------------------------------------- REST in trouble


def test_a_refused_document_fails_by_name_and_the_call_goes_on(scene: Scene) -> None:
    asked = scene.press()
    scene.listen()
    nonce = tokens(scene.told(REFUSED).twiml)[0]
    assert scene.stage.error("a1", asked) == "CarrierError"
    close = m.CloseStream(call=scene.call.call, one_way=True)
    assert scene.stage.events("g2", m.CloseStream) == [close]
    assert scene.state == "live" and nonce
    scene.quiet()


def test_a_call_that_was_over_when_the_document_came(scene: Scene) -> None:
    """The far end hung up: a stop, then a refusal. REST says at once that the call is over."""
    asked = scene.press()
    scene.listen()
    scene.stopped(1)
    scene.told(REFUSED)
    assert scene.stage.error("a1", asked) == "CarrierError"
    fetch = scene.stage.take(do.Fetch)
    scene.stage.feed(ev.Fetched(fetch.call, fetch.sid, "completed"))
    (ended,) = scene.stage.events("a1", m.CallEnded)
    assert ended.by_far_end


def test_without_an_answer_the_stream_shows_that_the_digits_were_taken(scene: Scene) -> None:
    asked = scene.press()
    scene.listen()
    nonce = tokens(scene.told(NO_ANSWER, unsure=True).twiml)[0]
    assert not scene.stage.answered("a1", asked)
    scene.stopped(1)
    scene.back(nonce)
    scene.stage.body("a1", asked, m.DigitsPlayed)


def test_an_answer_that_never_comes_fails_in_time_and_a_late_effect_is_survived(
    scene: Scene,
) -> None:
    stage = scene.stage
    asked = scene.press("1")
    scene.listen()
    nonce = tokens(scene.told(NO_ANSWER, unsure=True).twiml)[0]
    stage.pass_time(BACK_WITHIN + 0.3)
    assert stage.error("a1", asked) == "TimedOutError"
    assert "not known" in str(stage.reply("a1", asked).error)
    assert scene.state == "live"
    # Now the document takes effect: the stream stops, and the call is not over.
    scene.stopped(1)
    assert scene.state == "reconnecting"
    assert scene.back(nonce).info.ordinal == 2
    assert stage.events("a1", m.CallEnded) == []
    # A minute later no document can come any more: a stop is the end.
    stage.pass_time(MAY_RETURN_FOR + 0.2)
    scene.stopped(2)
    assert len(stage.events("a1", m.CallEnded)) == 1


def test_10_seconds_without_the_stream_beside_the_digits_own_time(scene: Scene) -> None:
    stage = scene.stage
    asked = scene.press("1WW2")
    scene.listen()
    scene.told()
    scene.stopped(1)
    stage.pass_time(BACK_WITHIN + 2.2)
    assert not stage.answered("a1", asked)
    stage.pass_time(0.3)
    assert stage.error("a1", asked) == "TimedOutError"
    # The far end is still heard. A call that takes no sound is settled as one without a stream.
    assert scene.state == "live"
    stage.pass_time(2.2)
    assert stage.take(do.Fetch).sid == "CA1"
    stage.pass_time(13.0)
    assert stage.take(do.End).sids == ("CA1",)


FATES: list[tuple[tuple[str, ...], bool, bool, int]] = [
    (("ok",), True, False, 1),
    (("429", "refused", "ok"), True, False, 3),  # never processed: asked again
    (("500_after",), False, True, 1),  # perhaps processed: not again
    (("timeout_before",), False, True, 1),
    (("404",), False, False, 1),
    (("429",) * 20, False, False, 4),  # until there is no time for more
]


@pytest.mark.parametrize(("kinds", "taken", "unsure", "tries"), FATES)
async def test_the_document_is_asked_for_again_only_where_twilio_cannot_have_taken_it(
    kinds: tuple[str, ...], taken: bool, unsure: bool, tries: int
) -> None:
    time = FakeTime()
    carrier = FakeCarrier(time)
    carrier.plan("instruct", *kinds)
    ops = ops_for(time, carrier, MemoryJournal())
    order = do.PlayDigits("c1", 7, "CA1", "<Response/>", time.now + 10.0)
    told = await operations.play_digits(ops, order)
    assert (told.call, told.serial, told.error is None, told.unsure) == ("c1", 7, taken, unsure)
    assert carrier.log == [("instruct", ("CA1", "<Response/>"))] * tries


@pytest.mark.parametrize("kind", ["ok", "429", "500_after"])
async def test_the_one_way_stream_is_asked_for_once(kind: str) -> None:
    time = FakeTime()
    carrier = FakeCarrier(time)
    carrier.plan("stream", kind)
    ops = ops_for(time, carrier, MemoryJournal())
    asked = await operations.start_stream(ops, do.StartStream("c1", 7, "CA1", "wss://h/s", "t"))
    assert (asked.call, asked.serial, asked.error is None) == ("c1", 7, kind == "ok")
    assert carrier.log == [("stream", ("CA1", "wss://h/s", "t"))]


# ----------------------------------------------------------------------------- the redirect


def test_a_stream_that_was_refused_comes_back_by_the_redirect(scene: Scene) -> None:
    """The document's own stream could not connect; Twilio went on to the redirect."""
    asked = scene.press()
    scene.listen()
    scene.told()
    scene.stopped(1)
    answer = scene.stage.webhook(c=scene.call.call)
    assert answer.kind == "stream" and scene.state == "live"
    assert scene.back(answer.token).overlaps
    scene.stage.body("a1", asked, m.DigitsPlayed)
    scene.quiet()


def test_a_redirect_of_the_document_before_is_no_sign_that_the_digits_were_played(
    scene: Scene,
) -> None:
    """The stream breaks by itself while the document is on its way."""
    stage = scene.stage
    asked = scene.press()
    scene.listen("g2")
    scene.stopped(1, "error")
    answer = stage.webhook(c=scene.call.call)
    assert scene.back(answer.token).overlaps
    assert not stage.answered("a1", asked)
    # The document takes effect, and ends that stream too.
    nonce = tokens(stage.all_work(do.PlayDigits)[0].twiml)[0]
    assert isinstance(stage.start(nonce), m.StreamRefused)  # the webhook made a newer token
    again = stage.webhook(c=scene.call.call)
    scene.told()
    scene.back(again.token)
    stage.body("a1", asked, m.DigitsPlayed)


# ----------------------------------------------------------------------------- one after the other


def test_the_next_row_waits_for_the_one_before(scene: Scene) -> None:
    stage = scene.stage
    first, second = scene.press("1"), scene.press("2")
    scene.listen()
    assert not stage.all_work(do.StartStream)
    nonce = tokens(scene.told().twiml)[0]
    scene.stopped(1)
    scene.back(nonce)
    stage.body("a1", first, m.DigitsPlayed)
    assert not stage.answered("a1", second)
    scene.listen()
    order = scene.told()
    assert '<Play digits="2"/>' in order.twiml
    scene.stopped(3)
    assert scene.back(tokens(order.twiml)[0]).info.ordinal == 5
    stage.body("a1", second, m.DigitsPlayed)


def test_digits_wait_for_a_stream_that_is_away(scene: Scene) -> None:
    stage = scene.stage
    scene.stopped(1, "error")
    early, late = scene.press("1"), None
    assert not stage.all_work(do.StartStream)
    scene.back(stage.webhook(c=scene.call.call).token)
    assert len(stage.all_work(do.StartStream)) == 1
    scene.listen()
    scene.told(REFUSED)
    assert stage.error("a1", early) == "CarrierError"
    scene.stage.feed(m.StreamClosed(call=scene.call.call, ordinal=2, reason="error", gateway="g1"))
    late = scene.press("2")
    stage.pass_time(BACK_WITHIN + 0.2)
    assert stage.error("a1", late) == "TimedOutError"


@pytest.mark.parametrize("moment", ["opening", "asking", "playing", "one-way", "waiting"])
def test_a_hang_up_wins_at_any_moment(moment: str) -> None:
    scene = Scene()
    stage = scene.stage
    asked = scene.press()
    later = scene.press("2") if moment == "waiting" else None
    if moment in ("asking", "playing", "one-way"):
        scene.listen()
    if moment in ("playing", "one-way"):
        scene.told()
    if moment == "one-way":
        scene.stopped(1)
    hang_up = m.HangUp(session=scene.session.session, call=scene.call.call)
    over = stage.ask("a1", hang_up)
    assert stage.error("a1", asked) == "WrongModeError"
    if later is not None:
        assert stage.error("a1", later) == "WrongModeError"
    stage.hung_up()
    stage.body("a1", over, m.Done)
    scene.stopped(2 if moment == "one-way" else 1)
    assert [e.reason for e in stage.events("a1", m.CallEnded)] == ["hang_up"]


@pytest.mark.parametrize("moment", ["opening", "one-way"])
def test_the_far_end_hangs_up(moment: str) -> None:
    """While nothing can have moved the stream, a stop is the end; a one-way stream's always is."""
    scene = Scene()
    asked = scene.press()
    if moment == "one-way":
        scene.listen()
        scene.told()
        scene.stopped(1)
        scene.stopped(2)
    else:
        scene.stopped(1)
    assert scene.stage.error("a1", asked) == "WrongModeError"
    (ended,) = scene.stage.events("a1", m.CallEnded)
    assert (ended.reason, ended.by_far_end) == ("stop", True)


def test_the_far_end_hangs_up_where_nobody_listens(scene: Scene) -> None:
    """No one-way stream tells of it: REST does, 2 s later."""
    asked = scene.press()
    first = scene.stage.take(do.StartStream)
    scene.stage.feed(ev.StreamAsked(first.call, first.serial, REFUSED))
    scene.told()
    scene.stopped(1)
    scene.stage.pass_time(2.2)
    fetch = scene.stage.take(do.Fetch)
    scene.stage.feed(ev.Fetched(fetch.call, fetch.sid, "completed"))
    assert scene.stage.error("a1", asked) == "WrongModeError"
    assert [e.reason for e in scene.stage.events("a1", m.CallEnded)] == ["stop"]


def test_the_one_way_streams_gateway_dies(scene: Scene) -> None:
    asked = scene.press()
    scene.listen("g2")
    nonce = tokens(scene.told().twiml)[0]
    scene.stage.beating.remove("g2")
    scene.stopped(1)
    assert scene.state == "live"
    scene.stage.pass_time(5.0)
    assert scene.state == "reconnecting"
    scene.back(nonce)
    scene.stage.body("a1", asked, m.DigitsPlayed)


# ----------------------------------------------------------------------------- after a restart


def restarted(scene: Scene, streams: list[m.StreamInfo], *, digits: bool) -> Stage:
    """A new controller, to which first the gateways and then the adapter announce themselves."""
    stage = Stage(epoch=2, peers=False)
    stage.hello("codec_worker", "w1", endpoint="ipc:///w1")
    stage.hello("gateway", "g1", streams=[s for s in streams if not s.one_way])
    stage.hello("gateway", "g2", streams=[s for s in streams if s.one_way])
    session = replace(scene.session, mode="answer", calls=[replace(scene.call, digits=digits)])
    stage.hello("adapter", "a1", sessions=[session])
    return stage


def stream_of(scene: Scene, ordinal: int, *, one_way: bool = False) -> m.StreamInfo:
    info = replace(scene.call, ordinal=ordinal)
    generation = m.first_generation(ordinal)
    return m.StreamInfo(
        info=info, stream_sid="MZ", generation=generation, active="w1", one_way=one_way
    )


def test_digits_are_not_repeated_by_the_next_controller(scene: Scene) -> None:
    scene.press()
    stage = restarted(scene, [stream_of(scene, 1)], digits=True)
    body = m.SendDigits(session=scene.session.session, call=scene.call.call, digits="1w#")
    assert stage.error("a1", stage.ask("a1", body)) == "StackUnavailableError"
    assert not stage.all_work(do.StartStream) and not stage.all_work(do.PlayDigits)
    # The document may have reached Twilio: a stop is not the end, and the redirect brings it back.
    stage.feed(m.StreamClosed(call=scene.call.call, ordinal=1, reason="stop", gateway="g1"))
    assert stage.events("a1", m.CallEnded) == []
    answer = stage.webhook(c=scene.call.call)
    assert isinstance(stage.start(answer.token), m.StreamAccepted)
    # The next digits go as ever.
    stage.ask("a1", body)
    assert stage.all_work(do.StartStream)


def test_a_client_that_only_reconnected_is_answered_when_the_row_is_done(scene: Scene) -> None:
    stage = scene.stage
    asked = scene.press()
    scene.listen()
    nonce = tokens(scene.told().twiml)[0]
    session = replace(scene.session, mode="answer", calls=[replace(scene.call, digits=True)])
    stage.hello("adapter", "a1", sessions=[session])
    scene.stopped(1)
    scene.back(nonce)
    stage.body("a1", asked, m.DigitsPlayed)
    scene.press("2")
    assert stage.all_work(do.StartStream)


def test_a_one_way_stream_is_known_again(scene: Scene) -> None:
    stage = restarted(scene, [stream_of(scene, 2, one_way=True)], digits=True)
    call = stage.core.book.calls[scene.call.call]
    assert (call.state, call.one_way, call.gateway) == ("live", True, "g2")
    accepted = stage.let_in(stage.webhook(c=scene.call.call).token)
    assert (accepted.info.ordinal, accepted.overlaps) == (2 * STREAMS_AN_EPOCH, True)


def test_a_stop_before_the_session_is_back_is_not_taken_for_the_end(scene: Scene) -> None:
    """Digits may be on their way, of which only the client can tell."""
    stage = Stage(epoch=2, peers=False)
    stage.hello("codec_worker", "w1", endpoint="ipc:///w1")
    stage.hello("gateway", "g1", streams=[stream_of(scene, 1)])
    stage.feed(m.StreamClosed(call=scene.call.call, ordinal=1, reason="stop", gateway="g1"))
    assert stage.core.book.calls[scene.call.call].state == "reconnecting"
    stage.pass_time(2.2)
    fetch = stage.take(do.Fetch)
    stage.feed(ev.Fetched(fetch.call, fetch.sid, "completed"))
    assert stage.core.book.calls[scene.call.call].state == "ended"
