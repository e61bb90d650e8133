"""What ``make lint`` says of imports that hide which room they reach."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from . import tool

check_imports = tool.load("check_imports")


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


def reaches(code: str, package: str) -> list[str]:
    return [what for _, what in check_imports.of_the_shell(ast.parse(code), package)]


@pytest.mark.parametrize(
    ("code", "package"),
    [
        ("from ..journal.rows import DialRow", "trunkline.controller.rules"),
        ("from ..journal import rows", "trunkline.controller.rules"),
        ("from ... import instructions as do", "trunkline.controller.rules.book"),
        ("from .book.call import Call", "trunkline.controller.rules"),
        ("from .twilio.calls import CallOrder", "trunkline.controller"),
        ("from trunkline.bus import messages as m", "trunkline.controller.rules"),
        ("import secrets", "trunkline.controller.rules"),
    ],
)
def test_what_a_rule_may_import(code: str, package: str) -> None:
    assert reaches(code, package) == []


@pytest.mark.parametrize(
    ("code", "package", "name"),
    [
        ("from ..a_new_file import f", "trunkline.controller.rules", "a_new_file.f"),
        ("from .. import otlp", "trunkline.controller.rules", "otlp"),
        ("from ..journal import database", "trunkline.controller.rules", "journal.database"),
        ("from .. import journal", "trunkline.controller.rules", "journal"),
        ("from ...rules_of_old import f", "trunkline.controller.rules.book", "rules_of_old.f"),
        ("def f():\n    from ..shell import Shell", "trunkline.controller.rules", "shell.Shell"),
        ("from .shell import Shell", "trunkline.controller", "shell.Shell"),
    ],
)
def test_what_no_rule_may_import(code: str, package: str, name: str) -> None:
    (found,) = reaches(code, package)
    assert found.endswith(f"no rule may import {name}")


def test_whose_imports_are_looked_at() -> None:
    """A file that rules may import is held to the same list: they reach nothing else through it."""
    for module in ("rules.calls", "rules.book.call", "rules.__init__", "journal.rows"):
        assert check_imports.is_for_rules(module)
    for module in ("core", "journal.store", "journal.rows_of_old", "rules_of_old"):
        assert not check_imports.is_for_rules(module)


def test_a_rule_that_reaches_the_shell_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_imports, "ROOT", tmp_path)
    for path, code in (
        ("rules/book/call.py", "from ...shell import Shell"),
        ("instructions.py", "from .shell import Shell"),
        ("core.py", "from .shell import Shell"),
    ):
        (tmp_path / "controller" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "controller" / path).write_text(code)
    assert check_imports.main() == 1
    files = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert files == ["controller/instructions.py", "controller/rules/book/call.py"]
