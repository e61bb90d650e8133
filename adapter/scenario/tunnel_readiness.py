"""Whether the public URL can be reached yet: asked before a number outside the account is dialled.

Scenario's own protocol and error, so that ``except scenario.TunnelNotReadyError`` goes on to work
and its CloudflareTunnel serves as it is.
"""

from __future__ import annotations

from scenario.voice import TunnelNotReadyError, TunnelReadiness

from trunkline.bus.redact import mask_url

__all__ = ["TunnelNotReadyError", "TunnelReadiness", "wait_for_tunnel"]


async def wait_for_tunnel(tunnel: TunnelReadiness | None, public_url: str | None) -> None:
    """Return once ``tunnel`` says that it is reachable (None: at once).

    Raises TunnelNotReadyError, with the tunnel's own error as its cause.
    """
    if tunnel is None:
        return
    try:
        await tunnel.wait_until_edge_reachable()
    except TunnelNotReadyError:
        raise
    except Exception as error:
        raise TunnelNotReadyError(
            f"place_call: public_base_url {mask_url(public_url)!r} is not reachable from the edge "
            "yet, so the call's media stream would connect to nothing. Not originating."
        ) from error
