"""Lets the tests of this folder import the doubles that stand beside them."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
# langwatch-scenario imports litellm, which would fetch its price list from the network.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

from call_model import CallModel, Talker  # these stand beside this file
from fake_stack import FakeStack, fake_stack

from trunkline.bus.digits import seconds_of


@pytest.fixture
def short_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits on another leg than our stream's take a tenth of their time."""
    monkeypatch.setattr("trunkline.adapter.client.call_media.BEGUN_WITHIN", 0.05)
    monkeypatch.setattr("trunkline.adapter.call.seconds_of", lambda row: seconds_of(row) / 10)


@pytest.fixture
async def stack(short_directory: Path, short_digits: None) -> AsyncIterator[FakeStack]:
    """A controller and two workers that play everything at once."""
    async with fake_stack(short_directory) as made:
        yield made


@pytest.fixture
async def paced_stack(short_directory: Path) -> AsyncIterator[FakeStack]:
    """A controller and two workers that play 20 ms each 20 ms."""
    async with fake_stack(short_directory, instant=False) as made:
        yield made


@pytest.fixture
def model() -> CallModel:
    """A call whose first stream is up."""
    made = CallModel()
    made.settle()
    return made


@pytest.fixture
def talker(model: CallModel) -> Talker:
    return Talker(model)
