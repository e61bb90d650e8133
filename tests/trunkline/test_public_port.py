"""One listening socket for all gateways of a stack, and nobody else's."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trunkline.bus.errors import SettingsError
from trunkline.stack import public_port
from trunkline.stack.public_port import PortTakenError, PublicPort

BUS = "ipc:///run/a"
OTHER_BUS = "ipc:///run/b"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def first(directory: Path) -> Iterator[PublicPort]:
    port = PublicPort.claim("127.0.0.1", 0, BUS, directory)
    yield port
    port.close()


def accepts(port: PublicPort) -> bool:
    """Whether a connection to the address reaches this very socket."""
    with socket.create_connection(port.address, timeout=5) as client:
        port.listening.settimeout(5)
        served, _ = port.listening.accept()
        with served:
            return served.getpeername() == client.getsockname()


def test_a_free_port_listens(first: PublicPort) -> None:
    assert first.first
    assert first.address[0] == "127.0.0.1"
    assert accepts(first)


def test_nothing_of_it_is_left(directory: Path) -> None:
    first = PublicPort.claim("127.0.0.1", 0, BUS, directory)
    second = PublicPort.claim("127.0.0.1", first.address[1], BUS, directory)
    second.close()
    first.close()
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(PortTakenError):
        PublicPort.claim("127.0.0.1", other.getsockname()[1], BUS, directory)
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address(host: str, directory: Path) -> None:
    port = PublicPort.claim(host, 0, BUS, directory)
    try:
        assert port.address[0] == "::1"
        assert accepts(port)
    finally:
        port.close()


def test_who_asks_and_says_nothing_keeps_nobody_waiting_for_long(
    first: PublicPort, directory: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(directory / f"port-{first.address[1]}.sock"))
        second = PublicPort.claim("127.0.0.1", first.address[1], BUS, directory)
    second.close()


def test_locks_are_not_taken_where_others_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setattr(public_port, "runtime_path", lambda: tmp_path)
    with pytest.raises(SettingsError, match="chmod 700"):
        public_port.locks_directory()


def test_a_second_gateway_of_the_stack_shares_the_socket(
    first: PublicPort, directory: Path
) -> None:
    second = PublicPort.claim("127.0.0.1", first.address[1], BUS, directory)
    try:
        assert not second.first
        assert second.address == first.address
        assert accepts(second)
    finally:
        second.close()


def test_another_stack_is_refused_by_name(first: PublicPort, directory: Path) -> None:
    with pytest.raises(PortTakenError, match=f"held by the trunkline stack at {BUS}"):
        PublicPort.claim("127.0.0.1", first.address[1], OTHER_BUS, directory)


def test_a_foreign_program_on_the_port_is_named_as_such(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = foreign.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"TRUNKLINE_HTTP_PORT={port}: the port is taken"):
            PublicPort.claim("127.0.0.1", port, BUS, directory)


def test_a_host_that_is_not_ours_is_a_clear_error(directory: Path) -> None:
    with pytest.raises(SettingsError, match=r"TRUNKLINE_HTTP_HOST=192\.0\.2\.1"):
        PublicPort.claim("192.0.2.1", 8765, BUS, directory)


def test_after_the_first_is_gone_its_port_is_free_again(directory: Path) -> None:
    first = PublicPort.claim("127.0.0.1", 0, BUS, directory)
    port = first.address[1]
    first.close()
    first.close()
    other = PublicPort.claim("127.0.0.1", port, OTHER_BUS, directory)
    assert other.first
    other.close()


def test_a_sharer_keeps_the_socket_and_takes_over_when_the_first_ends(directory: Path) -> None:
    first = PublicPort.claim("127.0.0.1", 0, BUS, directory)
    port = first.address[1]
    second = PublicPort.claim("127.0.0.1", port, BUS, directory)
    first.close()
    assert accepts(second)
    third = PublicPort.claim("127.0.0.1", port, BUS, directory)  # asks the second now
    try:
        assert second.first
        assert not third.first
        assert accepts(third)
    finally:
        third.close()
        second.close()


HOLDS = """
import sys
from pathlib import Path
from trunkline.stack.public_port import PublicPort
port = PublicPort.claim("127.0.0.1", 0, sys.argv[1], Path(sys.argv[2]))
print(port.address[1], flush=True)
sys.stdin.read()
"""


@pytest.mark.e2e
def test_a_killed_holder_is_succeeded(directory: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, BUS, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        port = int(holder.stdout.readline())
        second = PublicPort.claim("127.0.0.1", port, BUS, directory)
        holder.kill()
    third = PublicPort.claim("127.0.0.1", port, BUS, directory)
    assert second.first
    assert accepts(third)
    third.close()
    second.close()


def test_of_sharers_that_are_gone_nothing_is_kept(first: PublicPort, directory: Path) -> None:
    """Gateways are started again for as long as their stack lives."""
    for _ in range(5):
        PublicPort.claim("127.0.0.1", first.address[1], BUS, directory).close()
    assert len(first._sharers) <= 1
