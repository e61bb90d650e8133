"""A network that takes its time: carries packets between hosts' tunnels, each a while later.

    python -m benchmarks.hosts_relay MILLISECONDS TUNNEL=ADDRESS,… …

Each tunnel is a TUN device of the kernel's, which whoever started this moves into a host's
namespace. An IP packet that is read from one is written, after the delay, to the tunnel of the
address to which it goes. All packets have the same delay, so they keep their order. It prints
``ready``, and ends when its stdin does.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import sys
import time
from collections import deque
from typing import Final

_TUNSETIFF: Final = 0x400454CA
#: A packet is read with nothing before it (IFF_TUN | IFF_NO_PI).
_FLAGS: Final = 0x1001
_LONGEST: Final = 65_536
#: Where an IPv4 packet names its destination.
_DESTINATION: Final = slice(16, 20)


def tunnel(name: str) -> int:
    """The descriptor of a new tunnel of this name."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", name.encode(), _FLAGS))
    return descriptor


class Relay:
    """The packets that are under way. ``ways``: address (4 bytes) -> descriptor."""

    def __init__(self, delay: float, ways: dict[bytes, int]) -> None:
        self._delay = delay
        self._ways = ways
        #: when each is due, where to, and the packet; oldest first
        self._under_way: deque[tuple[float, int, bytes]] = deque()
        self._loop = asyncio.get_running_loop()
        for descriptor in set(ways.values()):
            self._loop.add_reader(descriptor, self._take, descriptor)

    def _take(self, descriptor: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while packet := os.read(descriptor, _LONGEST):
                to = self._ways.get(packet[_DESTINATION])
                if to is not None:
                    if not self._under_way:
                        self._loop.call_later(self._delay, self._deliver)
                    self._under_way.append((time.monotonic() + self._delay, to, packet))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._under_way and self._under_way[0][0] <= now:
            _, to, packet = self._under_way.popleft()
            # A device that is down or full loses packets, as a network does.
            with contextlib.suppress(OSError):
                os.write(to, packet)
        if self._under_way:
            self._loop.call_later(self._under_way[0][0] - now, self._deliver)


async def main(milliseconds: str, *tunnels: str) -> None:
    ways: dict[bytes, int] = {}
    for each in tunnels:
        name, _, addresses = each.partition("=")
        descriptor = tunnel(name)
        ways |= {socket.inet_aton(address): descriptor for address in addresses.split(",")}
    Relay(float(milliseconds) / 1000, ways)  # the loop's readers keep it
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
