"""Keeps the cassettes of a run's failed tests beside its page, with the commands that play them."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from trunkline.bus import settings
from trunkline.bus.cassettes import SUFFIX, WRITE_EVERY
from trunkline.carrier_sim.client import SimClient

#: The list of these cassettes, in the page's directory.
LIST: Final = "failed.json"
#: What the commands are good for.
WHOM: Final = (
    "`trunkline replay FILE` tests trunkline, and not the agent. To see what a change of the agent "
    "has mended, run the test again, or add `--against ws://… --play ours` (docs/replay.md)"
)


@dataclass(frozen=True)
class Failed:
    """A call of a test that failed. ``call`` is None where no call came up. ``seed``: the stand-in
    carrier's, by which it drew its habits; None at Twilio."""

    test: str
    call: str | None
    seed: int | None = None

    def command(self, pages: Path) -> str | None:
        """The command that plays the call again."""
        if self.call is None:
            return None
        return f"trunkline replay {shlex.quote(str(pages / (self.call + SUFFIX)))}"

    def told(self, pages: Path) -> str:
        """The same command, with the options that run the test with the same carrier."""
        seed = "" if self.seed is None else f"   (--phone-sim --phone-seed {self.seed})"
        return (self.command(pages) or "it has no cassette") + seed


def source(directory: Path | None, *, asked: bool) -> Path | None:
    """The directory in which stacks keep cassettes for a run: the user's own
    (TRUNKLINE_CASSETTES_DIR), or else, if the run has ``asked`` for them, one in the run's
    ``directory``. None: they keep none."""
    found = settings.load().cassettes_dir
    if found is not None:
        return found.absolute()
    return directory / "cassettes" if asked and directory is not None else None


def settle(directory: Path | None) -> None:
    """Wait until a stack that outlives the run has written its cassettes. A stack that was started
    in the run's ``directory`` has ended, and has written them."""
    if directory is None or not list(directory.glob("*.log")):
        time.sleep(2 * WRITE_EVERY)


def seed_of(sim: str | None) -> int | None:
    """The seed of the stand-in carrier at this URL; None at Twilio."""
    if sim is None:
        return None
    with SimClient(sim) as client:
        return int(client.health()["seed"])


def keep(failed: list[Failed], source: Path, pages: Path) -> list[str]:
    """Copy the cassettes from ``source`` to ``pages``. Returns a line for each one found, and one
    for each test that has none, if there is a seed to tell. The last line is :data:`WHOM`, if there
    are cassettes."""
    pages.mkdir(parents=True, exist_ok=True)
    kept: list[Failed] = []
    for each in failed:
        found = source / f"{each.call}{SUFFIX}"
        if each.call is not None and found.exists():
            target = pages / found.name
            if not (target.exists() and target.samefile(found)):
                shutil.copyfile(found, target)
            kept.append(each)
    played = {each.test for each in kept}
    others = [each for each in failed if each.test not in played and each.seed is not None]
    kept += {each.test: Failed(each.test, None, each.seed) for each in others}.values()
    rows = [asdict(each) | {"command": each.command(pages)} for each in kept]
    listed = pages / LIST
    if rows:
        listed.write_text(json.dumps(rows, indent=1) + "\n")
    else:
        listed.unlink(missing_ok=True)  # of an earlier run
    return [f"{each.test}: {each.told(pages)}" for each in kept] + ([WHOM] if played else [])
