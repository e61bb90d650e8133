"""The stack's processes by kind, its numbers and its clients, as the chaos suite sees them."""

from __future__ import annotations

import contextlib
import json
import queue
import sys
import threading
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks import chaos_code
from benchmarks.processes import Run, Talker, role
from trunkline.bus import wav
from trunkline.bus.sound import WIRE_RATE

#: Numbers of the account and their voice_url from before; OWN_NUMBER calls and is never changed.
PRIOR: Final = {f"+1415555{n:04d}": f"https://agent.example/before/{n}" for n in range(2000, 2010)}


class Stack:
    """The stack of a run, as the chaos suite sees it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        for number, url in PRIOR.items():
            run.sim.add_number(number, voice_url=url, voice_method="GET")

    def processes(self, kind: str) -> list[psutil.Process]:
        """The processes of one kind that live, oldest first; "all": all, the supervisor too."""
        try:
            family = self.run.family()
        except psutil.NoSuchProcess:
            return []
        found = []
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                of = role(process).replace("_", " ")
                if process.status() != psutil.STATUS_ZOMBIE and kind in ("all", of):
                    found.append(process)
        return sorted(found, key=lambda p: p.pid)

    def overridden(self) -> list[str]:
        """Numbers whose calls come to us at the moment."""
        rows = self.run.sim.numbers()
        ours = self.run.public_url
        return [number for number in PRIOR if rows[number]["voice_url"].startswith(ours)]

    def changed(self) -> list[str]:
        """Numbers that are not as they were before."""
        rows = self.run.sim.numbers()
        return [
            number
            for number, url in PRIOR.items()
            if (rows[number]["voice_url"], rows[number]["voice_method"]) != (url, "GET")
            or rows[number]["voice_fallback_url"]
        ]

    def restored_at(self, number: str, since: float) -> float | None:
        """When the number was put back, first after ``since`` (monotonic); None: it was not."""
        times = [at for put_back, at in self.put_back() if put_back == number and at >= since]
        return times[0] if times else None

    def put_back(self) -> list[tuple[str, float]]:
        """Each write that put a number back so far: the number, and when (monotonic)."""
        return [
            (write["number"], write["time"])
            for write in self.run.sim.number_writes()
            if write["after"]["voice_url"] == PRIOR.get(write["number"])
        ]


class Client(Talker):
    """One client process. Its messages go to a queue, as (client's name, message)."""

    def __init__(
        self,
        run: Run,
        name: str,
        arguments: dict[str, Any],
        said: queue.SimpleQueue[tuple[str, dict[str, Any]]],
        module: str = "chaos_client",
    ) -> None:
        python, told = Path(sys.executable), (json.dumps(arguments),)
        super().__init__(python, module, told, run.environment, run.directory)
        self._reader = threading.Thread(target=self._hear, args=(name, said), daemon=True)
        self._reader.start()

    def _hear(self, name: str, said: queue.SimpleQueue[tuple[str, dict[str, Any]]]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):  # a line that its death cut off
                said.put((name, json.loads(line)))

    def tell(self, word: str) -> None:
        """``renew`` or ``stop``."""
        with contextlib.suppress(OSError):  # it is gone
            super().tell(word)

    def close(self) -> None:
        """End it if it is still there."""
        self.process.kill()
        self._reader.join(5.0)
        super().close()


def numbered_recording(path: Path) -> None:
    """The far end's speech: all numbered frames, to be played in a loop."""
    wav.write(path, chaos_code.samples(0, chaos_code.CODES), rate=WIRE_RATE)
