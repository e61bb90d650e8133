"""For tests with real numbers: a public URL and a connected adapter in one ``async with``.

The counterpart of ``scenario.voice.testing``; its good parts are used as they are
(``CloudflareTunnel``, ``drive_call``, ``make_agent_input``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from scenario.voice.testing import (
    CloudflareTunnel,
    TunnelUnavailableError,
    drive_call,
    make_agent_input,
)

from trunkline.bus.launch import free_ports
from trunkline.bus.redact import redact_number

from .scenario.adapter import DEFAULT_HTTP_PORT, TwilioAgentAdapter
from .scenario.join import find
from .turns.gate_options import SpeechGateSetting

__all__ = [
    "CloudflareTunnel",
    "TunnelUnavailableError",
    "TwilioAgentAdapter",
    "TwilioHarness",
    "drive_call",
    "free_port",
    "make_agent_input",
]

log = logging.getLogger("scenario.voice.testing.twilio_harness")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that no other process gets, until this one ends."""
    (port,) = free_ports(1)
    return port


class TwilioHarness:
    """``async with TwilioHarness(...) as adapter``: a connected TwilioAgentAdapter whose public URL
    is a cloudflared quick tunnel of its own.

    First the tunnel, then ``connect()``, which starts a private stack on ``http_port`` behind it,
    then a wait until the tunnel can be reached. Where a running stack is joined (the one at
    ``bus``, or that of ``pytest --phone-sim``), there is no tunnel: that stack has a public URL of
    its own. A failure on the way in is undone and raised; a failure on the way out is logged.
    """

    def __init__(
        self,
        *,
        account_sid: str,
        auth_token: str,
        phone_number: str,
        http_port: int = DEFAULT_HTTP_PORT,
        allowed_callers: list[str] | None = None,
        allowed_callees: list[str] | None = None,
        on_dtmf: Callable[[str], Any] | None = None,
        validate_signature: bool = True,
        bus: str | None = None,
        speech_gate: SpeechGateSetting = True,
    ) -> None:
        self._http_port = http_port
        self._settings: dict[str, Any] = {
            "account_sid": account_sid,
            "auth_token": auth_token,
            "phone_number": phone_number,
            "allowed_callers": allowed_callers,
            "allowed_callees": allowed_callees,
            "on_dtmf": on_dtmf,
            "validate_signature": validate_signature,
            "bus": bus,
            "speech_gate": speech_gate,
        }
        self._tunnel: CloudflareTunnel | None = None
        self._adapter: TwilioAgentAdapter | None = None

    async def __aenter__(self) -> TwilioAgentAdapter:
        named = (self._settings[name] for name in ("bus", "account_sid", "auth_token"))
        if await find(*named) is not None:
            self._adapter = TwilioAgentAdapter(http_port=self._http_port, **self._settings)
            await self._adapter.connect()
            return self._adapter
        tunnel = CloudflareTunnel(port=self._http_port)
        await tunnel.__aenter__()
        self._tunnel = tunnel
        try:
            self._adapter = TwilioAgentAdapter(
                public_base_url=tunnel.public_url,
                tunnel_readiness=tunnel,
                http_port=self._http_port,
                **self._settings,
            )
            await self._adapter.connect()
            await tunnel.wait_until_edge_reachable()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        log.info(
            "TwilioHarness ready: tunnel %s to localhost:%d, number %s",
            tunnel.public_url,
            self._http_port,
            redact_number(self._adapter.phone_number),
        )
        return self._adapter

    async def __aexit__(self, *exc: Any) -> None:
        """The adapter first, so that the number is put back while the tunnel still stands."""
        adapter, tunnel = self._adapter, self._tunnel
        self._adapter = self._tunnel = None
        if adapter is not None:
            try:
                await adapter.disconnect()
            except Exception:
                log.exception("TwilioHarness: adapter.disconnect() raised")
        if tunnel is not None:
            try:
                await tunnel.__aexit__(*exc)
            except Exception:
                log.exception("TwilioHarness: tunnel teardown raised")
