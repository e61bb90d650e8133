"""What the controller, and its journal in PostgreSQL, take for calls that are up, that come and
that end, by how many there are. docs/ten-thousand.md is of what this finds.

It runs the controller's rules alone (:class:`trunkline.controller.core.Core`), on a clock of its
own, with the messages that so many gateways, codec workers and clients send; each message is
decoded and each answer encoded as on the bus. So a run with 10,000 calls needs neither 10,000 calls
of sound nor as many processes. Left out are ZeroMQ itself and what Twilio's REST takes.

The database is a PostgreSQL server that the run starts, and the journal is the controller's own.
Its rows are those of such calls: each is asked for, is taken, is seen, and is closed.

Each call is a dial in a-leg mode by a session of its own, which is what a test with one line makes.

    python benchmarks/control_plane.py              # 100, 1,000 and 10,000 calls; 2 minutes
    python benchmarks/control_plane.py --calls 5000
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
import msgspec
import psycopg

from benchmarks import page
from benchmarks.postgres_server import Server
from benchmarks.write import write
from trunkline.bus import messages as m
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller.core import TICK_SECONDS, Core
from trunkline.controller.journal.postgres.register import Register
from trunkline.controller.journal.rows import DialRow
from trunkline.controller.journal.store import Journal
from trunkline.controller.rules.book import Identity, Rules

ACCOUNT: Final = "AC" + "1" * 32
OWN: Final = "+14155551234"
COUNTS: Final = (100, 1_000, 10_000)
#: Calls of one gateway, one codec worker and one client.
OF_A_GATEWAY, OF_A_WORKER, OF_A_CLIENT = 600, 600, 100
#: Beats of each process in a second.
BEATS: Final = 2
#: Calls that come while their cost is measured, and seconds for which standing calls are.
COMING, STANDING = 200, 5
#: How many come in a second.
A_SECOND: Final = 50
#: Calls whose rows are written to the database, and how many of them at once.
WRITTEN: Final = 2_000
AT_ONCE: Final = (1, 50)
#: Instructions that end in one write to the journal.
WRITES: Final = (do.Create, do.NoteTaken, do.NoteSeen, do.CloseDial)


class Plane:
    """A controller's rules, and everybody who talks to them about ``calls`` calls."""

    def __init__(self, calls: int) -> None:
        self.now = 1000.0
        identity = Identity("stack", 1, 1, ACCOUNT, "https://line.example.com", 1.7e9, self.now)
        self.core = Core(identity, Rules(60, 1000.0))
        self.encode = msgspec.msgpack.Encoder().encode
        self.decode = msgspec.msgpack.Decoder(m.ToController).decode
        self.ids = itertools.count(1)
        self.gateways = [f"gateway-{n}" for n in range(1 + calls // OF_A_GATEWAY)]
        self.workers = [f"codec_worker-{n}" for n in range(2 + calls // OF_A_WORKER)]
        self.clients = [f"adapter-{n}" for n in range(1 + calls // OF_A_CLIENT)]
        #: what the rules want done, and what was written to the journal
        self.work: list[Any] = []
        self.writes: Counter[str] = Counter()
        self.replies: dict[tuple[str, int], Any] = {}
        #: by gateway, worker, client: what its beats name
        self.streams: dict[str, list[m.StreamStats]] = {g: [] for g in self.gateways}
        self.carried: dict[str, list[m.CallStats]] = {w: [] for w in self.workers}
        self.sessions: dict[str, list[str]] = {c: [] for c in self.clients}
        self.up: list[tuple[str, m.CallInfo]] = []
        #: by call: its dial
        self.requests: dict[str, str] = {}
        #: CPU seconds that calls took which came, and which ended
        self.came = self.ended = 0.0
        for peer in (*self.gateways, *self.workers, *self.clients):
            role: Any = peer.rpartition("-")[0]
            endpoint = f"tcp://10.0.0.1:{next(self.ids)}" if role == "codec_worker" else None
            self.hear(m.Hello(role=role, peer=peer, pid=1, endpoint=endpoint))
        self.seconds(4)  # claims are over

    # ------------------------------------------------------------------ in and out

    def hear(self, message: Any) -> None:
        """One message of the bus."""
        self.feed(self.decode(self.encode(message)))

    def feed(self, event: Any) -> None:
        for instruction in self.core.handle(event, self.now):
            if isinstance(instruction, do.Send):
                self.encode(instruction.message)
                if isinstance(instruction.message, m.Reply):
                    reply = instruction.message
                    self.replies[instruction.peer, reply.id] = reply
            elif isinstance(instruction, WRITES):
                self.writes[type(instruction).__name__] += 1
                self.work.append(instruction)
            else:
                self.work.append(instruction)

    def ask(self, peer: str, body: Any) -> Any:
        number = next(self.ids)
        self.hear(m.Request(peer=peer, id=number, ttl=60.0, body=body))
        self.look_up()
        reply = self.replies.pop((peer, number), None)
        assert reply is None or reply.error is None, reply
        return reply and reply.body

    def look_up(self) -> None:
        for found in [w for w in self.work if isinstance(w, do.LookUp)]:
            self.work.remove(found)
            self.feed(ev.LookedUp(found.number, "PN1"))

    def take(self, kind: type[Any]) -> Any:
        found = next(w for w in self.work if isinstance(w, kind))
        self.work.remove(found)
        return found

    # ------------------------------------------------------------------ a call

    def call(self) -> None:
        """A session is opened and dials; the call is taken, rings, is answered, has its stream."""
        self.now += 1 / A_SECOND
        n = next(self.ids)
        client = self.clients[n % len(self.clients)]
        gateway = self.gateways[n % len(self.gateways)]
        session, secret = secrets.token_hex(16), secrets.token_hex(16)
        to = f"+1415666{n % 10_000:04d}"
        info = m.SessionInfo(session=session, secret=secret, number=OWN, allowed_callees=[to])
        self.ask(client, m.OpenSession(info=info))
        self.sessions[client].append(session)
        request, sid = secrets.token_hex(16), f"CA{n:032x}"
        dial = m.Dial(
            session=session,
            request=request,
            to=to,
            mode="a-leg",
            timeout=60.0,
            max_duration=300.0,
        )
        self.ask(client, dial)
        create = self.take(do.Create)
        assert create.row.request == request
        self.feed(ev.Taken(request, sid, "queued"))
        for status in ("initiated", "ringing", "in-progress"):
            self.callback(gateway, request, sid, status)
        token = create.order.twiml.split('value="')[1][:32]
        start = m.StreamStart(token=token, call_sid=sid, stream_sid=f"MZ{n:032x}", gateway=gateway)
        accepted = self.ask(gateway, start)
        assert isinstance(accepted, m.StreamAccepted), accepted
        found = accepted.info
        self.up.append((gateway, found))
        self.streams[gateway].append(m.StreamStats(call=found.call, ordinal=found.ordinal))
        assert found.placement is not None
        stats = m.CallStats(call=found.call, generation=1, frames_in=1, frames_out=1)
        self.carried[found.placement.primary.id].append(stats)
        self.requests[found.call] = request

    def callback(self, gateway: str, request: str, sid: str, status: str) -> None:
        form = {"CallSid": sid, "CallStatus": status}
        done = self.ask(gateway, m.StatusCallback(form=form, query={"d": request}))
        assert isinstance(done, m.Done)

    def end(self) -> None:
        """The oldest call is over, by its far end, and its client closes the session."""
        gateway, info = self.up.pop(0)
        self.streams[gateway] = [s for s in self.streams[gateway] if s.call != info.call]
        assert info.placement is not None
        worker = info.placement.primary.id
        self.carried[worker] = [s for s in self.carried[worker] if s.call != info.call]
        began = time.thread_time()
        self.hear(
            m.StreamClosed(call=info.call, ordinal=info.ordinal, reason="stop", gateway=gateway)
        )
        self.callback(gateway, self.requests.pop(info.call), info.sid, "completed")
        client = next(c for c, of in self.sessions.items() if info.session in of)
        self.ask(client, m.CloseSession(session=info.session))
        self.ended += time.thread_time() - began
        self.sessions[client].remove(info.session)
        self.work.clear()

    # ------------------------------------------------------------------ time

    def tick(self) -> None:
        self.now += TICK_SECONDS
        self.feed(ev.Tick())

    def beats(self) -> None:
        for gateway, streams in self.streams.items():
            self.hear(m.Beat(peer=gateway, streams=streams))
        for worker, carried in self.carried.items():
            self.hear(m.Beat(peer=worker, calls=carried))
        for client, sessions in self.sessions.items():
            self.hear(m.Beat(peer=client, sessions=sessions))

    def seconds(self, count: int) -> None:
        ticks = round(1 / TICK_SECONDS)
        for n in range(count * ticks):
            if n % (ticks // BEATS) == 0:
                self.beats()
            self.tick()


def come(plane: Plane, calls: int) -> None:
    """So many calls come, at the pace of A_SECOND."""
    for n in range(calls):
        if n % (A_SECOND // BEATS) == 0:
            plane.beats()
            plane.tick()
        began = time.thread_time()
        plane.call()
        plane.came += time.thread_time() - began


def measured(calls: int) -> dict[str, Any]:
    """What ``calls`` calls at once cost the controller."""
    plane = Plane(calls)
    coming = min(COMING, calls)
    come(plane, calls - coming)
    plane.seconds(3)
    before, plane.came = plane.writes.copy(), 0.0
    come(plane, coming)
    plane.seconds(3)
    began = time.thread_time()
    plane.seconds(STANDING)
    stand = time.thread_time() - began
    began = time.thread_time()
    for _ in range(STANDING * BEATS):
        plane.beats()
    beats = time.thread_time() - began
    for _ in range(coming):
        plane.end()
    writes = plane.writes - before
    return {
        "calls": calls,
        "gateways": len(plane.gateways),
        "codec_workers": len(plane.workers),
        "clients": len(plane.clients),
        "comes_ms": plane.came / coming * 1000,
        "stands_ms": stand / STANDING * 1000,
        "of_beats_ms": beats / STANDING * 1000,
        "ends_ms": plane.ended / coming * 1000,
        "writes": {name: count / coming for name, count in writes.items()},
    }


async def life(journal: Journal, n: int) -> None:
    """All that the journal has of one call."""
    request, sid = f"{n:032x}", f"CA{n:032x}"
    row = DialRow(
        request=request,
        session=f"s{n}",
        secret_hash="hash",  # noqa: S106  # of no secret
        call=f"c{n}",
        mode="a-leg",
        callee=f"+1415666{n % 10_000:04d}",
        caller=OWN,
        timeout=60.0,
        max_duration=300.0,
        token_hash=request,
        sid=None,
        state="asked",
        asked=time.time(),
    )
    await journal.dial_asked(row)
    await journal.dial_taken(request, sid)
    await journal.note_seen(sid, time.time())
    await journal.dial_closed(request, 180.0)


async def written(url: str, calls: int, at_once: int) -> dict[str, float]:
    """What the rows of ``calls`` calls take, with so many calls at once."""
    journal = await Register(url, ACCOUNT, "benchmark").take(secrets.token_hex(6))

    def counts() -> tuple[int, int]:
        with psycopg.connect(url) as db:
            found = db.execute(
                "SELECT sum(beat), pg_current_wal_insert_lsn() - '0/0' FROM trunkline.stacks"
            ).fetchone()
        assert found is not None
        return int(found[0]), int(found[1])

    numbers = itertools.count(at_once * 1_000_000)
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            await life(journal, next(numbers))

    transactions, wal = counts()
    began = time.monotonic()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    seconds = time.monotonic() - began
    now_transactions, now_wal = counts()
    await journal.close()
    return {
        "at_once": at_once,
        "calls_a_second": calls / seconds,
        "transactions": (now_transactions - transactions) / calls,
        "wal_bytes": (now_wal - wal) / calls,
    }


def of_database() -> list[dict[str, float]]:
    """The journal's rows in a PostgreSQL server that waits for its disk."""
    with contextlib.closing(Server(sync=True)) as server:
        server.start()
        return [asyncio.run(written(server.database(), WRITTEN, at_once)) for at_once in AT_ONCE]


@click.command(help=__doc__)
@click.option("--calls", multiple=True, type=click.IntRange(min=10), default=COUNTS)
def main(calls: tuple[int, ...]) -> None:
    found: dict[str, Any] = {"calls": [], "database": of_database()}
    for each in found["database"]:
        print(json.dumps(each), flush=True)
    for count in calls:
        found["calls"].append(measured(count))
        print(json.dumps(found["calls"][-1]), flush=True)
    if calls == COUNTS:
        page.OUT.mkdir(parents=True, exist_ok=True)
        (page.OUT / "control_plane.json").write_text(json.dumps(found))
        write()


if __name__ == "__main__":
    main()
