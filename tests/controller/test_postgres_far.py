"""The journal on a PostgreSQL server that is far away: how often its answer is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import page_commands
from msgspec.structs import replace

from trunkline.controller.twilio.apply_restore import apply, restore

from .fake_carrier import OURS, row_for
from .machine import Machine, stack_id
from .postgres_journal import in_fleet
from .test_journal import DIAL

PAGE = page_commands.ROOT / "docs" / "database.md"


class Way:
    """The way to a server, through a proxy that counts how often the client has spoken after the
    server had: each time is a round trip."""

    def __init__(self) -> None:
        self.trips = 0

    @contextlib.asynccontextmanager
    async def to(self, url: str) -> AsyncIterator[str]:
        """The URL by which the server of ``url`` is reached on this way."""
        host, port = urlsplit(url).hostname, urlsplit(url).port
        serving: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            here = asyncio.current_task()
            assert here is not None
            serving.add(here)
            there, out = await asyncio.open_connection(host, port)
            asked = False

            async def carry(
                source: asyncio.StreamReader, sink: asyncio.StreamWriter, asks: bool
            ) -> None:
                nonlocal asked
                while data := await source.read(1 << 16):
                    self.trips += asks and not asked
                    asked = asks
                    sink.write(data)
                sink.close()
                await sink.wait_closed()

            await asyncio.gather(carry(reader, out, True), carry(there, writer, False))

        proxy = await asyncio.start_server(serve, "127.0.0.1")
        try:
            yield url.replace(f":{port}/", f":{proxy.sockets[0].getsockname()[1]}/")
        finally:
            proxy.close()
            await asyncio.wait(serving)  # the client has closed its connections


async def test_three_overrides_are_read_in_as_many_round_trips_as_one(url: str) -> None:
    way = Way()
    async with way.to(url) as far:
        journal = await in_fleet(far, 1).take(stack_id("far"), runs=True)
        assert journal._beating is not None
        journal._beating.cancel()
        rows, took = [], []
        for n in range(3):
            number, holders = f"+1415555010{n}", {f"s{n}": "hash"}
            rows.append(replace(row_for("PN1", f"o{n}"), number=number, holders=holders))
            await journal.plan(rows[-1], 5.0)
            before = way.trips
            assert await journal.open_overrides() == rows
            took.append(way.trips - before)
        await journal.close()
    assert took == [took[0]] * 3


async def test_a_dial_and_an_override_take_as_many_round_trips_as_the_page_says(
    machine: Machine, url: str
) -> None:
    """The numbers are those of a fleet, whose stacks ask one another's rows."""
    way = Way()
    async with way.to(url) as far:
        journal = await in_fleet(far, 1).take(stack_id("far"), runs=True)
        assert journal._beating is not None
        journal._beating.cancel()
        took = [way.trips]

        def note() -> None:
            took.append(way.trips - sum(took))

        await journal.turn()
        await journal.dial_asked(replace(DIAL, asked=time.time()))
        await journal.dial_taken(DIAL.request, "CA1")
        await journal.dial_closed(DIAL.request, 1.0)
        note()
        ops = machine.ops(stack_id("far"), journal)
        sid = machine.carrier.add_number(OURS, voice_url="https://agent.example.com/voice")
        row = row_for(sid)
        await apply(ops, row, machine.time.now + 30)
        note()
        found = await journal.override(row.id)
        assert found is not None
        await restore(ops, found)
        note()
        await journal.close()
    assert took[1:] == [13, 12, 13]
    says = (
        "A dial takes thirteen round trips, arming a number twelve, and putting it back thirteen."
    )
    assert says in " ".join(PAGE.read_text().split())
