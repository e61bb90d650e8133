"""The controller under a random life: sessions in every mode, REST that fails in every way, other
people's changes, clients and controllers that die, at any step, and come back.

Hypothesis chooses what happens and shrinks what went wrong. Whatever happened, once it is over no
number differs from what it was (or from what somebody else made of it), no call lives, and the
journal has nothing open; and on the way nothing was written that was not journalled before, nothing
was written over what is not ours, and no dial led to two calls. The sound's path (gateways,
streams, workers) is not part of it: tests/simulation has that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from trunkline.bus import messages as m
from trunkline.controller.twilio.seal import Seal

from .clockwork import FATES, Clockwork, Controller, last_words_unheard
from .fake_carrier import OURS, SECOND, THEIRS

NUMBERS = (OURS, SECOND)
#: Longer than everything takes once nothing more happens: leases, late requests, and rows that are
#: read again for 60 s, one after the other.
AT_REST = 400.0
BEAT_SECONDS = 0.5
OPERATIONS = ("read", "write", "create", "end", "find", "list_calls", "fetch")

numbers = st.sampled_from(NUMBERS)


@dataclass
class Session:
    """A session as its client sees it."""

    info: m.SessionInfo
    mode: str = "idle"
    #: it waits for a call
    armed: bool = False
    #: requests of dials that it waits for, or whose calls it holds
    dials: list[m.Dial] = field(default_factory=list)


class Client:
    """An adapter's process: it says Hello to each controller, beats, and asks again what was not
    answered."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.sessions: dict[str, Session] = {}
        self.pending: dict[int, m.RequestBody] = {}
        self.greeted: Controller | None = None

    def hello(self) -> m.Hello:
        sessions = []
        for session in self.sessions.values():
            told = m.SessionInfo(
                session=session.info.session,
                secret=session.info.secret,
                number=session.info.number,
                allowed_callees=session.info.allowed_callees,
                mode=session.mode,
                armed=session.armed,
                dials=session.dials,
            )
            sessions.append(told)
        return m.Hello(role="adapter", peer=self.peer, pid=1, sessions=sessions)

    def answered(self, reply: m.Reply) -> None:
        body = self.pending.pop(reply.id, None)
        if isinstance(body, m.OpenSession) and reply.error is not None:
            self.sessions.pop(body.info.session, None)
        elif isinstance(body, m.Arm) and reply.error is not None:
            session = self.sessions.get(body.session)
            if session is not None:
                session.armed = False
        elif isinstance(body, m.CloseSession):
            self.sessions.pop(body.session, None)
        elif isinstance(body, m.Dial) and reply.error is not None:
            self.forget(body.request)

    def forget(self, request: str) -> None:
        for session in self.sessions.values():
            session.dials = [dial for dial in session.dials if dial.request != request]


