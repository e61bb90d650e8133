"""Fixtures of the controller's tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The simulation's clock and journal are found here. Behind everything else, and the repository
# before it: no room is to be found under another name.
sys.path += [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from .machine import Machine  # it needs that path


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)
