"""Three hosts on one machine: network namespaces, each with an address of its own, on one switch.

::

    this machine ── .254 ┐
    (carrier, clients,   │        each host: eth0 .1, .2, .3 … on the switch,
     database, balancer) ├─ switch  and a tunnel to the relay (hosts_relay.py)
    host a ──────── .1 ──┤
    host b ──────── .2 ──┤
    host c ──────── .3 ──┘

The controller has an address too, .100, which one host holds at a time. Whatever this makes is made
by root with ``ip`` and ``nft``, in namespaces that have this process's id in their names. A watcher
removes them when our end of its pipe is closed: at the end, or with this process, however it dies.
The addresses are of 198.18.0.0/15, which is set aside for benchmarks (RFC 2544).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

#: The hosts, in the order of their addresses.
NAMES: Final = ("a", "b", "c")
_CONTROLLER: Final = 100
_HERE: Final = 254
#: The table of the rules that lose packets.
_TABLE: Final = "lossy"


class NotPossibleError(RuntimeError):
    """This machine or this user cannot have network namespaces."""


def _run(*argv: str, text: str | None = None) -> None:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotPossibleError(f"{' '.join(argv)}: {done.stderr.strip()}")


class Network:
    """The hosts' network; ``close()`` removes it."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise NotPossibleError("network namespaces are made by root: sudo make hosts")
        if missing := [name for name in ("ip", "nft") if shutil.which(name) is None]:
            packages = "apt-get install iproute2 nftables"
            raise NotPossibleError(f"not installed: {', '.join(missing)} ({packages})")
        pid = os.getpid()
        self._prefix = f"tl{pid}"
        self._subnet = f"198.18.{pid % 250}"
        self.here = self.address(_HERE)
        self.controller = self.address(_CONTROLLER)
        self.network = f"{self._subnet}.0/24"
        self.hosts = {name: self.address(n) for n, name in enumerate(NAMES, 1)}
        self._holder: str | None = None
        self._relay: subprocess.Popen[bytes] | None = None
        self._switch = f"{self._prefix}-switch"
        every = [self._switch, *map(self.namespace, NAMES)]
        # Tunnels of the relay and the wire of this machine go with the namespaces.
        remove = "; ".join(f"ip netns del {name} 2>/dev/null" for name in every)
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", f"read _; {remove}"], stdin=subprocess.PIPE, start_new_session=True
        )
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def address(self, n: int) -> str:
        return f"{self._subnet}.{n}"

    def _addresses(self, host: str) -> list[str]:
        """All that are the host's."""
        return [self.hosts[host], *([self.controller] if host == self._holder else [])]

    def namespace(self, host: str) -> str:
        return f"{self._prefix}-{host}"

    def _make(self) -> None:
        switch = self._switch
        _run("ip", "netns", "add", switch)
        self._ip(switch, "link add switch type bridge forward_delay 0")
        self._ip(switch, "link set switch up")
        wire = f"{self._prefix}w"
        _run(*f"ip link add {wire} type veth peer name here netns {switch}".split())
        self._ip(switch, "link set here master switch up")
        _run(*f"ip addr add {self.here}/24 dev {wire}".split())
        _run(*f"ip link set {wire} up".split())
        for host, address in self.hosts.items():
            inside = self.namespace(host)
            _run("ip", "netns", "add", inside)
            self._ip(inside, f"link add eth0 type veth peer name port-{host} netns {switch}")
            self._ip(switch, f"link set port-{host} master switch up")
            self._ip(inside, "link set lo up")
            self._ip(inside, f"addr add {address}/24 dev eth0")
            self._ip(inside, "link set eth0 up")
            self._ip(inside, f"route add default via {self.here}")

    @staticmethod
    def _ip(inside: str, words: str) -> None:
        _run("ip", "-n", inside, *words.split())

    # ------------------------------------------------------------------ what runs on a host

    def on(self, host: str, argv: list[str]) -> list[str]:
        """The command line that runs ``argv`` on the host, under the same process id."""
        return ["ip", "netns", "exec", self.namespace(host), *argv]

    def place_controller(self, host: str) -> None:
        """The controller's address is this host's from now on, and everybody is told."""
        if self._holder is not None:
            self._ip(self.namespace(self._holder), f"addr del {self.controller}/32 dev eth0")
        self._ip(self.namespace(host), f"addr add {self.controller}/32 dev eth0")
        self._holder = host
        for other in self.hosts:
            if other != host:
                self._ip(self.namespace(other), "neigh flush dev eth0")
        _run("ip", "neigh", "flush", "dev", f"{self._prefix}w")

    # ------------------------------------------------------------------ faults

    def cut(self, host: str) -> None:
        """Nothing reaches the host, and nothing comes from it: its port of the switch is down."""
        self._ip(self._switch, f"link set port-{host} down")

    def join(self, host: str) -> None:
        """It is on the network again."""
        self._ip(self._switch, f"link set port-{host} up")

    def lose(self, percent: int) -> None:
        """Of all packets between two hosts, in both directions, so many are lost at random."""
        for host in self.hosts:
            others = [a for other in self.hosts if other != host for a in self._addresses(other)]
            rules = (
                f"table ip {_TABLE} {{ chain arriving {{\n"
                "type filter hook input priority 0; policy accept;\n"
                f"ip saddr {{ {', '.join(others)} }} numgen random mod 100 < {percent} drop\n"
                "}\n}\n"
            )
            _run("ip", "netns", "exec", self.namespace(host), "nft", "-f", "-", text=rules)

    def lose_nothing(self) -> None:
        for host in self.hosts:
            inside = self.namespace(host)
            _run("ip", "netns", "exec", inside, "nft", "delete", "table", "ip", _TABLE)

    def delay(self, milliseconds: int, log: Path) -> None:
        """Each packet between two hosts comes so much later, in both directions: it goes through
        the relay, a process of ours, because not every kernel has netem."""
        relay = ["-m", "benchmarks.hosts_relay", str(milliseconds)]
        tunnels = [f"{self._prefix}t{host}" for host in self.hosts]
        each = [
            f"{tunnel}={','.join(self._addresses(host))}"
            for tunnel, host in zip(tunnels, self.hosts, strict=True)
        ]
        with log.open("ab") as out:
            self._relay = subprocess.Popen(
                [sys.executable, *relay, *each],
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
            )
        assert self._relay.stdout is not None
        if not self._relay.stdout.readline():
            raise NotPossibleError(f"the relay did not start: {log.read_text()[-500:]}")
        for (host, own), tunnel in zip(self.hosts.items(), tunnels, strict=True):
            inside = self.namespace(host)
            _run("ip", "link", "set", tunnel, "netns", inside)
            self._ip(inside, f"link set {tunnel} up")
            for other in self.hosts:
                for address in self._addresses(other) if other != host else ():
                    self._ip(inside, f"route add {address}/32 dev {tunnel} src {own}")

    def delay_nothing(self) -> None:
        """The relay ends, and its tunnels and the ways through them with it."""
        relay, self._relay = self._relay, None
        if relay is not None:
            assert relay.stdin is not None and relay.stdout is not None
            relay.stdin.close()
            relay.wait(5.0)
            relay.stdout.close()

    # ------------------------------------------------------------------ the end

    def close(self) -> None:
        """Remove all of it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.delay_nothing()
        assert self._watcher.stdin is not None
        self._watcher.stdin.close()
        try:
            self._watcher.wait(20.0)
        except subprocess.TimeoutExpired:
            self._watcher.send_signal(signal.SIGKILL)
            self._watcher.wait()
