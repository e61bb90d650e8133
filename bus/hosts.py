"""Hosts and ports: how they are joined, which of them are this machine, how to listen on them, and
what this machine is called.

An IPv6 address stands in brackets wherever a port follows it (RFC 3986, section 3.2.2); everything
of ours that shows or builds ``host:port`` does so by :func:`join`.
"""

from __future__ import annotations

import errno
import ipaddress
import platform
import re
import socket
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from .errors import SettingsError

BACKLOG: Final = 512
#: Linux makes an id at each boot. All containers of a machine see the same one.
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
#: IPv4 addresses in the other spellings that systems take: ``127.1``, ``0x7f.1``, ``2130706433``.
_SHORT_IPV4: Final = re.compile(r"[0-9][0-9a-fx.]*\Z", re.IGNORECASE)


class PortTakenError(SettingsError):
    """A port belongs to someone else; the message says to whom, as far as known."""


def join(host: str, port: int | str) -> str:
    """``host:port``, an IPv6 address in brackets."""
    host = bare(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bare(host: str) -> str:
    """``host`` without the brackets of an IPv6 address."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that ``host`` is; None for a name. An IPv6 address that only stands for an IPv4
    one (``::ffff:192.0.2.1``) becomes that one."""
    text = bare(host).partition("%")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        if not _SHORT_IPV4.match(text):
            return None
        try:
            return ipaddress.IPv4Address(socket.inet_aton(text))
        except OSError:
            return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def is_loopback(host: str) -> bool:
    """What is sent to ``host`` never leaves this machine: a loopback address, an any-address (the
    kernel takes it for loopback), or ``localhost`` and the names under it (RFC 6761)."""
    address = _address(host)
    if address is not None:
        return address.is_loopback or address.is_unspecified
    name = host.lower().rstrip(".")
    return name == "localhost" or name.endswith(".localhost")


def is_here(url: str) -> bool:
    """What is sent to ``url`` never leaves this machine (:func:`is_loopback`). ValueError: it is no
    URL."""
    return is_loopback(urlsplit(url).hostname or "")


def owner_of(host: str) -> str | None:
    """To whom a connection from ``host`` belongs: an IPv4 address, or the /64 network of an IPv6
    one, because that is given to one customer. None where the address says nothing of the far end:
    on the loopback and in private networks there are tunnels and proxies, which bring everybody's
    connections."""
    address = _address(host)
    if address is None or not address.is_global:
        return None
    if address.version == 4:
        return str(address)
    return str(ipaddress.IPv6Network((int(address), 64), strict=False))


def reachable(host: str) -> str:
    """Where a listener on ``host`` is reached from this machine: an any-address at its loopback."""
    address = _address(host)
    if address is None or not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def own_address(host: str, port: int) -> str:
    """The address by which ``host`` reaches this machine: the one from which the kernel would send
    there. Nothing is sent. OSError where no way leads there."""
    family, kind, protocol, there = _resolve(host, port, socket.SOCK_DGRAM)
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(there)
        return str(probe.getsockname()[0])


def _resolve(host: str, port: int, kind: int) -> tuple[int, int, int, Any]:
    """(family, kind, protocol, address) of the first address of ``host``. OSError where it has
    none, or where no name is written so (an empty label, or one of more than 63 characters)."""
    try:
        family, found, protocol, _, there = socket.getaddrinfo(bare(host), port, type=kind)[0]
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"{host!r} is no host's name") from error
    return family, found, protocol, there


def this_machine() -> str:
    """A name that all processes on this machine share, and those on other machines do not. On Linux
    it is the id of the boot, because each container has a host's name of its own. Elsewhere it is
    the host's name."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # no Linux, or one that does not show it
        return re.sub(r"[^0-9A-Za-z_.:+-]", "-", platform.node())[:128]


def listen(host: str, port: int, setting: str | None = None) -> socket.socket:
    """A listening socket; ``port`` 0 takes a free one.

    Raises PortTakenError where another has the port, SettingsError where the address cannot be had;
    both name ``setting`` (the settings of the public listener, unless another is given).
    """
    name = setting or f"TRUNKLINE_HTTP_HOST={host} TRUNKLINE_HTTP_PORT={port}"
    try:
        family = _resolve(host, port, socket.SOCK_STREAM)[0]
        return socket.create_server((bare(host), port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(
                f"{name}: the port is taken by another process; end it or choose another port"
            ) from None
        raise SettingsError(f"{name}: cannot listen there: {error.strerror or error}") from None


def inherited(descriptor: int) -> socket.socket:
    """The listening socket that a supervisor holds and handed down as ``descriptor``. Raises
    SettingsError if the descriptor is not a listening socket."""
    try:
        found = socket.socket(fileno=descriptor)
        listening = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise SettingsError(f"descriptor {descriptor} is no listening socket: {error}") from None
    if not listening:
        found.close()
        raise SettingsError(f"descriptor {descriptor} is a socket that does not listen")
    found.setblocking(False)
    return found
