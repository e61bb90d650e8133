"""How many descriptors a process asks for, and how many of them are for connections."""

from __future__ import annotations

import re
import resource
import subprocess
import sys

import pytest

from trunkline.bus import descriptors


class System:
    """A system that gives a process so many, and refuses more than ``bears``."""

    def __init__(self, soft: int, hard: int, bears: int = 1_000_000) -> None:
        self.limits = soft, hard
        self.bears = bears

    def getrlimit(self, which: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        if limits[0] > self.bears:
            raise ValueError("current limit exceeds maximum limit")
        self.limits = limits


INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("system", "now"),
    [
        (System(1_024, 524_288), 65_536),
        (System(1_024, 4_096), 4_096),
        (System(1_024, 1_024), 1_024),
        (System(100_000, 524_288), 65_536),  # more than we need: it stays so
        (System(256, INFINITY, bears=10_240), 10_240),  # macOS
        (System(INFINITY, INFINITY), 65_536),
        (System(256, 4_096, bears=256), 256),
    ],
)
def test_a_process_asks_for_what_it_may_have(
    monkeypatch: pytest.MonkeyPatch, system: System, now: int
) -> None:
    soft, hard = system.limits
    monkeypatch.setattr(descriptors.resource, "getrlimit", system.getrlimit)
    monkeypatch.setattr(descriptors.resource, "setrlimit", system.setrlimit)
    assert descriptors.raise_limit() == now
    assert system.limits[0] in (now, soft), "it is never lowered"
    assert system.limits[1] == hard
    assert descriptors.raise_limit() == now


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how large the table is")
def test_the_table_of_descriptors_is_made_at_once() -> None:
    program = "from trunkline.bus import descriptors; print(descriptors.raise_limit())"
    program += "; print(open('/proc/self/status').read())"
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    limit, _, status = told.stdout.partition("\n")
    (size,) = re.findall(r"^FDSize:\s+(\d+)$", status, re.MULTILINE)
    assert int(size) >= min(int(limit), descriptors.ROOM)


@pytest.mark.parametrize(
    ("limit", "most"), [(256, 128), (1_024, 512), (4_096, 3_072), (65_536, 64_512)]
)
def test_a_reserve_is_never_for_connections(limit: int, most: int) -> None:
    assert descriptors.for_connections(limit) == most


@pytest.mark.parametrize(("limit", "room"), [(1_024, 128), (4_096, 768), (65_536, 2_000)])
def test_strangers_leave_half_of_them_to_calls(
    monkeypatch: pytest.MonkeyPatch, limit: int, room: int
) -> None:
    monkeypatch.setattr(descriptors, "limits", lambda: (limit, limit))
    assert descriptors.for_strangers(2_000) == room
