"""What ``make lint`` says of imports that hide which room they reach."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

_PATH = Path(__file__).parents[2] / "tools" / "check_imports.py"
_SPEC = importlib.util.spec_from_file_location("check_imports", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
check_imports = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(check_imports)


def wrong(code: str, package: str) -> list[str]:
    return [what for _, what in check_imports.faults(ast.parse(code), package)]


@pytest.mark.parametrize(
    ("code", "package"),
    [
        ("from .streams import Streams", "trunkline.gateway"),
        ("from . import twiml", "trunkline.gateway"),
        ("from ..line import Line", "trunkline.adapter.scenario"),
        ("from trunkline.bus import messages as m", "trunkline.gateway"),
        ("from trunkline.bus.clock import monotonic", "trunkline.stack"),
        ("from ..stack.http_get import get", "trunkline.doctor"),
        ("from . import Line", "trunkline"),
        ("import trunkline.bus.wire", "trunkline.gateway"),
        ("import zmq", "trunkline.bus"),
    ],
)
def test_imports_that_say_where_they_go(code: str, package: str) -> None:
    assert wrong(code, package) == []


@pytest.mark.parametrize(
    ("code", "package", "what"),
    [
        ("from trunkline.gateway import app", "trunkline.gateway", "stays"),
        ("from trunkline import gateway", "trunkline.gateway", "stays"),
        ("import trunkline.gateway.app", "trunkline.gateway", "stays"),
        ("from trunkline.stack.children import Child", "trunkline.demo", "stays"),
        ("from trunkline import Line", "trunkline", "stays"),
        ("from ..bus import messages", "trunkline.gateway", "leaves"),
        ("from .. import bus", "trunkline.gateway", "leaves"),
        ("from ...gateway.app import GatewayApp", "trunkline.adapter.client", "leaves"),
        ("from .bus.wire import PROTOCOL", "trunkline", "leaves"),
    ],
)
def test_imports_that_hide_where_they_go(code: str, package: str, what: str) -> None:
    (found,) = wrong(code, package)
    assert what in found
