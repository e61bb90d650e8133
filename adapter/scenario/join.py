"""Which stack an adapter with credentials of its own joins.

In this order: the stack at ``bus=``; the stack at ``TRUNKLINE_BUS``; a stack that answers at the
default address and belongs to the same account. If there is none, the adapter starts a private
stack for these credentials, which needs a public URL.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from trunkline.bus import settings
from trunkline.bus.endpoints import BusAddress, listened_at
from trunkline.bus.errors import StackUnavailableError

from ..client import client as bus_client
from . import private_stack
from .private_stack import PrivateStack, StackRequest

log = logging.getLogger("scenario.voice.twilio")

#: A stack at the default address may take this long to answer, once its socket takes connections.
ANSWER_WITHIN = 3.0

NO_PUBLIC_URL = (
    "TwilioAgentAdapter: public_base_url is required. No running stack was found to join, so "
    "trunkline has to start one: supply a stable public HTTPS URL that routes to this machine, "
    "wrap the adapter in trunkline.adapter.testing.TwilioHarness, or start a stack with "
    "`trunkline up`."
)


@dataclass(frozen=True)
class Joined:
    """The stack at ``bus``; ``private`` where it was started for us (give it back with
    :func:`leave`)."""

    bus: str
    private: PrivateStack | None = None


async def join(bus: str | None, wanted: StackRequest) -> Joined:
    """Find the stack, or start one as ``wanted``. Raises RuntimeError where one has to be started
    and there is no URL, CarrierError where Twilio refuses it, StackUnavailableError where it does
    not get ready for another reason, SettingsError where a setting is wrong."""
    found = await find(bus, wanted.account_sid, wanted.auth_token)
    if found is not None:
        return Joined(found)
    if not wanted.public_url:
        raise RuntimeError(NO_PUBLIC_URL)
    stack = await private_stack.acquire(wanted)
    return Joined(stack.bus, stack)


async def find(bus: str | None, account_sid: str, auth_token: str) -> str | None:
    """The address of the stack to join; None where one has to be started. SettingsError where a
    setting is wrong."""
    found = settings.load(bus=bus, auth_token=auth_token)
    if bus is not None or "bus" in found.given:
        return found.bus
    return found.bus if await _answers(found.address, account_sid) else None


async def leave(joined: Joined) -> None:
    """Give a private stack back. A stack that was joined is left as it is."""
    if joined.private is not None:
        await private_stack.release(joined.private)


async def _answers(address: BusAddress, account_sid: str) -> bool:
    """A controller for this account answers at the default address."""
    if not _takes_connections(address):
        return False
    client = await bus_client.acquire_in_thread(lambda: bus_client.acquire(address, lambda: None))
    try:
        welcome = await client.welcome(ANSWER_WITHIN)
    except StackUnavailableError:
        return False
    finally:
        await client.release()
    if welcome.account != account_sid:
        log.info("the stack at %s belongs to another account; not joined", address.text)
        return False
    return True


def _takes_connections(address: BusAddress) -> bool:
    """False at once where no process listens: no socket file, or one that was left behind."""
    if address.directory is None:
        return True
    try:
        return listened_at(address.directory / "control")
    except OSError:
        return False
