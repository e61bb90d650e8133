"""The state machine alone on a stage: what peers say goes in, what it says to do is looked at."""

from __future__ import annotations

import itertools
import secrets
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller.core import TICK_SECONDS, Core
from trunkline.controller.journal.rows import DialRow, ListeningRow, OverrideRow
from trunkline.controller.rules.book import Identity, Rules

from .fake_carrier import OURS, SECOND, THEIRS

ACCOUNT = "AC" + "1" * 32
URL = "https://line.example.com"
T = TypeVar("T")

SIDS = {OURS: "PN1", SECOND: "PN2"}


class Stage:
    """A core with one gateway, two workers and one adapter that have said Hello."""

    def __init__(
        self,
        *,
        overrides: list[OverrideRow] | None = None,
        dials: list[DialRow] | None = None,
        listening: Sequence[ListeningRow] = (),
        calls_per_second: float = 50.0,
        pool: tuple[str, ...] = (),
        epoch: int = 1,
        seen: Sequence[tuple[str, float]] = (),
        peers: bool = True,
        now: float = 100.0,
        **rules: Any,
    ) -> None:
        self.now = now
        identity = Identity("stack", epoch, 1, ACCOUNT, URL, 1_700_000_000.0 + now, now)
        known = Rules(60, calls_per_second, pool, **rules)
        self.core = Core(
            identity, known, overrides or [], dials or [], seen=seen, listening=listening
        )
        self.sent: dict[str, list[Any]] = defaultdict(list)
        self.work: list[do.Instruction] = []
        #: calls that were heard, as the journal is told of them
        self.noted: list[do.NoteSeen] = []
        self.beating: list[str] = []
        self._ids = itertools.count(1)
        if peers:
            self.hello("gateway", "g1")
            self.hello("codec_worker", "w1", endpoint="ipc:///w1")
            self.hello("codec_worker", "w2", endpoint="ipc:///w2")
            self.hello("adapter", "a1")
            self.sent.clear()

    # ------------------------------------------------------------------ in

    def feed(self, event: Any) -> None:
        for instruction in self.core.handle(event, self.now):
            if isinstance(instruction, do.Send):
                self.sent[instruction.peer].append(instruction.message)
            elif isinstance(instruction, do.NoteSeen):
                self.noted.append(instruction)
            else:
                self.work.append(instruction)

    def hello(self, role: m.Role, peer: str, **fields: Any) -> None:
        self.feed(m.Hello(role=role, peer=peer, pid=1, **fields))
        if peer not in self.beating:
            self.beating.append(peer)

    def ask(self, peer: str, body: m.RequestBody, ttl: float = 60.0) -> int:
        number = next(self._ids)
        self.feed(m.Request(peer=peer, id=number, ttl=ttl, body=body))
        return number

    def pass_time(self, seconds: float, *, beat: bool = True) -> None:
        """Ticks, with everybody in ``beating`` beating twice a second."""
        for n in range(round(seconds / TICK_SECONDS)):
            self.now += TICK_SECONDS
            if beat and n % 5 == 4:
                for peer in self.beating:
                    self.beat(peer)
            self.feed(ev.Tick())

    def beat(self, peer: str) -> None:
        sessions = [s.id for s in self.core.book.sessions.values() if s.peer == peer]
        streams = [
            m.StreamStats(call=c.id, ordinal=c.ordinal)
            for c in self.core.book.calls.values()
            if c.gateway == peer
        ]
        self.feed(m.Beat(peer=peer, sessions=sessions, streams=streams))
        self.sent[peer] = [x for x in self.sent[peer] if not isinstance(x, m.Pulse)]

    # ------------------------------------------------------------------ out

    def reply(self, peer: str, number: int) -> m.Reply:
        found = [x for x in self.sent[peer] if isinstance(x, m.Reply) and x.id == number]
        assert len(found) == 1, f"{len(found)} replies to request {number}"
        return found[0]

    def answered(self, peer: str, number: int) -> bool:
        return any(isinstance(x, m.Reply) and x.id == number for x in self.sent[peer])

    def error(self, peer: str, number: int) -> str:
        reply = self.reply(peer, number)
        assert reply.error is not None, f"no error: {reply.body}"
        return reply.error.kind

    def body(self, peer: str, number: int, kind: type[T]) -> T:
        reply = self.reply(peer, number)
        assert isinstance(reply.body, kind), reply
        return reply.body

    def events(self, peer: str, kind: type[T]) -> list[T]:
        return [x for x in self.sent[peer] if isinstance(x, kind)]

    def all_work(self, kind: type[T]) -> list[T]:
        return [x for x in self.work if isinstance(x, kind)]

    def take(self, kind: type[T]) -> T:
        """The first instruction of this kind; it is done now."""
        found = self.all_work(kind)
        assert found, f"no {kind.__name__} in {self.work}"
        self.work.remove(found[0])  # type: ignore[arg-type]  # it is an Instruction
        return found[0]

    def hung_up(self) -> do.End:
        """REST takes the next hang-up."""
        end = self.take(do.End)
        self.feed(ev.EndTaken(end.call, end.sids))
        return end

    # ------------------------------------------------------------------ scenes

    def info(self, number: str = OURS, **fields: Any) -> m.SessionInfo:
        return m.SessionInfo(
            session=secrets.token_hex(16), secret=secrets.token_hex(16), number=number, **fields
        )

    def look_up(self) -> None:
        """The account knows OURS and SECOND."""
        for found in self.all_work(do.LookUp):
            self.work.remove(found)
            self.feed(ev.LookedUp(found.number, SIDS.get(found.number)))

    def open(self, number: str = OURS, peer: str = "a1", **fields: Any) -> m.SessionInfo:
        info = self.info(number, **fields)
        asked = self.ask(peer, m.OpenSession(info=info))
        self.look_up()
        self.body(peer, asked, m.SessionOpened)
        return info

    def apply(self) -> OverrideRow:
        """REST takes the override."""
        found = self.take(do.Apply)
        row = replace(
            found.row, state="applied", prior={"voice_url": "p"}, written={"voice_url": "w"}
        )
        self.feed(ev.Applied(row))
        return row

    def arm(self, info: m.SessionInfo, peer: str = "a1") -> None:
        asked = self.ask(peer, m.Arm(session=info.session))
        if self.all_work(do.Apply):
            self.apply()
        self.body(peer, asked, m.Armed)

    def armed(self, **fields: Any) -> m.SessionInfo:
        info = self.open(**fields)
        self.arm(info)
        return info

    def webhook(
        self,
        sid: str = "CA1",
        caller: str = THEIRS,
        to: str = OURS,
        gateway: str = "g1",
        lives: bool | None = True,
        **query: str,
    ) -> m.VoiceAnswer:
        """The answer; after a restart it may have waited a second for a client. ``lives``: what
        REST says of the call, where it is asked."""
        form = {"CallSid": sid, "From": caller, "To": to}
        asked = self.ask(gateway, m.VoiceWebhook(form=form, query=query))
        self.vouch(lives)
        if not self.answered(gateway, asked):
            self.pass_time(1.1)
        return self.body(gateway, asked, m.VoiceAnswer)

    def start(
        self, token: str | None, sid: str = "CA1", gateway: str = "g1"
    ) -> m.StreamAccepted | m.StreamRefused:
        body = m.StreamStart(
            token=token or "", call_sid=sid, stream_sid="MZ" + sid, gateway=gateway
        )
        asked = self.ask(gateway, body)
        reply = self.reply(gateway, asked).body
        assert isinstance(reply, m.StreamAccepted | m.StreamRefused)
        return reply

    def let_in(self, token: str | None, sid: str = "CA1", gateway: str = "g1") -> m.StreamAccepted:
        """A stream with this token is let in."""
        accepted = self.start(token, sid, gateway)
        assert isinstance(accepted, m.StreamAccepted), accepted
        return accepted

    def called(self, info: m.SessionInfo | None = None, sid: str = "CA1") -> m.CallInfo:
        """A call comes in and its stream is up."""
        if info is None:
            self.armed()
        answer = self.webhook(sid)
        assert answer.kind == "stream"
        accepted = self.let_in(answer.token, sid)
        assert accepted.first
        return accepted.info

    def dial(self, info: m.SessionInfo, to: str = THEIRS, **fields: Any) -> tuple[str, int]:
        request = secrets.token_hex(16)
        values: dict[str, Any] = {"mode": "a-leg", "timeout": 30.0, "max_duration": 300.0}
        body = m.Dial(session=info.session, request=request, to=to, **(values | fields))
        return request, self.ask("a1", body)

    def dialled(self, info: m.SessionInfo, **fields: Any) -> str:
        """A dial that Twilio has taken as CA1; returns its request id."""
        request, _ = self.dial(info, **fields)
        self.take(do.Create)
        self.feed(ev.Taken(request, "CA1", "queued"))
        return request

    def looked(self, status: str | None) -> int:
        """REST answers what is asked of calls; returns how many were asked about."""
        found = self.all_work(do.Fetch)
        for fetch in found:
            self.work.remove(fetch)
            self.feed(ev.Fetched(fetch.call, fetch.sid, status))
        return len(found)

    def vouch(self, lives: bool | None = True) -> int:
        """REST says whether calls live that nobody here knows; returns of how many it was asked."""
        found = self.all_work(do.Vouch)
        for vouch in found:
            self.work.remove(vouch)
            self.feed(ev.Vouched(vouch.sid, lives))
        return len(found)

    def callback(self, request: str, sid: str, status: str) -> None:
        form = {"CallSid": sid, "CallStatus": status}
        asked = self.ask("g1", m.StatusCallback(form=form, query={"d": request}))
        self.body("g1", asked, m.Done)


def again(gateway: str = "g1", **given: Any) -> Stage:
    """The next controller, to which a gateway and a worker have said Hello so far."""
    stage = Stage(epoch=2, peers=False, **given)
    stage.hello("gateway", gateway)
    stage.hello("codec_worker", "w1", endpoint="ipc:///w1")
    return stage


def token_of(create: do.Create) -> str:
    """The token in the document of a dial."""
    return create.order.twiml.split('value="')[1][:32]
