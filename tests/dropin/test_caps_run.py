"""Caps and the summary of a run of pytest with real calls."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.e2e

PAGE = Path(__file__).parents[2] / "docs" / "pytest.md"
SUITE = """
import pytest
from trunkline import errors

pytestmark = pytest.mark.phone_line(allowed_callees=["+14155557777", "+14155557779"])

@pytest.mark.parametrize("n", range(4))
async def test_a_call(phone_line, n):
    call = await phone_line.place_call("+14155557777", attach_stream="a-leg")
    await call.hang_up()

async def test_busy(phone_line):
    with pytest.raises(errors.CallFailedError):
        await phone_line.place_call("+14155557779", attach_stream="a-leg")
"""


@pytest.mark.usefixtures("joins_a_stack", "another_run")
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_with_a_cap(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    monkeypatch.setenv("TRUNKLINE_PRICE_PER_MINUTE", "0.5")
    pytester.makeini("[pytest]\nasyncio_mode=auto\nasyncio_default_fixture_loop_scope=function\n")
    pytester.makepyfile(test_agent=SUITE)
    options = ("--phone-sim", "-n", workers, "-k", "test_a_call")
    result = pytester.runpytest_subprocess(*options, "--phone-max-calls", "3", timeout=90)
    result.assert_outcomes(passed=3, failed=1)
    said = result.stdout.str()
    assert "LimitReachedError: the call is not made: --phone-max-calls=3 calls were made" in said
    assert re.search(r"^trunkline: 3 calls, 3 minutes, 1.50 at 0.5 a minute$", said, re.M)
    (example,) = re.findall(r"^pytest (--phone-max-.*)$", PAGE.read_text(), re.M)
    options = ("--phone-sim", "-n", workers, "-k", "busy", *example.split())
    result = pytester.runpytest_subprocess(*options, timeout=90)
    result.assert_outcomes(passed=1)
    assert "trunkline: 1 call, 0 minutes, 0.00 at 0.5 a minute" in result.stdout.str()
