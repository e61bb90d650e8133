"""Hosts and ports, written in one way; which hosts are this machine; listening on any of them."""

from __future__ import annotations

import socket

import pytest

from trunkline.bus import hosts
from trunkline.bus.endpoints import BusAddress
from trunkline.bus.errors import SettingsError


@pytest.mark.parametrize(
    ("host", "joined"),
    [
        ("127.0.0.1", "127.0.0.1:80"),
        ("line.example.com", "line.example.com:80"),
        ("::1", "[::1]:80"),
        ("[::1]", "[::1]:80"),
        ("::", "[::]:80"),
        ("fe80::1%eth0", "[fe80::1%eth0]:80"),
    ],
)
def test_join(host: str, joined: str) -> None:
    assert hosts.join(host, 80) == joined


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.9.8.7", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),
        ("::", True),
        ("localhost", True),
        ("LocalHost.", True),
        ("sim.localhost", True),
        ("127.1", True),
        ("0x7f.0.0.1", True),
        ("2130706433", True),
        ("0", True),
        ("", False),
        ("128.1", False),
        ("0.example", False),
        ("999.999.999.999", False),
        ("localhost.example.com", False),
        ("notlocalhost", False),
        ("10.0.0.1", False),
        ("128.0.0.1", False),
        ("2001:db8::1", False),
        ("api.twilio.com", False),
    ],
)
def test_what_is_this_machine(host: str, here: bool) -> None:
    assert hosts.is_loopback(host) is here


@pytest.mark.parametrize(
    ("host", "at"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("::", "::1"),
        ("127.0.0.2", "127.0.0.2"),
        ("::1", "::1"),
        ("192.0.2.7", "192.0.2.7"),
        ("line.example.com", "line.example.com"),
    ],
)
def test_an_any_address_is_reached_at_its_loopback(host: str, at: str) -> None:
    assert hosts.reachable(host) == at


@pytest.mark.parametrize(
    ("host", "family"),
    [
        ("127.0.0.1", socket.AF_INET),
        ("0.0.0.0", socket.AF_INET),
        ("::1", socket.AF_INET6),
        ("[::1]", socket.AF_INET6),
        ("::", socket.AF_INET6),
    ],
)
def test_listening(host: str, family: int) -> None:
    with hosts.listen(host, 0) as listening:
        assert listening.family == family
        address = listening.getsockname()[:2]
        with socket.create_connection((hosts.reachable(address[0]), address[1]), timeout=5) as one:
            served, _ = listening.accept()
            with served:
                assert served.getpeername()[1] == one.getsockname()[1]
        with pytest.raises(
            hosts.PortTakenError, match=f"HOST={host} .*=.*taken by another".replace("[", r"\[")
        ):
            hosts.listen(host, address[1])


def test_an_address_that_cannot_be_had_is_named_by_its_setting() -> None:
    with pytest.raises(SettingsError, match=r"^TRUNKLINE_HTTP_HOST=192\.0\.2\.1 TRUNKLINE_HTTP_P"):
        hosts.listen("192.0.2.1", 8765)
    with pytest.raises(SettingsError, match=r"^TRUNKLINE_X: cannot listen there: "):
        hosts.listen("192.0.2.1", 8765, "TRUNKLINE_X")


@pytest.mark.parametrize("host", ["line..example.com", "a" * 64])
def test_what_no_host_can_be_called_is_named_by_its_setting(host: str) -> None:
    with pytest.raises(SettingsError, match=f"^TRUNKLINE_HTTP_HOST={host} .* is no host's name"):
        hosts.listen(host, 8765)
    with pytest.raises(SettingsError, match=f"^TRUNKLINE_BUS='tcp://{host}:7000': no way leads"):
        BusAddress.read(f"tcp://{host}:7000").worker()


def test_an_inherited_socket() -> None:
    with pytest.raises(SettingsError, match="descriptor 999"):
        hosts.inherited(999)
    with socket.socket() as idle, pytest.raises(SettingsError, match="does not listen"):
        hosts.inherited(socket.dup(idle.fileno()))
    with socket.create_server(("127.0.0.1", 0)) as held:
        found = hosts.inherited(socket.dup(held.fileno()))
        assert found.getsockname() == held.getsockname()
        found.close()
