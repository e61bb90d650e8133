"""What processes have in common: signs of life while the work is done, one line for each record."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from typing import Any

import pytest

from trunkline.bus import process
from trunkline.bus.process import ALIVE, _DroppingQueueHandler, lives_while


class Loop:
    """Keeps what is to be called later."""

    def __init__(self) -> None:
        self.later: list[Callable[[], None]] = []

    def call_later(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        assert seconds == process.SIGN_SECONDS
        self.later.append(lambda: call(*arguments))


def test_signs_of_life_are_given_while_the_process_does_its_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[bytes] = []
    monkeypatch.setattr(process, "_tell_keeper", told.append)
    monkeypatch.setattr(process, "_well", [])
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
    with pytest.raises(RuntimeError):  # whether it is well cannot even be said
        loop.later.pop()()
    assert loop.later, "the next look comes all the same"


def test_what_others_wrote_cannot_forge_a_line_of_the_log() -> None:
    records: queue.Queue[logging.LogRecord] = queue.Queue()
    handler = _DroppingQueueHandler(records)
    log = logging.Logger("test")
    log.addHandler(handler)
    log.warning("a caller: %s", "x\n2026-01-01 ERROR forged\x1b[2J\u2028")
    assert records.get().getMessage() == "a caller: x\\n2026-01-01 ERROR forged\\x1b[2J\\u2028"
    try:
        raise ValueError("a\nb")
    except ValueError:
        log.exception("it failed")
    assert records.get().getMessage().startswith("it failed\nTraceback (most recent call last):\n")


@pytest.mark.parametrize("text", ["äöü 東京", "", "100 %"])
def test_printable_text_is_logged_as_it_is(text: str) -> None:
    records: queue.Queue[logging.LogRecord] = queue.Queue()
    log = logging.Logger("test")
    log.addHandler(_DroppingQueueHandler(records))
    log.warning("%s", text)
    assert records.get().getMessage() == text
