"""Listening to a call of somebody else: its stream is asked for, comes, goes, comes again, and is
stopped by REST whoever dies. The call itself is never hung up."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from simulation.memory_journal import MemoryJournal

from trunkline.bus import messages as m
from trunkline.bus.errors import CarrierError
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller import status
from trunkline.controller.journal.orphans import Orphans
from trunkline.controller.journal.rows import ListeningRow
from trunkline.controller.journal.store import Journal, peek
from trunkline.controller.restore_command import RestoreRun
from trunkline.controller.rules.book.peers import GATEWAY_LOST_AFTER
from trunkline.controller.rules.book.tokens import digest
from trunkline.controller.rules.calls import NO_STREAM_LIMIT
from trunkline.controller.rules.listening import FOUND_WITHIN, MOST_STREAMS, UP_WITHIN
from trunkline.controller.twilio import operations

from .fake_carrier import FakeCarrier, FakeTime, ops_for
from .machine import ACCOUNT, Machine, stack_id
from .stage import Stage, again

SID = "CA" + "7" * 32
GONE = CarrierError("not found", status=404, code=20404, message="not found")
DOWN = CarrierError("no answer", status=0, code=0, message="no answer")


class Scene:
    """A session that listens, or wants to."""

    def __init__(self, stage: Stage | None = None, info: m.SessionInfo | None = None) -> None:
        self.stage = stage or Stage()
        self.info = info or self.stage.open()
        self.call = secrets.token_hex(16)

    def listen(self, **other: str) -> int:
        body = m.Listen(session=self.info.session, call=self.call, sid=SID, theirs="outbound")
        return self.stage.ask("a1", replace(body, **other))

    def opened(self, error: CarrierError | None = None) -> do.OpenListening:
        """What REST is asked for, and its answer."""
        order = self.stage.take(do.OpenListening)
        self.stage.feed(ev.ListeningAsked(order.row.call, order.row.name, error))
        return order

    def up(self, gateway: str = "g1") -> m.CallInfo:
        """A stream that REST was asked for comes up."""
        return self.stage.let_in(self.opened().token, SID, gateway).info

    def heard(self) -> m.CallInfo:
        """From the beginning until the stream is up."""
        asked = self.listen()
        info = self.up()
        told = self.stage.body("a1", asked, m.Listening).info
        assert replace(told, test=info.test) == info
        return info

    @property
    def state(self) -> str:
        return self.stage.core.book.calls[self.call].state

    def stopped(self) -> do.StopListening:
        """REST stops the stream, and its gateway says that it is over."""
        stop = self.stage.take(do.StopListening)
        self.stage.feed(ev.EndTaken(stop.call, (stop.sid,)))
        self.closed("stop")
        return stop

    def closed(self, reason: m.StreamEndReason, ordinal: int = 1, gateway: str = "g1") -> None:
        self.stage.feed(
            m.StreamClosed(call=self.call, ordinal=ordinal, reason=reason, gateway=gateway)
        )

    def nothing_left(self) -> None:
        """The journal's row is closed, and no leg was hung up."""
        assert self.stage.take(do.CloseListening).call == self.call
        assert not self.stage.all_work(do.End)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_call_is_heard_once_its_stream_is_up(scene: Scene) -> None:
    asked = scene.listen()
    order = scene.opened()
    assert not scene.stage.answered("a1", asked)
    assert (order.row.sid, order.row.theirs, order.former) == (SID, "outbound", "")
    assert order.url == "wss://line.example.com/twilio/stream" and order.token not in repr(order)
    accepted = scene.stage.let_in(order.token, SID)
    assert (accepted.first, accepted.one_way, accepted.overlaps) == (True, False, False)
    info = scene.stage.body("a1", asked, m.Listening).info
    assert info == accepted.info and (info.theirs, info.sid) == ("outbound", SID)
    assert scene.stage.events("a1", m.CallStarted) == []
    assert scene.stage.core.book.counts["calls listened to"] == 1


def test_the_same_listening_asked_again_is_one(scene: Scene) -> None:
    first, second = scene.listen(), scene.listen()
    info = scene.up()
    third = scene.listen()
    for asked in (first, second, third):
        assert scene.stage.body("a1", asked, m.Listening).info == info
    assert not scene.stage.all_work(do.OpenListening)
    other = scene.listen(sid="CA" + "8" * 32)
    assert scene.stage.error("a1", other) == "InvalidRequestError"


