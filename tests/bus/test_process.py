"""What processes have in common: signs of life while the work is done, and their end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from trunkline.bus import process
from trunkline.bus.process import ALIVE, lives_while


class Loop:
    """Keeps what is to be called later."""

    def __init__(self) -> None:
        self.later: list[Callable[[], None]] = []

    def time(self) -> float:
        return 100.1

    def call_later(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        assert seconds == pytest.approx(process.SIGN_SECONDS - 0.1)
        self.later.append(lambda: call(*arguments))


def test_signs_of_life_are_given_while_the_process_does_its_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[bytes] = []
    monkeypatch.setattr(process, "_tell_keeper", told.append)
    monkeypatch.setattr(process, "_conditions", [])
    loop = Loop()
    process._give_signs_of_life(loop)  # type: ignore[arg-type]  # as much of a loop as it takes
    assert told == [ALIVE]
    answers = iter([True, False, False, True])
    lives_while(lambda: next(answers))
    given = []
    for _ in range(4):
        told.clear()
        loop.later.pop()()
        given.append(bool(told))
    assert given == [True, False, False, True]
    with pytest.raises(RuntimeError):  # whether it is healthy cannot even be said
        loop.later.pop()()
    assert loop.later, "the next look comes all the same"


#: It is asked to end once more while the interpreter ends, which has no handlers any more.
ENDS = """
import os, signal, sys
from trunkline.bus.process import run

class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGTERM):
        kill(pid, number)

async def main(stop):
    os.kill(os.getpid(), signal.SIGTERM)
    await stop.wait()
    return 3

late = Late()
sys.exit(run(main))
"""


def test_a_process_that_ends_is_not_killed_by_one_more_signal() -> None:
    assert subprocess.run([sys.executable, "-c", ENDS], timeout=20, check=False).returncode == 3
