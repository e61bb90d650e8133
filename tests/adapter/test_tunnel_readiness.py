"""A tunnel that is not ready: what the error says."""

from __future__ import annotations

from typing import Any

import pytest
from later import scenario, tunnel_readiness

URL = "https://me:pa55@line.example.com"


class Unreachable:
    async def wait_until_edge_reachable(self) -> None:
        raise OSError("no such name")


async def test_its_url_is_shown_without_its_password() -> None:
    tunnel: Any = Unreachable()
    with pytest.raises(scenario.TunnelNotReadyError) as caught:
        await tunnel_readiness.wait_for_tunnel(tunnel, URL)
    assert "public_base_url 'https://me:***@line.example.com' is not reachable" in str(caught.value)
    assert "Not originating" in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
