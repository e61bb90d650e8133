"""``TwilioHarness``: an adapter behind a tunnel of its own, on a stack of doubles."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from fake_stack import THEIRS, FakeStack
from later import imported, testing
from phone import CREDENTIALS, placed

from trunkline.bus import messages as m

if TYPE_CHECKING:
    from trunkline import TwilioAgentAdapter


class FakeTunnel:
    """Stands in for cloudflared; what was done with it stands in ``log``."""

    log: list[str] = []  # noqa: RUF012  # one for each test, see the fixture
    failing = ""
    public_url = "https://quick.trycloudflare.com"

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self) -> FakeTunnel:
        self.log.append("up")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.log.append("down")
        if self.failing == "exit":
            raise OSError("cannot end")

    async def wait_until_edge_reachable(self) -> None:
        self.log.append("asked")
        if self.failing == "edge":
            raise testing.TunnelUnavailableError("no edge")


@pytest.fixture
def tunnel(monkeypatch: pytest.MonkeyPatch) -> type[FakeTunnel]:
    monkeypatch.setattr(FakeTunnel, "log", [])
    monkeypatch.setattr(FakeTunnel, "failing", "")
    imported()
    monkeypatch.setattr("trunkline.adapter.testing.CloudflareTunnel", FakeTunnel)
    return FakeTunnel


@pytest.fixture
def not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness finds no stack to join, and the adapter then finds the doubles."""

    async def nothing(*_: object) -> None:
        return None

    imported()
    monkeypatch.setattr("trunkline.adapter.testing.find", nothing)


@contextlib.asynccontextmanager
async def harness(stack: FakeStack, **given: Any) -> AsyncIterator[TwilioAgentAdapter]:
    settings: dict[str, Any] = CREDENTIALS | {"bus": stack.bus}
    async with testing.TwilioHarness(**(settings | given)) as agent:
        yield agent


async def test_a_harness_that_joins_a_stack_needs_no_tunnel(
    stack: FakeStack, tunnel: type[FakeTunnel]
) -> None:
    async with harness(stack, allowed_callees=[THEIRS]) as agent:
        assert agent.is_connected() and agent.public_base_url is None
        await placed(stack, agent, attach_stream="a-leg")
    assert tunnel.log == [] and not agent.is_connected()


@pytest.mark.usefixtures("not_found")
async def test_a_harness_gives_a_connected_adapter_behind_its_tunnel(
    stack: FakeStack, tunnel: type[FakeTunnel]
) -> None:
    async with harness(stack, allowed_callees=[THEIRS], http_port=4711) as agent:
        assert agent.is_connected()
        assert agent.public_base_url == tunnel.public_url
        assert isinstance(agent.tunnel_readiness, FakeTunnel)
        assert (agent.tunnel_readiness.port, agent.http_port) == (4711, 4711)
        assert agent.allowed_callees == {THEIRS}
        assert tunnel.log == ["up", "asked"]
        await placed(stack, agent, attach_stream="a-leg")
    assert tunnel.log == ["up", "asked", "asked", "down"]
    assert not agent.is_connected()


@pytest.mark.usefixtures("not_found")
async def test_a_harness_whose_tunnel_fails_takes_all_down_and_says_why(
    stack: FakeStack, tunnel: type[FakeTunnel]
) -> None:
    tunnel.failing = "edge"
    with pytest.raises(testing.TunnelUnavailableError, match="no edge"):
        async with harness(stack):
            pytest.fail("it must not begin")
    assert tunnel.log == ["up", "asked", "down"]
    assert [type(r) for r in stack.controller.requests] == [m.OpenSession, m.CloseSession]


@pytest.mark.usefixtures("not_found")
async def test_what_fails_on_a_harness_s_way_out_is_logged(
    stack: FakeStack, tunnel: type[FakeTunnel], caplog: pytest.LogCaptureFixture
) -> None:
    tunnel.failing = "exit"
    async with harness(stack):
        pass
    assert "tunnel teardown raised" in caplog.text


def test_without_cloudflared_the_harness_says_where_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")

    async def enter() -> None:
        async with testing.CloudflareTunnel(port=1):
            pytest.fail("it must not begin")

    with pytest.raises(testing.TunnelUnavailableError, match=r"developers\.cloudflare\.com"):
        asyncio.run(enter())
