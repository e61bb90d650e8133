"""Logs: one line for one record, whatever a caller or a peer has put into it."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
from collections.abc import Iterator

import pytest

from trunkline.bus.process import complain, setup_logging

EVIL = "x\n2026-11-26 00:00:00 controller[1] ERROR all is lost\x1b[2J\u2028\r\x07"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def said(capsys: pytest.CaptureFixture[str], log_format: str) -> str:
    """What a message and a traceback with such a text become."""
    end = setup_logging("controller", log_format)
    log = logging.getLogger("trunkline.test")
    log.warning("a call from %s", EVIL)
    try:
        raise ValueError(EVIL)
    except ValueError:
        log.exception("session %s could not be handled", EVIL)
    end()
    return capsys.readouterr().err


def test_no_text_makes_a_line_of_its_own_or_commands_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = said(capsys, "text")
    assert "\x1b" not in text and "\r" not in text and "\x07" not in text and "\u2028" not in text
    lines = text.splitlines()
    begin = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} controller\[\d+\] (WARNING|ERROR) ")
    records = [line for line in lines if begin.match(line)]
    assert len(records) == 2
    assert "a call from x\\n2026-11-26 00:00:00 controller[1] ERROR all is lost\\x1b[2J" in text
    # The rest is the traceback, and each line of it is indented.
    rest = [line for line in lines if line not in records]
    assert rest[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") for line in rest)


def test_json_has_the_message_and_the_traceback_apart(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = map(json.loads, said(capsys, "json").splitlines())
    assert first["message"] == f"a call from {EVIL}" and "exception" not in first
    assert second["message"] == f"session {EVIL} could not be handled"
    assert second["exception"].startswith("Traceback (most recent call last):\n")


def test_an_error_that_ends_a_process_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    complain("gateway", f"cannot go on: {EVIL}")
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "\x1b" not in text
    assert text.startswith("trunkline gateway: cannot go on: x 2026-11-26 ")


def test_the_end_waits_for_a_slow_reader_and_loses_none_of_what_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The queue is full when the process ends, because its standard error is read slowly."""

    class Slow(io.StringIO):
        def write(self, text: str) -> int:
            reads.wait(10)
            return super().write(text)

    reads = threading.Event()
    stderr = Slow()
    monkeypatch.setattr("sys.stderr", stderr)
    end = setup_logging("controller")
    for number in range(10_100):
        logging.getLogger("trunkline.test").warning("record %d", number)
    timer = threading.Timer(0.05, reads.set)
    timer.start()
    end()
    timer.join()
    assert stderr.getvalue().count("record") >= 10_000
