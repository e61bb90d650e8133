"""Twilio's calls in the simulation: people who call and are called, webhooks, callbacks, streams.

What a leg does next is what the answer to its webhook says; when its stream ends it goes on with
``<Redirect>``. A gateway that dies while it answers is asked again, elsewhere, three times.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from trunkline.bus import messages as m
from trunkline.controller.twilio.calls import ENDED_STATUSES, CallOrder
from trunkline.controller.twilio.carrier import CallState

from .clock import SimLoop
from .media import RATE, LetIn, Media
from .peers import GatewayPeer
from .twilio import Twilio

PUBLIC_URL: Final = "https://line.example.com"
_TOKEN = re.compile(r'name="nonce" value="([0-9a-z.]+)"')
#: Nobody waits longer than this for a gateway that is not there (seconds).
BACKLOG: Final = 10.0
WEBHOOK_WITHIN: Final = 15.0
MOST_PAUSES: Final = 60
#: What a carrier makes of the caller of a call to a number of the account.
REWRITTEN: Final[tuple[Callable[[str], str], ...]] = (
    lambda caller: "+" + caller[2:],
    lambda caller: caller[2:],
    lambda caller: f"+010{caller[1:]}",
    lambda caller: "+811045000",
    lambda caller: "anonymous",
    lambda caller: "Anonymous",
    lambda caller: "+266696687",
    lambda caller: "",
)


@dataclass(eq=False)
class Leg:
    """One call leg. ``let_in``: its streams that were let in; ``heard``: what was played to the
    person."""

    exchange: Exchange
    sid: str
    direction: str
    from_: str
    to: str
    status: str
    created: float
    offset: int
    order: CallOrder | None = None
    request: str = ""
    parent: Leg | None = None
    child: Leg | None = None
    media: Media | None = None
    streams: int = 0
    #: it is at somebody else's: the number's own voice_url, or the fallback
    elsewhere: bool = False
    #: what its webhooks were answered with
    answers: list[str] = field(default_factory=list)
    let_in: list[LetIn] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list)
    pressed: str = ""
    hung_up_by: str = ""
    ended_at: float = 0.0
    #: when the first of its status callbacks was taken
    called_back: float = math.inf
    #: what the detection of answering machines has found, and when we took that
    answered_by: str = ""
    answer_taken: float | None = None

    @property
    def callback(self) -> dict[str, str]:
        """The query of its status callback, which that of its redirect is, too."""
        return {} if self.order is None else _query(self.order.status_callback)

    @property
    def live(self) -> bool:
        return self.status not in ENDED_STATUSES

    @property
    def made_at(self) -> float:
        """When it was created, by the simulation's clock."""
        return self.created - 1_700_000_000.0

    def state(self) -> CallState:
        return CallState(self.sid, self.status, self.to, self.from_, self.direction, self.created)

    def index(self, now: float) -> int:
        """Where the person's sound is at ``now``."""
        return self.offset + round((now - self.made_at) * RATE)

    def says(self, start: int, stop: int) -> bytes:
        return self.exchange.sound[start:stop]


