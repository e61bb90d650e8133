"""What ``make lint`` counts as a line that explains."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import tool

check_explanation = tool.load("check_explanation")

#: Each line that explains ends with EXPLAINS.
CODE = '''"""A module. EXPLAINS

It has a second paragraph. EXPLAINS
EXPLAINS"""
import os  # noqa: F401
import re  # noqa: F401  # its reason EXPLAINS
from typing import Any  # for the second field EXPLAINS

text = """a text
# that is no comment"""
"a string that stands alone"


class Entry:
    """An entry. EXPLAINS"""

    #: its name EXPLAINS
    name: str
    value: Any  # type: ignore

    # ------------------------------------------------------------------ what is told

    async def tell(self) -> str:
        """Two lines EXPLAINS
        of it. EXPLAINS"""
        # EXPLAINS
        #
        return "# no comment"
'''


def test_which_lines_explain() -> None:
    wanted = {n for n, line in enumerate(CODE.splitlines(), 1) if "EXPLAINS" in line}
    assert check_explanation.explaining(CODE) == wanted


@pytest.mark.parametrize(("codes", "status"), [(4, 0), (5, 1)])
def test_a_fifth_is_enough(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    codes: int,
    status: int,
) -> None:
    """Over all files, blank lines with them; those of the folders in it, too."""
    monkeypatch.setattr(check_explanation, "ROOM", tmp_path)
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "calls.py").write_text("# why\n")
    (tmp_path / "shell.py").write_text("a = 1\n" * (codes - 1) + "\n")
    (tmp_path / "__init__.py").write_text("")
    assert check_explanation.main() == status
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{1 / (codes + 1):.2%} of {codes + 1} lines")
    assert said[1:] == [
        f"  0% of {tmp_path.name}/shell.py",
        f"  100% of {tmp_path.name}/rules/calls.py",
    ]
