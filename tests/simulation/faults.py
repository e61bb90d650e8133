"""What happens to a simulated stack, by its seed: which users, who calls, and which faults."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from trunkline.controller.twilio.override import READ_HOLDS

from .bus import Connection
from .clock import Process
from .exchange import PUBLIC_URL
from .world import OURS, PEOPLE, Outage, World

PRIORS = ("https://agent.example.com/voice", "https://me:pw@agent.example.com/v?x=1", "")


class Chaos:
    """Plans a run of ``world``: everything is scheduled by its clock."""

    def __init__(self, world: World, *, outage: bool = False) -> None:
        self.world = world
        #: the database is away for a time, too
        self.outage = outage
        self.rng = random.Random(f"{world.seed} chaos")
        #: how long faults come (seconds)
        self.seconds = self.rng.uniform(3.0, 9.0)
        #: a run without faults shows that nothing is lost then
        self.peaceful = world.peaceful = self.rng.random() < 0.1
        #: things that happen to processes and connections
        self.faults = 0 if self.peaceful else self.rng.choice((1, 1, 2, 2, 3, 4, 6))

    def plan(self) -> None:
        world, rng = self.world, self.rng
        for number in OURS:
            fields = {"voice_url": rng.choice(PRIORS)}
            if rng.random() < 0.3:
                fields["voice_fallback_url"] = "https://fallback.example.com"
            world.twilio.add_number(number, **fields)
        for host in range(2 if world.fleet else 1):
            self._at(0.0, world.start, "controller", host)
        for _ in range(rng.choice((1, 2, 2))):
            self._at(0.0, world.start, "gateway")
        for _ in range(rng.choice((1, 2, 2, 3))):
            self._at(0.0, world.start, "codec_worker")
        self._users()
        self._people()
        if not self.peaceful:
            self._trouble()
            kinds = self._kinds()
            for _ in range(self.faults):
                fault = rng.choices([f for f, _ in kinds], [weight for _, weight in kinds])[0]
                self._at(rng.uniform(0.8, self.seconds), fault)
            self._lose_streams_and_workers(random.Random(f"{world.seed} pairs"))
            if world.fleet:
                self._lose_hosts(random.Random(f"{world.seed} lost hosts"))
        if self.outage:
            self._lose_database(random.Random(f"{world.seed} database"))
        self._at(self.seconds, self._calm)

    def _at(self, seconds: float, what: Callable[..., Any], *args: Any) -> None:
        context = self.world.loop.world.context.copy()
        self.world.loop.call_later(seconds, what, *args, context=context)

    # ------------------------------------------------------------------ users and people

    def _users(self) -> None:
        for n, number in enumerate(OURS):
            if n == 0 or self.rng.random() < 0.6:
                self._at(self.rng.uniform(0.1, 1.0), self._user, number)
        if self.rng.random() < 0.3:  # a second user of one number
            self._at(self.rng.uniform(0.1, 2.0), self._user, OURS[0])
        if self.peaceful:
            self._at(1.0, self._dialled_by_two, random.Random(f"{self.world.seed} b-legs"))

    def _dialled_by_two(self, rng: random.Random) -> None:
        """Users of two numbers dial the third at once, each more than once."""
        callee, *callers = rng.sample(OURS, 3)
        for number in callers:
            client = self.world.client()
            client.start(client.dial, number, [callee], ["b-leg"], rng.randint(1, 3))

    def _user(self, number: str) -> None:
        world, rng = self.world, self.rng
        living = [c for c in world.clients if c.process.alive]
        client = rng.choice(living) if living and rng.random() < 0.3 else world.client()
        if rng.random() < 0.5:
            callers = None if rng.random() < 0.7 else rng.sample(PEOPLE, 3)
            client.start(client.answer, number, callers)
        else:
            to = [*rng.sample(PEOPLE, 2), rng.choice([n for n in OURS if n != number])]
            modes = ["a-leg", "a-leg", "a-leg", "originate"]
            client.start(client.dial, number, to, modes, rng.randint(1, 3))
            if rng.random() < 0.4:
                callee = rng.choice([n for n in OURS if n != number])
                client.start(client.dial, number, [callee], ["b-leg"], rng.randint(1, 2))

    def _people(self) -> None:
        for _ in range(self.rng.randint(1, 4)):
            at = self.rng.uniform(0.3, self.seconds)
            person, number = self.rng.choice(PEOPLE), self.rng.choice(OURS)
            patience = self.rng.choice((0.1, 2.0, 5.0, 9.0, 60.0))
            self._at(at, self.world.exchange.call, person, number, patience)
        for _ in range(self.rng.randint(0, 4)):
            self._at(self.rng.uniform(1.0, self.seconds), self._press)

    def _press(self) -> None:
        legs = [leg for leg in self.world.exchange.legs.values() if leg.media is not None]
        legs = [leg for leg in legs if not leg.media.over.done()]
        if legs:
            leg = self.rng.choice(legs)
            digit = "0123456789"[len(leg.pressed) % 10]
            leg.pressed += digit
            leg.media.press(digit)

    # ------------------------------------------------------------------ faults

    def _kinds(self) -> list[tuple[Callable[[], None], int]]:
        return [
            (self._kill_worker, 4),
            (self._kill_gateway, 4),
            (self._kill_controller, 5),
            (self._kill_controller_in_rest, 6),
            (self._lose_worker_in_interrupt, 4),
            (self._kill_client, 3),
            (self._kill_two, 2),
            (self._power_cut, 1),
            (self._pause, 4),
            (self._pause_client_while_calls_move, 4),
            (self._stop_controller, 2),
            (self._drain_worker, 1),
            (self._break_connection, 4),
            (self._break_stream, 2),
            (self._someone_else, 2),
        ]

    def _trouble(self) -> None:
        """Twilio's REST, and the machine, have bad times."""
        if self.rng.random() < 0.6:
            begin = self.rng.uniform(0.0, self.seconds)
            self._at(begin, setattr, self.world.twilio, "trouble", self.rng.choice((0.05, 0.3)))
            self._at(begin + self.rng.uniform(0.5, 4.0), setattr, self.world.twilio, "trouble", 0.0)
        if self.rng.random() < 0.2:
            self._at(0.0, setattr, self.world.bus, "slow", 5.0)

    def _kill(self, process: Process) -> None:
        self.world.counts[f"killed {process.kind}"] += 1
        self.world.say(f"--- kill {process}")
        self.world.loop.kill(process)

    def _some(self, kind: str) -> Process | None:
        living = self.world.living(kind)
        return self.rng.choice(living) if living else None

    def _kill_one(self, kind: str) -> None:
        process = self._some(kind)
        if process is not None:
            self._kill(process)

    def _kill_worker(self) -> None:
        self._kill_one("codec_worker")

    def _kill_gateway(self) -> None:
        self._kill_one("gateway")

    def _kill_controller(self) -> None:
        self._kill_one("controller")

    def _kill_controller_in_rest(self) -> None:
        """The next time that it writes to a number, or asks for a call."""
        traps, within = self.world.traps, self.rng.uniform(0.0, 0.25)
        traps["write"] = traps["create"] = lambda: self._at(within, self._kill_controller)

    def _lose_worker_in_interrupt(self) -> None:
        """A worker dies, or a connection to it, the next time that a user interrupts."""
        fault = self.rng.choice((self._kill_worker, self._kill_two, self._break_connection))
        within = self.rng.uniform(0.0, 0.02)
        self.world.traps["interrupt"] = lambda: self._at(within, fault)

    def _kill_client(self) -> None:
        self._kill_one("client")
        if self.rng.random() < 0.5:
            self._at(self.rng.uniform(0.1, 2.0), self._user, self.rng.choice(OURS))

    def _kill_two(self) -> None:
        for kind in self.rng.sample(("controller", "gateway", "codec_worker", "client"), 2):
            self._kill_one(kind)

    def _power_cut(self) -> None:
        """Everything at once; the stack comes back, clients do not."""
        world = self.world
        world.power = False
        for kind in ("controller", "gateway", "codec_worker", "client"):
            for process in world.living(kind):
                self._kill(process)
        self._at(self.rng.uniform(0.5, 3.0), setattr, world, "power", True)

    def _pause(self) -> None:
        kind = self.rng.choice(("codec_worker", "codec_worker", "gateway", "controller", "client"))
        process = self._some(kind)
        if process is not None and not process.paused:
            self._pause_for(process, self.rng.choice((0.1, 0.4, 0.8, 2.0, 5.0)))

    def _pause_for(self, process: Process, seconds: float) -> None:
        self.world.counts[f"paused {process.kind}"] += 1
        self.world.say(f"--- pause {process} for {seconds} s")
        self.world.loop.pause(process)
        self._at(seconds, self._resume, process)

    def _pause_client_while_calls_move(self) -> None:
        """Calls lose their stream, and then their worker, while a client is stopped: it finds what
        both workers have said all at once."""
        talking = [
            client.process
            for client in self.world.clients
            if client.process.alive
            and not client.process.paused
            and any(not talk.over for talk in client.talks)
        ]
        if talking:
            begin = self.rng.uniform(0.1, 0.6)
            self._pause_for(self.rng.choice(talking), begin + self.rng.uniform(0.2, 1.5))
            self._at(begin, self.rng.choice((self._kill_gateway, self._break_stream)))
            self._at(begin + self.rng.uniform(0.05, 0.5), self._kill_worker)

    def _lose_streams_and_workers(self, rng: random.Random) -> None:
        """A stream and its worker go one soon after the other: nobody is left who knows all that
        was played. These pairs have a generator of their own, so that seeds mean what they did."""
        for _ in range(rng.choice((0, 1, 1, 2))):
            at = rng.uniform(0.8, self.seconds)
            apart = rng.uniform(0.0, rng.choice((0.06, 0.6)))
            of_stream = rng.choice((self._kill_gateway, self._kill_gateway, self._break_stream))
            kinds = (self._pause_worker, self._pause_worker, self._drain_worker, self._kill_worker)
            of_worker = rng.choice((*kinds, self._break_connection_of_gateway))
            first, second = rng.sample((of_stream, of_worker), 2)
            self._at(at, first)
            self._at(at + apart, second)

    def _lose_database(self, rng: random.Random) -> None:
        """It does not answer for a while. Whatever was under way in it may be done or not."""
        at, seconds = rng.uniform(0.5, self.seconds), rng.choice((0.5, 3.0, 20.0, 60.0))

        def lose() -> None:
            self.world.say(f"--- the database is away for {seconds} s")
            now = self.world.loop.time()
            self.world.outages.append(Outage(hosts, now, now + seconds))

        hosts = rng.choice(((0,), (1,), (0, 1))) if self.world.fleet else (0, 1)
        self._at(at, lose)

    def _lose_hosts(self, rng: random.Random) -> None:
        """The controller of a host dies for long, or stands still for long: the other one runs its
        stack. That one does not do so at the same time, because a user whose call nobody takes for
        10 s gives up."""
        for _ in range(rng.choice((1, 1, 2))):
            seconds = rng.choice((13.0, 20.0, 40.0))
            lose = rng.choice((self._lose_host, self._lose_host, self._stop_host))
            at, host = rng.uniform(0.8, self.seconds), rng.randrange(2)
            self._at(at, self._alone, lose, host, seconds)

    def _alone(self, lose: Callable[[int, float], None], host: int, seconds: float) -> None:
        other = self._on(1 - host)
        gone = self.world.absent[1 - host] > self.world.loop.time()
        if not gone and not (other is not None and other.paused):
            lose(host, seconds)

    def _on(self, host: int) -> Process | None:
        living = (c for c in self.world.controllers if c.process.alive and c.host == host)
        return next((c.process for c in living), None)

    def _lose_host(self, host: int, seconds: float) -> None:
        self.world.absent[host] = self.world.loop.time() + seconds
        process = self._on(host)
        if process is not None:
            self.world.counts["lost hosts"] += 1
            self._kill(process)

    def _stop_host(self, host: int, seconds: float) -> None:
        process = self._on(host)
        if process is not None and not process.paused:
            self._pause_for(process, seconds)

    def _pause_worker(self) -> None:
        """One that has calls, if there is one."""
        living = [w for w in self.world.workers if w.process.alive and not w.process.paused]
        if living:
            worker = self.rng.choice([w for w in living if w.calls.calls] or living)
            self._pause_for(worker.process, self.rng.choice((0.1, 0.4, 0.8, 2.0)))

    def _resume(self, process: Process) -> None:
        self.world.say(f"--- {process} goes on")
        self.world.loop.resume(process, self.world.bus.shuffle)

    def _stop_controller(self) -> None:
        controller = self.world.controller
        if controller is not None and not controller.process.paused:
            self.world.counts["stopped controller"] += 1
            self.world.say(f"--- SIGTERM for {controller.process}")
            controller.stop.set()

    def _drain_worker(self) -> None:
        workers = [w for w in self.world.workers if w.process.alive and not w.draining]
        if workers:
            worker = self.rng.choice(workers)
            self.world.counts["drained codec_worker"] += 1
            self.world.say(f"--- SIGTERM for {worker.process}")
            worker.drain()

    def _break_connection(self) -> None:
        self._break_one(self.world.bus.connections)

    def _break_connection_of_gateway(self) -> None:
        """To a worker: both live on."""
        self._break_one(
            [
                connection
                for connection in self.world.bus.connections
                if (connection.dealer.owner.kind, connection.router.owner.kind)
                == ("gateway", "codec_worker")
            ]
        )

    def _break_one(self, connections: list[Connection]) -> None:
        if connections:
            connection = self.rng.choice(connections)
            self.world.counts["broken connection"] += 1
            self.world.say(f"--- {connection.dealer.owner} loses {connection.router.endpoint}")
            self.world.bus.break_connection(connection)

    def _break_stream(self) -> None:
        legs = [leg for leg in self.world.exchange.legs.values() if leg.media is not None]
        legs = [leg for leg in legs if not leg.media.over.done()]
        if legs:
            leg = self.rng.choice(legs)
            self.world.counts["broken stream"] += 1
            self.world.say(f"--- the stream of {leg.sid} breaks")
            leg.media.broken()

    def _someone_else(self) -> None:
        """Someone changes a number in Twilio's console, while nothing of ours is on its way."""
        world = self.world
        rows = world.store.overrides.values()
        busy = {row.number_sid for row in rows if row.uncertain_until > world.twilio.wall()}
        # A read is written over within READ_HOLDS, or twice that behind an outage, and no compare
        # can see what comes between.
        read_at, now = world.twilio.read_at, world.loop.time()
        busy |= {sid for sid, at in read_at.items() if now - at < 2 * READ_HOLDS + 1.0}
        free = [s for s in world.twilio.numbers if s not in busy and not world.twilio.in_flight[s]]
        if free:
            sid = self.rng.choice(free)
            world.counts["changes by others"] += 1
            world.say(f"--- someone changes {world.twilio.numbers[sid].number}")
            stood = world.twilio.numbers[sid].voice_url.startswith(PUBLIC_URL)
            world.counts["changes of an override"] += stood
            drawn = self.rng.random()
            if stood and drawn < 0.3:
                # They put back what was there. The other fields are still ours to put back.
                url = world.twilio.expected[sid].voice_url
            else:
                # What is ours of the other fields stays so: nobody but they knows better.
                url = f"https://other.example.com/{drawn}"
                world.twilio.expected[sid] = world.twilio.numbers[sid]
            world.twilio.change(sid, voice_url=url)

    # ------------------------------------------------------------------ the end of it

    def _calm(self) -> None:
        world = self.world
        world.calm = True
        world.twilio.trouble = 0.0
        world.bus.slow = 1.0
        world.say("--- calm")
