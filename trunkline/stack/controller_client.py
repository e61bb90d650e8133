"""A short connection to the controller of a running stack, for a few questions."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from typing import Any

import zmq

from trunkline.bus import messages as m
from trunkline.bus.control import UNAVAILABLE_AFTER, ControlClient
from trunkline.bus.curve import stop_authenticator
from trunkline.bus.settings import Settings


@contextlib.asynccontextmanager
async def controller_client(
    settings: Settings, *, timeout: float = UNAVAILABLE_AFTER
) -> AsyncIterator[ControlClient]:
    """A client that the controller at ``settings.bus`` has welcomed.

    Raises StackUnavailableError where no controller answers within ``timeout`` seconds.
    """
    address, curve = settings.address, settings.client_curve
    peer = f"ask-{os.getpid()}-{secrets.token_hex(4)}"
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    client = ControlClient(
        context,
        address,
        peer=peer,
        hello=lambda: m.Hello(role="adapter", peer=peer, pid=os.getpid()),
        beat=lambda: m.Beat(peer=peer),
        on_event=lambda event: None,
        curve=curve,
    )
    client.start()
    try:
        await client.wait_welcome(timeout)
        yield client
    finally:
        await client.close()
        stop_authenticator(context)
        context.term()


async def get_status(client: ControlClient) -> dict[str, Any]:
    """The controller's status, which is the object of ``trunkline status --json``."""
    report = await client.request(m.GetStatus(), m.StatusReport, timeout=5.0)
    return report.status
