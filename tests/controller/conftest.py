"""Fixtures of the controller's tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# The simulation's clock and journal are found here. Behind everything else, and the repository
# before it: no room is to be found under another name.
sys.path += [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from .machine import Machine  # it needs that path
from .postgres_journal import ask

if TYPE_CHECKING:
    from benchmarks.postgres_server import Server


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture(scope="module")
def database(postgres: Server) -> str:
    return postgres.database()


@pytest.fixture
def url(database: str) -> str:
    """A database without any table of ours."""
    ask(database, "DROP SCHEMA IF EXISTS trunkline CASCADE")
    return database