def test_a_token_lets_in_no_stream_of_another_call(scene: Scene) -> None:
    scene.listen()
    token = scene.opened().token
    refused = scene.stage.start(token, "CA" + "8" * 32)
    assert isinstance(refused, m.StreamRefused)
    assert scene.stage.let_in(token, SID).first
    assert isinstance(scene.stage.start(token, SID), m.StreamRefused), "it is used up"


@pytest.mark.parametrize(("error", "text"), [(GONE, f"there is no call {SID}"), (DOWN, "answer")])
def test_where_rest_opens_no_stream_whoever_asked_hears_why(
    scene: Scene, error: CarrierError, text: str
) -> None:
    asked = scene.listen()
    scene.opened(error)
    reply = scene.stage.reply("a1", asked)
    assert reply.error is not None and reply.error.kind == "CarrierError"
    assert text in reply.error.text
    # It may have been opened all the same.
    stop = scene.stage.take(do.StopListening)
    scene.stage.feed(ev.EndTaken(stop.call, (stop.sid,)))
    assert scene.state == "ended"
    scene.nothing_left()


def test_a_stream_that_never_comes_fails_in_time(scene: Scene) -> None:
    asked = scene.listen()
    names = {scene.opened().row.name}
    scene.stage.pass_time(UP_WITHIN + 0.2)
    order = scene.opened()
    assert order.former in names and order.row.name not in names
    scene.stage.pass_time(NO_STREAM_LIMIT - UP_WITHIN)
    assert scene.stage.error("a1", asked) == "TimedOutError"
    assert scene.stage.take(do.StopListening).name == order.row.name
    assert not scene.stage.all_work(do.End)


def test_a_call_that_is_over_before_its_stream_came(scene: Scene) -> None:
    asked = scene.listen()
    scene.opened()
    scene.stage.pass_time(2.2)
    assert scene.stage.looked("completed")
    assert scene.stage.error("a1", asked) == "WrongModeError"
    scene.nothing_left()


def test_the_far_ends_hang_up_ends_the_listening(scene: Scene) -> None:
    scene.heard()
    scene.closed("stop")
    (ended,) = scene.stage.events("a1", m.CallEnded)
    assert (ended.call, ended.reason) == (scene.call, "stop")
    assert not scene.stage.all_work(do.StopListening)
    scene.nothing_left()


@pytest.mark.parametrize("how", ["hang-up", "session closed", "client lost", "stack ends"])
def test_to_end_it_stops_the_stream_and_not_the_call(scene: Scene, how: str) -> None:
    scene.heard()
    stage = scene.stage
    asked = None
    if how == "hang-up":
        asked = stage.ask("a1", m.HangUp(session=scene.info.session, call=scene.call))
    elif how == "session closed":
        asked = stage.ask("a1", m.CloseSession(session=scene.info.session))
    elif how == "client lost":
        stage.beating.remove("a1")
        stage.pass_time(9.5)
    else:
        stage.feed(ev.Shutdown())
        assert stage.core.book.busy
    if asked is not None:
        assert not stage.answered("a1", asked)
    stop = scene.stopped()
    assert (stop.sid, stop.name) == (SID, scene.stage.core.book.calls[scene.call].stream_name)
    if asked is not None:
        assert stage.answered("a1", asked)
    scene.nothing_left()
    assert not stage.core.book.busy


def test_a_stream_that_stays_though_rest_has_stopped_it_is_closed_by_us(scene: Scene) -> None:
    scene.heard()
    scene.stage.ask("a1", m.HangUp(session=scene.info.session, call=scene.call))
    stop = scene.stage.take(do.StopListening)
    scene.stage.feed(ev.EndTaken(stop.call, (stop.sid,)))
    scene.stage.pass_time(2.0)
    assert scene.stage.events("g1", m.CloseStream)[0] == m.CloseStream(call=scene.call)
    assert scene.state == "ended"


# ----------------------------------------------------------------------------- a stream that breaks


def test_a_stream_that_breaks_is_asked_for_again(scene: Scene) -> None:
    first = scene.heard()
    scene.stage.hello("gateway", "g2")
    scene.closed("error")
    (gone,) = scene.stage.events("a1", m.CallReconnecting)
    assert (gone.call, gone.ordinal) == (scene.call, first.ordinal)
    scene.stage.pass_time(0.1)
    order = scene.stage.all_work(do.OpenListening)[0]
    assert order.former and order.former != order.row.name
    info = scene.up("g2")
    assert (info.ordinal, info.secret) == (first.ordinal + 1, first.secret)
    assert scene.stage.events("a1", m.CallEnded) == []