class Stack(RuleBasedStateMachine):
    """Rules are what may happen; time passes between them."""

    def __init__(self) -> None:
        super().__init__()
        self.world = Clockwork()
        for n, number in enumerate(NUMBERS):
            self.world.account.add_number(
                number, voice_fallback_url="https://f.example.com" if n else ""
            )
        self.made = 0
        self.clients: list[Client] = []
        self.controller = Controller(self.world)
        self.world.loop.call_later(0.0, self._beat)
        self.world.run(0.3)

    # ------------------------------------------------------------------ the world goes on

    def _beat(self) -> None:
        for client in self.clients:
            self._tell(client)
        self.world.loop.call_later(BEAT_SECONDS, self._beat)

    def _tell(self, client: Client) -> None:
        controller = self.controller
        if not controller.ready:
            return
        if client.greeted is not controller:
            client.greeted = controller
            controller.feed(client.hello())
            for number, body in list(client.pending.items()):
                controller.feed(m.Request(peer=client.peer, id=number, ttl=30.0, body=body))
        controller.feed(m.Beat(peer=client.peer, sessions=list(client.sessions)))
        self._hear()

    def _hear(self) -> None:
        by_peer = {client.peer: client for client in self.clients}
        while self.controller.sent:
            peer, message = self.controller.sent.popleft()
            client = by_peer.get(peer)
            if client is None:
                continue
            if isinstance(message, m.Reply):
                client.answered(message)
            elif isinstance(message, m.SessionLost):
                client.sessions.pop(message.session, None)
            elif isinstance(message, m.Welcome):
                for session in message.unknown_sessions:
                    client.sessions.pop(session, None)
            elif isinstance(message, m.DialFailed):
                client.forget(message.request)

    def _ask(self, client: Client, body: m.RequestBody) -> None:
        self.made += 1
        client.pending[self.made] = body
        if self.controller.ready and client.greeted is self.controller:
            request = m.Request(peer=client.peer, id=self.made, ttl=30.0, body=body)
            self.controller.feed(request)
            self._hear()

    def _id(self) -> str:
        self.made += 1
        return f"{self.made:032d}"

    def _sessions(self) -> list[tuple[Client, Session]]:
        return [(c, s) for c in self.clients for s in c.sessions.values()]

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 4.0, 11.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.run(seconds)
        self._hear()

    # ------------------------------------------------------------------ users

    @rule(number=numbers, mode=st.sampled_from(["answer", "a-leg", "b-leg", "originate"]))
    def a_user(self, number: str, mode: str) -> None:
        """Opens a session, and waits for a call, or dials."""
        if not self.clients:
            self.a_client_starts()
        client = self.clients[-1]
        info = m.SessionInfo(
            session=self._id(), secret=self._id(), number=number, allowed_callees=[THEIRS]
        )
        client.sessions[info.session] = Session(info)
        self._ask(client, m.OpenSession(info=info))
        self.world.run(0.25)
        self._hear()
        session = client.sessions.get(info.session)
        if session is not None:
            self._use(client, session, mode)

    def _use(self, client: Client, session: Session, mode: str) -> None:
        if mode == "answer":
            session.mode, session.armed = "answer", True
            self._ask(client, m.Arm(session=session.info.session))
            return
        session.mode = "call"
        to = THEIRS
        if mode == "b-leg":
            to = next(n for n in NUMBERS if n != session.info.number)
        dial = m.Dial(
            session=session.info.session,
            request=self._id(),
            to=to,
            mode=mode,  # type: ignore[arg-type]  # one of its three
            timeout=20.0,
            max_duration=60.0,
        )
        session.dials.append(dial)
        self._ask(client, dial)

    def _pick(self, which: int) -> tuple[Client, Session]:
        found = self._sessions()
        return found[which % len(found)]

    @precondition(lambda self: self._sessions())
    @rule(which=st.integers(0, 9))
    def another_dial_or_wait(self, which: int) -> None:
        client, session = self._pick(which)
        self._use(client, session, "answer" if session.mode == "answer" else "a-leg")

    @precondition(lambda self: self._sessions())
    @rule(which=st.integers(0, 9))
    def gives_up(self, which: int) -> None:
        """Waits no more, or cancels its dial."""
        client, session = self._pick(which)
        if session.mode == "answer":
            session.armed = False
            self._ask(client, m.Disarm(session=session.info.session))
        elif session.dials:
            dial = session.dials[0]
            client.forget(dial.request)
            self._ask(client, m.CancelDial(session=dial.session, request=dial.request))

    @precondition(lambda self: self._sessions())
    @rule(which=st.integers(0, 9))
    def closes(self, which: int) -> None:
        client, session = self._pick(which)
        self._ask(client, m.CloseSession(session=session.info.session))

    @rule()
    def a_client_starts(self) -> None:
        client = Client(f"adapter-{self._id()}")
        self.clients.append(client)
        self._tell(client)

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 9))
    def a_client_is_killed(self, which: int) -> None:
        del self.clients[which % len(self.clients)]

    # ------------------------------------------------------------------ the far end

    @rule(status=st.sampled_from(["ringing", "busy", "completed"]), told=st.booleans())
    def a_call_goes_on(self, status: str, told: bool) -> None:
        """``told``: Twilio's callback reaches a gateway."""
        account = self.world.account
        for request, sids in account.made.items():
            for sid in sids:
                if account.calls[sid].ended:
                    continue
                if status != "ringing":
                    account.over(sid, status)
                if told and self.controller.ready:
                    self.controller.feed(m.Hello(role="gateway", peer="g1", pid=1))
                    self.made += 1
                    callback = m.StatusCallback(
                        form={"CallSid": sid, "CallStatus": status}, query={"d": request}
                    )
                    self.controller.feed(m.Request(peer="g1", id=self.made, ttl=9.0, body=callback))
        self._hear()

    # ------------------------------------------------------------------ trouble

    @rule(
        operation=st.sampled_from(OPERATIONS),
        fates=st.lists(st.sampled_from([*FATES, "ok"]), min_size=1, max_size=3),
    )
    def twilio_has_a_bad_time(self, operation: str, fates: list[str]) -> None:
        self.world.account.plans[operation].extend(fates)

    @rule(number=numbers)
    def someone_else_changes_a_number(self, number: str) -> None:
        """While nothing of ours is on its way there: who comes last wins then, and nobody knows."""
        world = self.world
        sid = next(s for s, n in world.account.numbers.items() if n.number == number)
        rows = [row for row in world.journal.overrides.values() if row.number_sid == sid]
        busy = any(row.open and row.state != "applied" for row in rows)
        late = any(row.uncertain_until > world.account.wall() for row in rows)
        if not busy and not late and not world.account.in_flight[sid]:
            self.made += 1
            world.account.change(sid, f"https://other.example.com/{self.made}")

    @rule(steps=st.integers(0, 60), away=st.sampled_from([0.1, 1.0, 12.0]))
    def the_controller_is_killed(self, steps: int, away: float) -> None:
        process, loop = self.controller.process, self.world.loop
        loop.dies_at[process] = loop.had[process] + steps
        self.world.run(10.0, over=lambda: not process.alive)
        assert not process.alive
        self._starts_again(away)

    @rule(away=st.sampled_from([0.1, 1.0, 12.0]))
    def the_controller_is_asked_to_end(self, away: float) -> None:
        if self.controller.ready:
            self.controller.shut_down()
            self.world.run(10.0, over=lambda: not self.controller.process.alive)
            assert not self.controller.process.alive
            self._starts_again(away)

    def _starts_again(self, away: float) -> None:
        self._hear()
        self.world.run(away)
        self.controller = Controller(self.world)
        self.world.run(0.2)

    @precondition(lambda self: self.clients)
    @rule()
    def everything_is_killed(self) -> None:
        self.clients.clear()
        self.the_controller_is_killed(0, 1.0)

    # ------------------------------------------------------------------ the end

    def teardown(self) -> None:
        self.world.account.plans.clear()
        for client, session in self._sessions():
            self._ask(client, m.CloseSession(session=session.info.session))
        self.world.run(15.0)
        self._hear()
        self.clients.clear()
        began = self.world.loop.time()
        self.world.run(AT_REST, over=lambda: not self.world.left)
        assert self.world.left == [], f"{self.world.loop.time() - began:g} s later"
        core = self.controller.core
        assert core is not None
        assert not core.counts["internal errors"]
        self.world.run(20.0)
        assert self.world.left == []
        assert not core.book.sessions and not core.book.leases


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Failures are what this is about, and are logged by the thousand."""
    logger = logging.getLogger("trunkline")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    with last_words_unheard():
        yield
    logger.setLevel(level)


def test_any_life_leaves_everything_as_it_was() -> None:
    run_state_machine_as_test(
        Stack,
        settings=settings(
            max_examples=60,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_an_armed_number_calls_us() -> None:
    """That the machine's sessions are armed and its dials made, and not only refused."""
    stack = Stack()
    stack.a_user(OURS, "answer")
    stack.a_user(SECOND, "a-leg")
    stack.time_passes(1.0)
    urls = [number.voice_url for number in stack.world.account.numbers.values()]
    assert [Seal.read(url) is not None for url in urls] == [True, False]
    assert [call.to for call in stack.world.account.calls.values()] == [THEIRS]
    stack.the_controller_is_killed(7, 1.0)
    stack.time_passes(4.0)
    assert Seal.read(stack.world.account.numbers["PN1"].voice_url) is not None
    assert len(stack.world.account.writes) == 1 and len(stack.world.account.calls) == 1
    stack.a_user(SECOND, "b-leg")
    stack.teardown()
    assert stack.world.started == 2


def test_a_call_that_comes_late_is_not_taken_for_another_one_that_is_over() -> None:
    stack = Stack()
    stack.world.account.plans["create"].append("late")
    stack.a_user(OURS, "a-leg")
    stack.time_passes(0.05)
    stack.everything_is_killed()
    stack.a_user(OURS, "a-leg")
    stack.time_passes(11.0)
    stack.the_controller_is_asked_to_end(0.1)
    stack.teardown()
    assert len(stack.world.account.calls) == 2
