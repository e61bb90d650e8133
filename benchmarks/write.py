"""Writes docs/benchmarks.md, docs/scaling.md, docs/ten-thousand.md, their pictures and README's
paragraph, from what the benchmarks left in ``out/bench``.

    python benchmarks/write.py

Each benchmark that a page needs calls it at its end; what has not run yet is left out.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import page, scaling, targets, ten_thousand


def write() -> None:
    """Write the pages, if there is a run of run.py."""
    left: dict[str, Any] = {p.stem: json.loads(p.read_text()) for p in page.OUT.glob("*.json")}
    if "results" not in left:
        print("there is no page without results: run benchmarks/run.py first", file=sys.stderr)
        return
    found = page.Found(left["results"])
    sections = [page.page(found), targets.section(left)]
    if "parallel" in left:
        sections.append(page.parallel_part(left["parallel"]))
    page.PAGE.write_text("\n".join(sections))
    page.draw(found)
    scaling.write(left)
    ten_thousand.write(left)
    before, _, rest = page.README.read_text().partition(page.BEGIN)
    _, _, after = rest.partition(page.END)
    said = textwrap.fill(page.paragraph(found), 100, break_long_words=False, break_on_hyphens=False)
    page.README.write_text(f"{before}{page.BEGIN}\n{said}\n{page.END}{after}")
    print(f"written to {page.PAGE}, {scaling.PAGE} and {page.README}")


if __name__ == "__main__":
    write()
