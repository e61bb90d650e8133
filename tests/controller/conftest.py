"""Fixtures of the controller's tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .machine import Machine

# Behind everything else: the simulation's clock is found here.
sys.path.append(str(Path(__file__).parents[1]))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)
