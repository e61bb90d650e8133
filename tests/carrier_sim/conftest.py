"""A customer's server in the test's own loop, a carrier that calls it, a `twilio` client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from twilio.rest import Client

from trunkline.carrier_sim.sim import CarrierSim

from .server import Customer, RewritingHttpClient


@pytest.fixture
async def customer() -> AsyncIterator[Customer]:
    customer = Customer()
    app = Starlette(
        routes=[
            WebSocketRoute("/stream", customer.stream),
            Route("/{rest:path}", customer.post, methods=["GET", "POST"]),
        ]
    )
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", lifespan="off", ws="websockets-sansio"
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.005)
    customer.port = server.servers[0].sockets[0].getsockname()[1]
    customer.base = f"http://127.0.0.1:{customer.port}"
    yield customer
    server.should_exit = True
    server.force_exit = True
    await task


@pytest.fixture
async def sim() -> AsyncIterator[CarrierSim]:
    async with CarrierSim() as sim:
        yield sim


@pytest.fixture
def twilio(sim: CarrierSim) -> Iterator[Client]:
    http = RewritingHttpClient(sim.base_url)
    yield Client(sim.account_sid, sim.auth_token, http_client=http)
    http.close()