def test_the_streams_of_a_gateway_that_is_gone_are_asked_for_at_another(scene: Scene) -> None:
    scene.heard()
    scene.stage.hello("gateway", "g2")
    scene.stage.beating.remove("g1")
    scene.stage.pass_time(GATEWAY_LOST_AFTER + 0.3)
    assert scene.up("g2").ordinal == 2


def test_a_call_that_ended_while_its_stream_was_away(scene: Scene) -> None:
    scene.heard()
    scene.closed("error")
    scene.stage.pass_time(0.1)
    scene.opened(GONE)
    assert scene.stage.looked("completed")
    (ended,) = scene.stage.events("a1", m.CallEnded)
    assert ended.reason == "error"
    scene.nothing_left()


def test_a_stream_that_breaks_each_time_is_not_asked_for_without_end(scene: Scene) -> None:
    scene.heard()
    for ordinal in range(1, MOST_STREAMS):
        scene.closed("too_fast", ordinal)
        scene.stage.pass_time(0.5)
        assert scene.up().ordinal == ordinal + 1
    scene.closed("too_fast", MOST_STREAMS)
    scene.stage.pass_time(NO_STREAM_LIMIT + 0.2)
    assert not scene.stage.all_work(do.OpenListening)
    stop = scene.stage.take(do.StopListening)
    scene.stage.feed(ev.EndTaken(stop.call, (stop.sid,)))
    (ended,) = scene.stage.events("a1", m.CallEnded)
    assert ended.reason == "error"


def test_a_worker_that_leaves_gives_it_to_another(scene: Scene) -> None:
    info = scene.heard()
    assert info.placement is not None
    scene.stage.feed(m.Goodbye(peer=info.placement.primary.id))
    scene.stage.hello("codec_worker", "w3", endpoint="ipc:///w3")
    scene.stage.pass_time(3.5)
    assert [x.call for x in scene.stage.events("g1", m.CallPlaced)][-1] == scene.call
    assert [x.call for x in scene.stage.events("a1", m.CallPlaced)][-1] == scene.call


# ----------------------------------------------------------------------------- beside calls of ours


def test_a_line_that_listens_still_answers(scene: Scene) -> None:
    scene.heard()
    scene.stage.arm(scene.info)
    assert scene.stage.called(scene.info, "CA5").sid == "CA5"


def test_webhooks_of_a_call_that_is_listened_to_are_not_about_the_listening(scene: Scene) -> None:
    scene.heard()
    assert scene.stage.webhook(SID).kind == "busy"
    assert scene.state == "live"
    assert scene.stage.events("a1", m.CallReconnecting) == []


def test_no_digits_are_sent_into_it(scene: Scene) -> None:
    scene.heard()
    asked = scene.stage.ask(
        "a1", m.SendDigits(session=scene.info.session, call=scene.call, digits="1")
    )
    assert scene.stage.error("a1", asked) == "WrongModeError"


def test_a_call_of_ours_can_be_listened_to_by_another_session(scene: Scene) -> None:
    stage = scene.stage
    other = stage.open(peer="a1")
    stage.arm(other)
    ours = stage.called(other, SID)
    heard = scene.heard()
    assert stage.core.book.by_sid[SID].id == ours.call != heard.call
    rows = status.build(stage.core.book, stage.now)
    assert [row["sid"] for row in rows["calls"]] == [SID]
    (row,) = rows["listening"]
    assert (row["theirs"], row["state"]) == ("outbound", "live")
    assert (row["gateway"], row["frames_lost"]) == ("g1", 0)
    assert sum(worker["calls"] for worker in rows["codec_workers"]) == 2


def test_its_row_and_its_gateway_name_the_test_that_listens() -> None:
    stage = Stage()
    info = Scene(stage, stage.open(test="test_it.py::test_a")).heard()
    assert info.test == "test_it.py::test_a"
    (row,) = status.build(stage.core.book, stage.now)["listening"]
    assert row["test"] == "test_it.py::test_a"


# ----------------------------------------------------------------------------- a restart


def row_of(scene: Scene) -> ListeningRow:
    """What the journal has of it."""
    call = scene.stage.core.book.calls[scene.call]
    return ListeningRow(
        call=scene.call,
        session=scene.info.session,
        secret_hash=digest(scene.info.secret),
        sid=SID,
        theirs="outbound",
        name=call.stream_name,
        since=1_700_000_000.0,
    )


