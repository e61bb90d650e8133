"""Commands on the pages that nobody runs, because they last or cost, are commands that there are.

Examples with what they print stand in ``console`` blocks, which tests/dropin/test_pages.py runs.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from trunkline.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
#: A command with its options, up to a comment, a pipe or the end of an inline piece of code.
COMMAND = re.compile(r"(?:^|[\s`]|bin/)trunkline ([a-z][a-z-]*(?: [^#|&()`\n]*)?)", re.MULTILINE)
#: Blocks of other languages, and blocks that are run.
OTHERS = re.compile(r"^ *```\w+\n.*?^ *```$", re.DOTALL | re.MULTILINE)
#: Code: blocks without a language, which are a shell's or a drawing, and pieces in a text.
CODE = re.compile(r"^ *```\n.*?^ *```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
#: Stand for something else.
ELLIPSES = re.compile(r"[\[\]…]")


def commands(page: Path) -> list[list[str]]:
    """Each ``trunkline …`` of a page, with its options."""
    found = []
    for code in CODE.findall(OTHERS.sub("", page.read_text())):
        for command in COMMAND.findall(code):
            if not ELLIPSES.search(command) and "install" not in code.partition("trunkline")[0]:
                found.append(shlex.split(command.replace("\\", "")))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_are_commands_that_there_are(page: Path) -> None:
    for argv in commands(page):
        if cli.commands[argv[0]].context_settings:
            del argv[1:]  # of another program, which it would run
        result = CliRunner().invoke(cli, [*argv, "--help"])
        assert result.exit_code == 0, f"trunkline {shlex.join(argv)}: {result.output}"


def test_they_are_found() -> None:
    found = [command for page in PAGES for command in commands(page)]
    assert len(found) > 100
    assert ["up", "--tunnel", "cloudflared"] in found
    assert ["restore", "--account"] in found
