"""The rendered manifests hold calls: their very commands, environment and probes, as processes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator

import psutil
import pytest
from e2e.stack import Stack, until

from benchmarks.postgres_server import Server
from trunkline.bus.curve import ClientCurve, CurveKeys, shown
from trunkline.bus.launch import free_ports

from .conversations import gateway_of, talking
from .pods import Balancer, Cluster, Pod

pytestmark = pytest.mark.measures


@pytest.fixture
def cluster(
    new_stack: Callable[[], Stack], postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> Cluster:
    """Manifests, secrets, and a public URL that leads to :class:`Balancer`; a client of this
    process has a key of its own and no token."""
    stack = new_stack()
    (public,) = free_ports(1)
    key = secrets.token_hex(32)
    client = ClientCurve.new(CurveKeys(key).server_public)
    monkeypatch.setenv("TRUNKLINE_CLIENT_KEY", client.text)
    values = {
        "TWILIO_ACCOUNT_SID": stack.account,
        "TWILIO_AUTH_TOKEN": stack.token,
        "TRUNKLINE_BUS_KEY": key,
        "TRUNKLINE_DATABASE_URL": postgres.database(),
    }
    found = Cluster(
        stack,
        values,
        {
            "TRUNKLINE_PUBLIC_URL": f"http://127.0.0.1:{public}",
            "TRUNKLINE_TWILIO_API_URL": stack.environment["TRUNKLINE_TWILIO_API_URL"],
            # Pods have a loopback of their own, and these share one.
            "TRUNKLINE_CONSOLE_PORT": str(stack.console),
            "TRUNKLINE_CALLS_PER_SECOND": "50",
            "OTEL_METRICS_EXPORTER": "none",
        },
    )
    found.bus_clients = f"{shown(client.public)}  tests\n"
    found.public = public
    return found


@pytest.fixture
async def pods(cluster: Cluster) -> AsyncIterator[dict[str, list[Pod]]]:
    """One controller, two gateways, two codec workers, all of them ready."""
    controller = cluster.pod("trunkline-controller")
    cluster.services["trunkline-controller"] = controller.ip
    cluster.stack.bus = f"tcp://{controller.ip}:7000"
    found = {
        name: [cluster.pod(f"trunkline-{name}") for _ in range(2)]
        for name in ("gateway", "codec-worker")
    }
    found["controller"] = [controller]
    everybody = [pod for each in found.values() for pod in each]
    await asyncio.gather(*(pod.ready() for pod in everybody))
    yield found
    for pod in everybody:
        assert pod.process.poll() is not None or pod.passes("livenessProbe")


@pytest.fixture
def balancer(cluster: Cluster, pods: dict[str, list[Pod]]) -> Iterator[Balancer]:
    """The Service of the gateways, behind the public URL."""
    found = Balancer(pods["gateway"], cluster.public)
    yield found
    found.close()


@pytest.mark.usefixtures("balancer")
async def test_a_codec_worker_is_evicted_under_calls(
    cluster: Cluster, pods: dict[str, list[Pod]]
) -> None:
    workers = pods["codec-worker"]
    assert "TWILIO_AUTH_TOKEN" not in workers[0].environment
    async with talking(cluster.stack, 2) as conversations:
        # Deployment and budget let one go once another is there.
        workers.append(cluster.pod("trunkline-codec-worker"))
        await workers[-1].ready()
        assert await workers.pop(0).terminate() == 0
        await conversations.both_ways(1.0)
        await until(
            lambda: len(cluster.stack.status()["codec_workers"]) == 2, "the next one stands by"
        )
        assert await workers.pop(0).terminate() == 0
        await conversations.both_ways(1.0)
    conversations.check_whole()
    conversations.check_holes(0.2)


async def test_a_gateway_is_drained_under_calls(
    cluster: Cluster, pods: dict[str, list[Pod]], balancer: Balancer
) -> None:
    async with talking(cluster.stack, 2, later=1) as conversations:
        keeper = psutil.Process(gateway_of(cluster.stack, conversations.calls[0])).ppid()
        (going,) = [pod for pod in pods["gateway"] if pod.process.pid == keeper]
        # The Service leads to it no more, and its streams go on.
        balancer.pods = [pod for pod in pods["gateway"] if pod is not going]
        ending = asyncio.ensure_future(going.terminate())
        await until(lambda: not going.passes("readinessProbe"), "it drains", 20.0)
        await conversations.both_ways(1.0)
        await conversations.add(conversations.later[0])
        await conversations.both_ways(1.0)
        assert not ending.done(), "its call is on"
    conversations.check_whole()
    assert await ending == 0