def stream_of(info: m.CallInfo) -> m.StreamInfo:
    """What its gateway announces."""
    return m.StreamInfo(
        info=info,
        stream_sid="MZ1",
        generation=m.first_generation(info.ordinal),
        active="w1",
        one_way=True,
    )


@pytest.mark.parametrize("first", ["gateway", "client"])
def test_a_restarted_controller_knows_it_again(scene: Scene, first: str) -> None:
    info = scene.heard()
    stage = Stage(epoch=2, peers=False, listening=[row_of(scene)])
    session = replace(scene.info, calls=[info])

    def gateway() -> None:
        stage.hello("gateway", "g1", streams=[stream_of(info)])

    def client() -> None:
        stage.hello("adapter", "a1", sessions=[session])

    for hello in (gateway, client) if first == "gateway" else (client, gateway):
        hello()
    stage.hello("codec_worker", "w1", endpoint="ipc:///w1")
    stage.pass_time(20.0)
    scene.stage = stage
    assert scene.state == "live" and stage.core.book.by_sid == {}
    assert not stage.all_work(do.OpenListening) and not stage.all_work(do.StopListening)
    assert stage.events("a1", m.CallEnded) == []
    stage.ask("a1", m.HangUp(session=scene.info.session, call=scene.call))
    assert scene.stopped().name == row_of(scene).name
    scene.nothing_left()


def test_after_a_restart_the_stream_of_a_gateway_that_died_too_is_asked_for(scene: Scene) -> None:
    info = scene.heard()
    stage = again("g2", listening=[row_of(scene)])
    stage.hello("adapter", "a1", sessions=[replace(scene.info, calls=[info])])
    stage.pass_time(FOUND_WITHIN + 0.2)
    name = row_of(scene).name
    scene.stage = stage
    assert stage.all_work(do.OpenListening)[0].former == name
    assert scene.up("g2").ordinal > info.ordinal


@pytest.mark.parametrize("is_up", [True, False])
def test_who_waited_when_the_controller_died_is_answered_by_the_next_one(
    scene: Scene, is_up: bool
) -> None:
    scene.listen()
    order = scene.stage.take(do.OpenListening)
    row = order.row
    info = scene.stage.let_in(order.token, SID).info
    stage = Stage(epoch=2, peers=False, listening=[row])
    stage.hello("adapter", "a1", sessions=[scene.info])
    scene.stage = stage
    asked = scene.listen()
    stage.hello("gateway", "g1", streams=[stream_of(info)] if is_up else [])
    stage.hello("codec_worker", "w1", endpoint="ipc:///w1")
    stage.pass_time(FOUND_WITHIN + 0.2)
    if not is_up:
        assert not stage.answered("a1", asked)
        scene.up()
    assert stage.body("a1", asked, m.Listening).info.sid == SID
    assert scene.state == "live"


def test_a_stream_whose_client_is_gone_is_stopped_when_claims_are_over(scene: Scene) -> None:
    scene.heard()
    row = row_of(scene)
    stage = again(listening=[row])
    stage.pass_time(9.5)
    scene.stage = stage
    assert scene.stopped().name == row.name
    scene.nothing_left()


def test_a_stream_that_its_client_gave_up_meanwhile_is_stopped_too(scene: Scene) -> None:
    scene.heard()
    row = row_of(scene)
    stage = again(listening=[row])
    stage.hello("adapter", "a1", sessions=[scene.info])
    stage.pass_time(9.5)
    scene.stage = stage
    assert scene.stopped().name == row.name


def test_only_the_session_itself_claims_it(scene: Scene) -> None:
    info = scene.heard()
    stage = again(listening=[row_of(scene)])
    thief = replace(scene.info, secret="f" * 32, calls=[info])
    stage.hello("adapter", "a2", sessions=[thief])
    (welcome,) = stage.events("a2", m.Welcome)
    assert welcome.unknown_sessions == [scene.info.session]


# ----------------------------------------------------------------------------- REST and the journal

ROW = ListeningRow(
    call="c1",
    session="s1",
    secret_hash="hash",
    sid=SID,
    theirs="inbound",
    name="trunkline-1",
    since=5.0,
)


