"""How many descriptors a process may have open, and for whom they are.

Each connection, socket and file takes a descriptor, and a process without a free one can open no
link to a worker. A system gives a process 1,024 (macOS: 256) until it asks for more, which it may
up to the *hard* limit. So every process of a stack asks at its start, and a listener takes only as
many connections as leave a reserve.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
from typing import Final

#: No process asks for more. A gateway with 1,000 calls needs some 5,000.
MOST: Final = 65_536
#: macOS refuses more than this (OPEN_MAX), although its hard limit says "unlimited".
_MACOS_MOST: Final = 10_240
#: Never given to connections: links to workers, files, and the connections that one turn of the
#: loop takes from the listening socket before it is known that they are too many.
RESERVE: Final = 1_024
#: The table is made at the start for this many descriptors. It takes 8 bytes for each.
ROOM: Final = 16_384
#: With fewer than this the bounds on strangers are narrower than they would be otherwise.
ENOUGH: Final = 8_192

#: Names the descriptor of a pipe into which a process writes for the one that keeps it running. It
#: is in the environment of such a process alone.
KEEPER_FD_VARIABLE: Final = "TRUNKLINE_KEEPER_FD"


def limits() -> tuple[int, int]:
    """The soft and the hard limit, each :data:`MOST` at most."""
    soft, hard = (
        MOST if limit == resource.RLIM_INFINITY else min(limit, MOST)
        for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    return soft, hard


def raise_limit() -> int:
    """Raise the soft limit as far as it goes, and return it. Call this before the process has a
    second thread: see :func:`_make_room`."""
    soft, most = limits()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for wanted in (most, _MACOS_MOST):
        if soft < wanted <= most:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                soft = wanted
                break
    _make_room(min(soft, ROOM))
    return soft


def _make_room(descriptors: int) -> None:
    """Let the kernel make its table of this process's descriptors large enough for so many.

    Linux doubles the table when it is full. In a process with threads it then waits until no
    processor can look at the old one (``expand_fdtable`` and ``synchronize_rcu`` in fs/file.c),
    which was measured as 80 to 130 ms: a crowd of connections made holes in the sound of live
    calls. The table never shrinks, so a descriptor with a high number that is closed at once is
    enough.
    """
    with contextlib.suppress(OSError):  # as many are not allowed after all; it grows when it must
        os.close(fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, descriptors - 1))


def for_connections(limit: int) -> int:
    """How many connections a listener may have in a process that is allowed ``limit``
    descriptors."""
    return max(limit - RESERVE, limit // 2)


def for_strangers(bound: int) -> int:
    """How many places there are for one kind of those who have proved nothing yet: ``bound``, but a
    quarter of all connections at most. There are two kinds (connections that wait for a request,
    and sockets that wait for a ``start``), so half of all connections are left for calls."""
    return min(bound, for_connections(limits()[0]) // 4)
