"""The cassettes of a run's failed tests, kept beside its page, with the commands that play them."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from trunkline.bus.cassettes import SUFFIX

#: The list of them, in the page's directory.
LIST: Final = "failed.json"


@dataclass(frozen=True)
class Failed:
    """A call of a test that failed. ``seed``: by which the stand-in carrier drew its habits; None
    at Twilio."""

    test: str
    call: str
    seed: int | None = None

    def command(self, pages: Path) -> str:
        """Plays the call again."""
        return f"trunkline replay {shlex.quote(str(pages / (self.call + SUFFIX)))}"

    def told(self, pages: Path) -> str:
        """The command, and how to run the test with the same carrier."""
        seed = "" if self.seed is None else f"   (--phone-sim --phone-seed {self.seed})"
        return self.command(pages) + seed


def keep(failed: list[Failed], source: Path, pages: Path) -> list[str]:
    """Copy the cassettes from where the stack has written them; a line for each that there is."""
    kept = []
    for each in failed:
        found = source / (each.call + SUFFIX)
        if found.exists():
            pages.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, pages / found.name)
            kept.append(each)
    rows = [asdict(each) | {"command": each.command(pages)} for each in kept]
    listed = pages / LIST
    if rows:
        listed.write_text(json.dumps(rows, indent=1) + "\n")
    else:
        listed.unlink(missing_ok=True)  # of an earlier run
    return [f"{each.test}: {each.told(pages)}" for each in kept]
