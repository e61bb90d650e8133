"""What ``make lint`` says of a field that is written by another than its entity."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

_PATH = Path(__file__).parents[2] / "tools" / "check_owners.py"
_SPEC = importlib.util.spec_from_file_location("check_owners", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
check_owners = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(check_owners)


def faults(code: str) -> list[str]:
    return [what for _, what in check_owners.faults(ast.parse(code), sets_state=False)]


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("call.gateway = None", "call.gateway is another's field"),
        ("call.checked += 1", "call.checked is another's field"),
        ("a, call.sid = 1, 2", "call.sid is another's field"),
        ("at.book.calls[1] = call", "at.book.calls[1] is another's field"),
        ("del at.book.calls[1]", "at.book.calls[1] is another's field"),
        ("self.book.claiming = False", "self.book.claiming is another's field"),
        ("call.ending.append(1)", "call.ending.append changes what is another's"),
        ("at.book.leases.pop(1)", "at.book.leases.pop changes what is another's"),
        ("setattr(call, 'sid', 1)", "a field is set by its name"),
        ("object.__setattr__(call, 'sid', 1)", "a field is set by its name"),
        ("self.state = 'armed'", "a state is set past its table"),
    ],
)
def test_refused(code: str, what: str) -> None:
    assert faults(code) == [what]


@pytest.mark.parametrize(
    "code",
    [
        "call.stream_lost(reason, now)",
        "self.gateway = None",
        "self.calls[1] = call",
        "self.ending.append(1)",
        "found = []\nfound.append(1)",
        "loads[active] = 1.0",
        "at.book.pool.add(1)",
    ],
)
def test_allowed(code: str) -> None:
    assert faults(code) == []
