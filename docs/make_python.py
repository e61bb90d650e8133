"""Writes docs/python.md from the docstrings of what tests import.

Run by ``make docs``; with ``--check`` it changes nothing and exits 1 where the page is out of date.
The sources are read and not imported, because the adapter's class needs langwatch-scenario.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Final, TypeGuard

from make_bus import keep

DOCS: Final = Path(__file__).parent
ROOT: Final = DOCS.parent
#: (file, class, how it is had)
CLASSES: Final = (
    ("adapter/line.py", "Line", "from trunkline import Line"),
    ("adapter/call.py", "Call", "await line.place_call(…), await line.wait_for_call(…)"),
    ("adapter/turns/by_hand.py", "Turn", "await call.next_turn()"),
    ("adapter/tap.py", "Tap", "async with line.listen(…) as tap"),
    ("ear/figures.py", "Report", "call.report(), adapter.report(), tap.report()"),
    (
        "adapter/scenario/adapter.py",
        "TwilioAgentAdapter",
        "from trunkline import TwilioAgentAdapter",
    ),
)
#: A line in a script, without pytest.
EXAMPLE: Final = """\
import asyncio

from trunkline import Line


async def main():
    async with Line("any", allowed_callees=["+14155557777"]) as line:
        call = await line.place_call("+14155557777", attach_stream="a-leg")
        await call.send_audio(bytes(9_600))  # 0.2 s
        assert await call.recv_audio(timeout=5.0)
        await call.hang_up()


asyncio.run(main())"""
#: Members that trunkline's own modules share, and tests have no use for.
OURS: Final = {
    "abandon",
    "allow",
    "carries_sound",
    "check_mode",
    "dial",
    "ending",
    "keeps_sound",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def text(docstring: str) -> str:
    """A docstring as Markdown."""
    found = re.sub(
        r":\w+:`~?\.*([^`]+)`", lambda role: f"`{role[1].rpartition('.')[2]}`", docstring
    )
    return found.replace("``", "`").replace("::\n", ":\n")


def _signature(member: Function, owner: str) -> str:
    """How it is written where it is used."""
    decorators = {ast.unparse(each) for each in member.decorator_list}
    returns = f" -> {ast.unparse(member.returns)}" if member.returns else ""
    if "property" in decorators:
        return f"{owner}.{member.name}{returns.replace(' ->', ':')}"
    arguments = member.args
    arguments.args = arguments.args[1:]  # self, or the class
    before = "await " if isinstance(member, ast.AsyncFunctionDef) else ""
    if "asynccontextmanager" in decorators:
        before, returns = "async with ", ""
    if "classmethod" in decorators:
        owner = owner.capitalize()
    if member.name == "__init__":
        return f"{owner}({ast.unparse(arguments)})"
    return f"{before}{owner}.{member.name}({ast.unparse(arguments)}){returns}"


def _is_shown(member: ast.stmt) -> TypeGuard[Function]:
    if not isinstance(member, Function) or member.name in OURS:
        return False
    if member.name == "__init__":
        return True
    return not member.name.startswith("_") and ast.get_docstring(member) is not None


def section(file: str, name: str, had: str) -> list[str]:
    """A class, and what may be done with it."""
    tree = ast.parse((ROOT / file).read_text())
    (found,) = (each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == name)
    parts = [
        f"## {name}",
        "",
        "```text",
        had,
        "```",
        "",
        text(ast.get_docstring(found) or "").rstrip(),
        "",
    ]
    owner = {"TwilioAgentAdapter": "adapter"}.get(name, name.lower())
    for member in filter(_is_shown, found.body):
        if member.name == "__init__":
            if "import" in had:
                parts += ["```text", _signature(member, name), "```", ""]
            continue
        parts += [f"### {owner}.{member.name}", "", "```text", _signature(member, owner), "```", ""]
        parts += [text(ast.get_docstring(member) or "").rstrip(), ""]
    return parts


def page() -> str:
    """All classes."""
    parts = [
        "# Python",
        "",
        "Written by `make docs` from the docstrings. [start.md](start.md) has a first test, "
        "[pytest.md](pytest.md) the\nfixtures, and [drop-in.md](drop-in.md) each behaviour of the "
        "adapter. Times are in seconds. Errors are in\n`trunkline.errors`.",
        "",
        "```python",
        EXAMPLE,
        "```",
        "",
    ]
    for each in CLASSES:
        parts += section(*each)
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(keep(DOCS / "python.md", page()))
