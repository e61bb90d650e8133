"""Tests of what users of langwatch-scenario and pytest meet, on the run's own shared stack."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
# langwatch-scenario imports litellm, which would fetch its price list from the network; and it
# would open a browser, or report to a server.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ["SCENARIO_BROWSER"] = "never"
os.environ["SCENARIO_DISABLE_SIMULATION_REPORT_INFO"] = "1"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its imports' own
    import scenario.voice.testing  # noqa: F401  # once, for all tests

from trunkline.carrier_sim.client import SimClient

_numbers = count(1)


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's own reaches these tests."""
    for name in list(os.environ):
        if name.startswith(("TRUNKLINE_", "TWILIO_", "LANGWATCH_", "OPENAI_")):
            monkeypatch.delenv(name)


@pytest.fixture
def own_number(carrier_sim: SimClient) -> Callable[[], str]:
    """Makes a number of the account that no other test uses, with a voice_url of its own; all
    workers of pytest-xdist share the stack."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))

    def make() -> str:
        number = f"+14155{57 + worker:02d}{next(_numbers):04d}"
        carrier_sim.add_number(number, voice_url=f"https://agent.example/{number[1:]}")
        return number

    return make
