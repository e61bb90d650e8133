"""The sockets of a bus directory: a start removes those of workers that were killed."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from trunkline.bus.endpoints import BusAddress, listened_at


def test_sockets_that_nobody_listens_at_are_removed_once_they_are_old(
    short_directory: Path,
) -> None:
    live, old, young = (short_directory / f"w-{name}" for name in ("live", "old", "young"))
    file = short_directory / "w-file"
    file.touch()
    before = time.time() - 61
    with socket.socket(socket.AF_UNIX) as listens:
        listens.bind(str(live))
        listens.listen()
        for path in (old, young):
            with socket.socket(socket.AF_UNIX) as killed:
                killed.bind(str(path))
        for path in (live, old, file):
            os.utime(path, (before, before))
        asked = [listened_at(path) for path in (live, old, short_directory / "w-gone")]
        assert asked == [True, False, False]
        BusAddress.read(f"ipc://{short_directory}").clear_away()
    assert sorted(short_directory.iterdir()) == sorted([live, young, file])


def test_a_bus_over_tcp_has_none() -> None:
    BusAddress.read("tcp://127.0.0.1:7000").clear_away()
