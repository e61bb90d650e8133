"""A customer's server in the test's own loop, a carrier that calls it, a `twilio` client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from twilio.rest import Client

from trunkline.carrier_sim.sim import CarrierSim

from .server import Customer, twilio_client


@asynccontextmanager
async def serving(certificate: tuple[Path, Path] | None = None) -> AsyncIterator[Customer]:
    """A customer's server on a free port, over TLS where a certificate and its key are given."""
    customer = Customer()
    app = Starlette(
        routes=[
            WebSocketRoute("/stream", customer.stream),
            Route("/{rest:path}", customer.post, methods=["GET", "POST"]),
        ]
    )
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        log_level="error",
        lifespan="off",
        ws="websockets-sansio",
        ssl_certfile=certificate[0] if certificate else None,
        ssl_keyfile=certificate[1] if certificate else None,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    customer.base = f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
    try:
        yield customer
    finally:
        server.should_exit = True
        server.force_exit = True
        await task


@pytest.fixture
async def customer() -> AsyncIterator[Customer]:
    async with serving() as customer:
        yield customer


@pytest.fixture
async def sim() -> AsyncIterator[CarrierSim]:
    async with CarrierSim() as sim:
        yield sim


@pytest.fixture
def twilio(sim: CarrierSim) -> Iterator[Client]:
    with twilio_client(sim, sim.auth_token) as client:
        yield client