class Rest:
    """Twilio, and a journal in memory."""

    def __init__(self) -> None:
        self.time = FakeTime()
        self.carrier = FakeCarrier(self.time)
        self.journal = MemoryJournal()
        self.ops = ops_for(self.time, self.carrier, self.journal)
        self.told: list[ev.EndFailed] = []

    async def open(self, former: str = "", within: float = 8.0) -> ev.ListeningAsked:
        order = do.OpenListening(ROW, former, "wss://h/s", "t", self.time.now + within)
        return await operations.open_listening(self.ops, order)

    async def stop(self) -> ev.EndTaken:
        order = do.StopListening("c1", SID, "trunkline-1")
        return await operations.stop_listening(self.ops, order, self.told.append)

    def asked(self, operation: str) -> list[Any]:
        return [what for name, what in self.carrier.log if name == operation]


async def test_the_stream_is_journalled_before_it_is_asked_for() -> None:
    rest = Rest()
    asked = await rest.open()
    assert isinstance(asked.error, CarrierError) and asked.error.status == 404
    assert rest.journal.left.listening == [ROW], "a stream may be there all the same"
    assert rest.asked("listen") == [(SID, "wss://h/s", "t", "trunkline-1")]
    await rest.journal.listening_closed("c1")
    assert rest.journal.left.listening == []


async def test_a_stream_is_asked_for_again_while_there_is_time() -> None:
    rest = Rest()
    rest.carrier.plan("listen", "500", "timeout", "429")
    assert isinstance((await rest.open(within=60.0)).error, CarrierError)
    assert len(rest.asked("listen")) == 4


@pytest.mark.parametrize("fate", ["ok", "500", "timeout"])
async def test_the_former_stream_is_stopped_before_and_holds_up_nobody(fate: str) -> None:
    rest = Rest()
    rest.carrier.plan("stop", fate)
    await rest.open("trunkline-0")
    assert [name for name, _ in rest.carrier.log] == ["stop", "listen"]
    assert rest.asked("stop") == [(SID, "trunkline-0")]


async def test_a_stream_is_stopped_until_twilio_takes_it() -> None:
    rest = Rest()
    rest.carrier.plan("stop", "429", "500", "timeout", "401")
    assert await rest.stop() == ev.EndTaken("c1", (SID,))
    assert len(rest.asked("stop")) == 5 and rest.told == []


async def test_a_stop_that_takes_long_is_told_once() -> None:
    rest = Rest()
    rest.carrier.plan("stop", *["500"] * 12)
    await rest.stop()
    assert [failed.call for failed in rest.told] == ["c1"]


async def test_a_row_that_cannot_be_read_and_a_journal_without_such_rows(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    journal = await Journal.in_file(path, account=ACCOUNT, stack="stack")
    await journal.listening_asked(ROW)
    assert peek(path).listening == [ROW]
    await journal._do(lambda db: db.execute("UPDATE listening SET theirs = 'left'"))
    (row,) = await journal.unreadable()
    assert (row.table, row.number) == ("listening", SID)
    assert "ends with the call" in row.text(path)
    # An earlier version's journal has no such table.
    await journal._do(lambda db: db.execute("DROP TABLE listening"))
    assert peek(path).listening == []
    await journal.close()


async def left_behind(machine: Machine) -> None:
    """A stack that was killed while it listened."""
    path = machine.directory / "stacks" / stack_id("aaa") / "journal.sqlite3"
    journal = await Journal.in_file(path, account=ACCOUNT, stack=stack_id("aaa"))
    await journal.listening_asked(ROW)
    await journal.close()


async def test_restore_stops_the_streams_that_were_left(machine: Machine) -> None:
    await left_behind(machine)
    dry = RestoreRun(machine.ops(), dry_run=True)
    await dry.journals(machine.settings, ACCOUNT)
    assert dry.pending and f"a stream of call {SID} would be stopped" in dry.lines
    run = await machine.run()
    assert not run.pending
    assert ("stop", (SID, "trunkline-1")) in machine.carrier.log
    assert not (await machine.run()).lines


async def test_the_next_stack_stops_those_of_one_that_is_gone(machine: Machine) -> None:
    await left_behind(machine)

    async def present(base: str, stack: str) -> bool:
        return False

    orphans = Orphans.find(machine.directory, ACCOUNT, "us", present)
    (orphan,) = orphans.found
    await orphan.hang_up_left(machine.ops())
    assert ("stop", (SID, "trunkline-1")) in machine.carrier.log
    await orphans.close()
    assert Orphans.find(machine.directory, ACCOUNT, "us", present).found == []
