"""Times at which all processes of a machine do what may be done at any time."""

from __future__ import annotations

import pytest

from trunkline.bus.clock import until_next


@pytest.mark.parametrize(
    ("now", "wait"),
    [(100.0, 0.5), (100.1, 0.4), (100.25, 0.75), (100.3, 0.7), (100.499, 0.501), (100.501, 0.499)],
)
def test_the_next_time_is_a_whole_multiple_and_not_too_near(now: float, wait: float) -> None:
    assert until_next(0.5, now) == pytest.approx(wait)


def test_a_timer_that_was_a_little_early_is_not_set_to_the_same_time_again() -> None:
    assert until_next(0.5, 99.9995) == pytest.approx(0.5005)
