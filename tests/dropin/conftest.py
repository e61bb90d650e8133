"""Tests of what users of langwatch-scenario and pytest meet, on the run's own shared stack."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
# langwatch-scenario imports litellm, which would fetch its price list from the network; and it
# would open a browser, or report to a server.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ["SCENARIO_BROWSER"] = "never"
os.environ["SCENARIO_DISABLE_SIMULATION_REPORT_INFO"] = "1"

from scene import Scene

from trunkline.bus.launch import Launched, StackInfo, apart, trunkline_argv
from trunkline.carrier_sim.client import SimClient
from trunkline.pytest_plugin import SIM_CALLEES, SIM_NUMBERS, PhoneStack


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's own reaches these tests."""
    for name in list(os.environ):
        if name.startswith(("TRUNKLINE_", "TWILIO_", "LANGWATCH_", "OPENAI_")):
            monkeypatch.delenv(name)


@pytest.fixture
def another_run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, short_directory: Path
) -> None:
    """A run of pytest that the test starts knows nothing of this one. It goes without the plugin of
    hypothesis, which no test in it needs, and which takes 0.3 s of a core at the run's end."""
    for name in list(os.environ):
        if name.startswith("PYTEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest")
    # Nor does it know of a stack that this user has on the default bus.
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_directory))


@pytest.fixture
def scene(phone_stack: PhoneStack, carrier_sim: SimClient) -> Scene:
    return Scene(phone_stack, carrier_sim)


@contextlib.contextmanager
def own_stack(number: str, **environment: str) -> Iterator[StackInfo]:
    """A stack beside a stand-in carrier, both for one test alone; they end with the block."""
    with tempfile.TemporaryDirectory(prefix="trunkline-own-", dir="/tmp") as name:
        directory = Path(name)
        launched = Launched(
            trunkline_argv("up", "--sim", "--gateways", "1", "--codec-workers", "1"),
            directory,
            "up",
            apart(directory, TRUNKLINE_SIM_NUMBERS=number, **environment),
            what="the test's own stack",
            cwd=directory,
        )
        try:
            yield launched.wait_ready()
        finally:
            status = launched.stop()
        assert status == 0, launched.tail()


@pytest.fixture(scope="module")
def _stack_of_runs() -> Iterator[StackInfo]:
    with own_stack(" ".join(SIM_NUMBERS), TRUNKLINE_SIM_CALLEES=" ".join(SIM_CALLEES)) as info:
        yield info


@pytest.fixture
def joins_a_stack(_stack_of_runs: StackInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test starts, a run of pytest for example, joins a stack of this file alone: one for
    all its tests, because each start of a stack takes 2 s of a core."""
    for name, value in (
        ("TRUNKLINE_BUS", _stack_of_runs.bus),
        ("TRUNKLINE_TWILIO_API_URL", _stack_of_runs.sim or ""),
        ("TWILIO_ACCOUNT_SID", _stack_of_runs.account_sid),
        ("TWILIO_AUTH_TOKEN", _stack_of_runs.auth_token),
    ):
        monkeypatch.setenv(name, value)
