"""Keepers: the working process is started again, the socket stays, and the end is orderly."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from trunkline.bus.http import Session

from .conftest import ENDS_WITHIN, Running, Trunkline, alive

pytestmark = pytest.mark.e2e


def worker_of(keeper: Running, role: str) -> int:
    """The working process, once it is there."""
    keeper.until(lambda: keeper.children(role))
    return keeper.children(role)[0]


def health(port: int) -> int:
    with Session() as session:
        return session.get(f"http://127.0.0.1:{port}/healthz", timeout=15).status_code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_keeper_ends_with_its_child(trunkline: Trunkline, number: int) -> None:
    keeper = trunkline.start("codec-worker", "--keep-alive")
    keeper.until(lambda: "codec worker" in keeper.err)
    child = worker_of(keeper, "codec-worker")
    keeper.process.send_signal(number)
    status, took = keeper.end(number)  # twice is harmless
    assert (status, took < ENDS_WITHIN) == (0, True)
    assert not alive(child)


def test_probes_see_by_two_files_whether_the_process_does_its_work(trunkline: Trunkline) -> None:
    health_dir = trunkline.directory / "health"
    alive_file, ready_file = health_dir / "alive", health_dir / "ready"

    def younger(path: Path, than: float) -> bool:
        return path.exists() and path.stat().st_mtime > than

    worker = trunkline.start("codec-worker", "--keep-alive", "--health-dir", str(health_dir))
    worker.until(lambda: alive_file.exists())
    assert not ready_file.exists(), "no controller has welcomed it"
    first = alive_file.stat().st_mtime
    worker.until(lambda: younger(alive_file, first))
    stopped = worker_of(worker, "codec-worker")
    os.kill(stopped, signal.SIGSTOP)
    worker.until(lambda: time.time() - alive_file.stat().st_mtime > 2.0)
    os.kill(stopped, signal.SIGKILL)  # its keeper could end no sooner than this


def test_connections_wait_while_the_gateway_is_away(trunkline: Trunkline) -> None:
    keeper = trunkline.start("gateway", "--keep-alive")
    child = worker_of(keeper, "gateway")
    assert health(trunkline.port) == 200
    os.kill(child, signal.SIGKILL)
    assert health(trunkline.port) == 200
    assert worker_of(keeper, "gateway") != child


def test_another_stack_on_the_port_is_refused_in_one_line(trunkline: Trunkline) -> None:
    first = trunkline.start("gateway", "--keep-alive")
    first.until(lambda: "listening on" in first.err)
    other = trunkline.start("gateway", TRUNKLINE_BUS=f"ipc://{trunkline.directory}/other")
    assert other.process.wait(15) == 1
    assert other.err.count("\n") == 1
    assert (
        f"the port is held by the trunkline stack at ipc://{trunkline.directory}/bus" in other.err
    )


def test_a_taken_port_is_one_line(trunkline: Trunkline) -> None:
    with socket.create_server(("127.0.0.1", trunkline.port)):
        keeper = trunkline.start("gateway", "--keep-alive")
        assert keeper.process.wait(15) == 1
    assert keeper.err.count("\n") == 1
    assert "the port is taken by another process" in keeper.err


def test_wrong_settings_end_the_keeper_at_once(trunkline: Trunkline) -> None:
    keeper = trunkline.start("gateway", "--keep-alive", TWILIO_AUTH_TOKEN="")
    assert keeper.process.wait(15) == 1
    assert keeper.err.count("\n") == 1
    assert "TWILIO_AUTH_TOKEN is not set" in keeper.err


def test_honchos_port_is_ignored(trunkline: Trunkline) -> None:
    keeper = trunkline.start("gateway", PORT="5100")
    keeper.until(lambda: f"listening on http://127.0.0.1:{trunkline.port}" in keeper.err)