def _query(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


class Exchange:
    """All calls of the account. ``habits``: what carriers do now this way, now that is drawn from a
    generator of its own, so that it does not shift what else a seed brings. ``machines``: the same
    for who answers, and when that is known."""

    def __init__(
        self,
        loop: SimLoop,
        rng: random.Random,
        habits: random.Random,
        machines: random.Random,
        twilio: Twilio,
        say: Callable[[str], None],
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.say = say
        self.twilio = twilio
        twilio.exchange = self
        self.legs: dict[str, Leg] = {}
        self.gateways: list[GatewayPeer] = []
        #: dial request -> calls that were made of it
        self.made: Counter[str] = Counter()
        #: legs that we have asked to be hung up; their dials are over
        self.asked_to_end: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.sound = SOUND
        #: how likely a caller is rewritten, and a status callback is never sent
        self.rewrites = habits.choice((0.0, 0.5, 1.0))
        self.drops = habits.choice((0.0, 0.0, 0.3, 1.0))
        #: how late a gateway's death is seen at most (seconds): behind a tunnel it takes long
        self.sees_dead_within = 0.03
        self._habits = habits
        self._machines = machines
        self._sids = itertools.count(1)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        context = self.loop.world.context.copy()
        self.loop.create_task(work, context=context)

    def _new(self, direction: str, from_: str, to: str, **fields: Any) -> Leg:
        sid = f"CA{next(self._sids):032x}"
        offset = self.rng.randrange(1, 100_000)
        status = "queued" if direction == "outbound-api" else "ringing"
        created = self.twilio.wall()
        leg = Leg(self, sid, direction, from_, to, status, created, offset, **fields)
        self.legs[sid] = leg
        return leg

    # ------------------------------------------------------------------ people who call

    def call(self, from_: str, to: str, patience: float) -> None:
        """A person calls a number of the account, and hangs up after ``patience`` seconds."""
        leg = self._new("inbound", from_, to)
        self.counts["people who called"] += 1
        self.say(f"twilio: {leg.sid} from {from_} to {to}")
        self.loop.call_later(
            patience, self._person_hangs_up, leg, context=self.loop.world.context.copy()
        )
        self.spawn(self._arrive(leg))

    async def _arrive(self, leg: Leg) -> None:
        number = self.twilio.of(leg.to)
        assert number is not None
        if not number.voice_url.startswith(PUBLIC_URL):
            leg.elsewhere = True
            self._set(leg, "in-progress")
            return
        await self._follow(leg, _query(number.voice_url), first=True)

    def _person_hangs_up(self, leg: Leg) -> None:
        if leg.live:
            leg.hung_up_by = "person"
            self._end(leg, "completed" if leg.status == "in-progress" else "canceled")

    # ------------------------------------------------------------------ calls that we make

    def dial(self, order: CallOrder) -> Leg:
        """Calls create took effect."""
        request = _query(order.status_callback)["d"]
        leg = self._new("outbound-api", order.from_, order.to, order=order, request=request)
        self.made[request] += 1
        self.say(f"twilio: {leg.sid} is dialled to {order.to} for {request[:6]}")
        self.spawn(self._dialling(leg))
        return leg

    async def _dialling(self, leg: Leg) -> None:
        assert leg.order is not None
        self._callback(leg, "initiated")
        await asyncio.sleep(self.rng.uniform(0.05, 0.4))
        if not leg.live:
            return
        self._set(leg, "ringing")
        number = self.twilio.of(leg.to)
        if number is not None:
            child = self._new("inbound", self._reported(leg.from_), leg.to, parent=leg)
            leg.child = child
            await self._arrive(child)
            if child.elsewhere:
                self._set(leg, "in-progress")
            return
        fortune = self.rng.random()
        ring = self.rng.uniform(0.1, 1.5) if fortune < 0.9 else float(leg.order.ring_timeout)
        await asyncio.sleep(ring)
        if not leg.live:
            return
        if fortune >= 0.75:
            self._end(leg, "busy" if fortune < 0.85 else "failed" if fortune < 0.9 else "no-answer")
            return
        self._answered(leg)
        if self.rng.random() < 0.5:
            stays = self.rng.uniform(0.5, 6.0)
            self.loop.call_later(stays, self._person_hangs_up, leg)
        found = _TOKEN.search(leg.order.twiml)
        if found is None:
            await asyncio.sleep(120.0)  # <Say>, <Pause>
            self._end(leg, "completed")
            return
        await self._stream(leg, found[1])
        await self._follow(leg, leg.callback)

    def _reported(self, caller: str) -> str:
        """The caller as the other side's carrier reports it."""
        if self._habits.random() >= self.rewrites:
            return caller
        self.counts["callers rewritten"] += 1
        return self._habits.choice(REWRITTEN)(caller)

    def _answered(self, leg: Leg) -> None:
        if leg.status == "in-progress":
            return
        self._set(leg, "in-progress")
        if leg.order is not None:
            limit = float(leg.order.time_limit)
            self.loop.call_later(limit, self._over_time, leg)
            if leg.order.machine_detection is not None:
                self.spawn(self._detect(leg))
        if leg.parent is not None and leg.parent.live:
            self._answered(leg.parent)

    def _over_time(self, leg: Leg) -> None:
        if leg.live:
            leg.hung_up_by = "time limit"
            self._end(leg, "completed")

    # ------------------------------------------------------------------ what the TwiML says

    async def _follow(self, leg: Leg, query: dict[str, str], *, first: bool = False) -> None:
        pauses = 0
        while leg.live:
            answer = await self._ask(leg, query)
            if not leg.live:
                return
            if answer is None:
                # No gateway could be reached: the fallback URL, or an error.
                number = self.twilio.of(leg.to)
                if first and number is not None and number.fields["voice_fallback_url"]:
                    leg.elsewhere = True
                    self._set(leg, "in-progress")
                else:
                    self._end(leg, "failed")
                return
            first = False
            if answer.kind == "pause":
                pauses += 1
                if pauses > MOST_PAUSES:
                    self._end(leg, "completed")
                    return
                self._answered(leg)
                await asyncio.sleep(1.0)
                query = answer.redirect_query or query
            elif answer.kind == "stream":
                pauses = 0
                assert answer.token is not None
                self._answered(leg)
                await self._stream(leg, answer.token)
                query = answer.redirect_query
            else:
                self._end(leg, "completed" if answer.kind == "hangup" else "busy")

    async def _stream(self, leg: Leg, token: str) -> None:
        """Returns when the stream is over."""
        gateway = await self._gateway()
        if gateway is None or not leg.live:
            return
        leg.streams += 1
        leg.media = Media(self, leg, gateway, token)
        how = await leg.media.over
        self.say(f"twilio: stream {leg.streams} of {leg.sid} is over: {how}")

    async def _gateway(self) -> GatewayPeer | None:
        """One that listens; the backlog of the socket waits for one."""
        await asyncio.sleep(self.rng.uniform(0.002, 0.05))
        waited = 0.0
        while True:
            there = [g for g in self.gateways if g.process.alive]
            if there:
                return self.rng.choice(there)
            if waited >= BACKLOG:
                return None
            waited += 0.2
            await asyncio.sleep(0.2)

    async def _post(self, ask: Callable[[GatewayPeer], Coroutine[Any, Any, Any]]) -> Any | None:
        """Ask a gateway; again when it dies meanwhile or takes too long. None: no answer at all."""
        for _ in range(4):
            gateway = await self._gateway()
            if gateway is None:
                continue
            answer: asyncio.Future[Any] = self.loop.create_future()

            def settle(result: Any, answer: asyncio.Future[Any] = answer) -> None:
                if not answer.done():
                    answer.set_result(result)

            async def serve(gateway: GatewayPeer = gateway, settle: Any = settle) -> None:
                settle(await ask(gateway))

            gateway.process.on_death.append(lambda settle=settle: settle(None))
            self.loop.in_process(gateway.process, self.loop.create_task, serve())
            try:
                async with asyncio.timeout(WEBHOOK_WITHIN):
                    result = await answer
            except TimeoutError:
                continue
            await asyncio.sleep(self.rng.uniform(0.002, 0.05))
            if result is not None:
                return result
        return None

    async def _ask(self, leg: Leg, query: dict[str, str]) -> m.VoiceAnswer | None:
        form = {"CallSid": leg.sid, "From": leg.from_, "To": leg.to, "CallStatus": leg.status}
        answer: m.VoiceAnswer | None = await self._post(lambda g: g.voice(form, query))
        shown = "nothing" if answer is None else answer.kind
        self.counts[f"answered {shown}"] += 1
        leg.answers.append(shown)
        self.say(f"twilio: {leg.sid} asks {sorted(query)}: {shown}")
        return answer

    # ------------------------------------------------------------------ states

    def _set(self, leg: Leg, status: str) -> None:
        if leg.live and leg.status != status:
            leg.status = status
            self._callback(leg, status)

    def _callback(self, leg: Leg, status: str) -> None:
        if not leg.request:
            return
        if self._habits.random() < self.drops:
            self.counts["callbacks never sent"] += 1
        else:
            self.spawn(self._call_back(leg, status))

    async def _call_back(self, leg: Leg, status: str) -> None:
        form = {"CallSid": leg.sid, "CallStatus": status, "From": leg.from_, "To": leg.to}
        for _ in range(4):
            if await self._post(lambda g: g.status(form, leg.callback)):
                leg.called_back = min(leg.called_back, self.loop.time())
                return
            await asyncio.sleep(self.rng.uniform(0.2, 1.5))
        self.counts["callbacks lost"] += 1

    async def _detect(self, leg: Leg) -> None:
        """Twilio finds out who has answered, and says so."""
        await asyncio.sleep(self._machines.uniform(0.2, 3.0))
        if not leg.live:
            return
        leg.answered_by = self._machines.choice(m.ANSWERERS)
        self.say(f"twilio: {leg.sid} is answered by {leg.answered_by}")
        form = {"CallSid": leg.sid, "AnsweredBy": leg.answered_by}
        for _ in range(4):
            if await self._post(lambda g: g.status(form, leg.callback)):
                leg.answer_taken = self.loop.time()
                return
            await asyncio.sleep(self._machines.uniform(0.2, 1.5))

    def ended_by_rest(self, sid: str) -> None:
        """`status=completed` took effect; an ended call is left as it is."""
        leg = self.legs.get(sid)
        if leg is not None and leg.live:
            leg.hung_up_by = "us"
            self._end(leg, "completed" if leg.status == "in-progress" else "canceled")

    def _end(self, leg: Leg, status: str) -> None:
        if not leg.live:
            return
        leg.status = status
        leg.ended_at = self.loop.time()
        self.say(f"twilio: {leg.sid} ends: {status} {leg.hung_up_by}")
        if leg.media is not None and not leg.media.over.done():
            leg.media.stop()
        self._callback(leg, status)
        if leg.child is not None:
            self._end(leg.child, "completed" if leg.child.status == "in-progress" else "canceled")
        if leg.parent is not None:
            self._end(leg.parent, "completed" if leg.parent.status == "in-progress" else status)


#: What all people say: a run of codes in which each place is like no other. 100,000 offsets, and
#: calls of up to 10 minutes.
SOUND: Final = random.Random(0).randbytes(100_000 + 600 * RATE).replace(b"\xff", b"\xfe")
