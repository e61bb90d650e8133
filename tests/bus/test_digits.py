"""Digits: how long a row of them takes, and when each key begins."""

from __future__ import annotations

import time

import pytest

from trunkline.bus.digits import presses, seconds_of


def test_each_key_begins_when_the_digits_before_it_are_over() -> None:
    found = presses("1wW2")
    assert [digit for _, digit in found] == ["1", "2"]
    assert [at for at, _ in found] == pytest.approx([0.0, 1.7])


def test_a_long_row_takes_no_long_time() -> None:
    """The client's thread works it out, and beats meanwhile."""
    row = "1" * 50_000
    began = time.process_time()
    assert presses(row)[-1] == (pytest.approx(seconds_of(row) - 0.2), "1")
    assert time.process_time() - began < 2.0
