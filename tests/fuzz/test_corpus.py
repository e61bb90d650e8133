"""What once was a fault is none any more, and each target stands a first look."""

from __future__ import annotations

from pathlib import Path

import pytest

from .__main__ import by_hypothesis
from .targets import CORPUS, TARGETS


@pytest.mark.parametrize(
    "path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_bytes_of_the_corpus(path: Path) -> None:
    TARGETS[path.parent.name].check(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_stands_a_first_look(name: str) -> None:
    assert by_hypothesis(name, TARGETS[name], seconds=0.0, seed=1) == 0
