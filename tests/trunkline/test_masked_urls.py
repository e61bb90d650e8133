"""The password of a public URL: what holds the URL shows it without."""

from __future__ import annotations

from typing import Any

import pytest
from scenario.voice import TunnelNotReadyError

from trunkline.adapter.tunnel_readiness import wait_for_tunnel
from trunkline.bus import messages as m
from trunkline.controller.core import Identity
from trunkline.controller.marks import Mark
from trunkline.controller.overrides import Workshop
from trunkline.pytest_plugin import PhoneStack
from trunkline.shared_keeper import StackInfo

URL = "https://me:pa55@line.example.com"
MASKED = "https://me:***@line.example.com"
NOTHING: Any = None


@pytest.mark.parametrize(
    ("holder", "shown"),
    [
        (PhoneStack("ipc:///b", "AC1", "token", URL), True),
        (StackInfo("ipc:///b", "AC1", "token", URL), True),
        (m.Welcome(epoch=1, controller="c", pid=1, account="A", public_url=URL, lead_ms=60), True),
        (Mark(URL, "o", "s", "sealed"), False),
        (Identity("stack", 1, 1, "AC1", URL, 0.0, 0.0), False),
        (Workshop("stack", URL, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_reprs(holder: object, shown: bool) -> None:
    text = repr(holder)
    assert (MASKED in text) == shown
    assert "pa55" not in text


class Unreachable:
    async def wait_until_edge_reachable(self) -> None:
        raise OSError("no such name")


async def test_a_tunnel_that_is_not_ready() -> None:
    tunnel: Any = Unreachable()
    with pytest.raises(TunnelNotReadyError) as caught:
        await wait_for_tunnel(tunnel, URL)
    assert f"public_base_url '{MASKED}' is not reachable" in str(caught.value)
