"""Writes the table of lines into docs/far-end.md, as benchmarks/lines.py measures them.

Run by ``make docs``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.lines import rows

PAGE = Path(__file__).with_name("far-end.md")


def main() -> None:
    """Put the table between its two marks."""
    table = "\n".join(["<!-- lines -->", *rows(), "<!-- /lines -->"])
    page = re.sub(
        r"<!-- lines -->.*<!-- /lines -->", lambda _: table, PAGE.read_text(), flags=re.DOTALL
    )
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
