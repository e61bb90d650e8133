"""Plays a recording through the machine's own player, if it has one."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from trunkline.bus import wav
from trunkline.bus.errors import TrunklineError
from trunkline.ear.levels import RATE

Side = Literal["both", "ours", "theirs"]

#: Programs that play a WAV and end, and their options; the first one that is installed is taken.
PLAYERS: Final[tuple[tuple[str, ...], ...]] = (
    ("afplay",),
    ("paplay",),
    ("pw-play",),
    ("aplay", "-q"),
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error"),
    ("play", "-q"),
)


class NoPlayerError(TrunklineError, RuntimeError):
    """This machine has no program that plays sound, or the program failed."""


def player() -> list[str]:
    """The command that plays a file. NoPlayerError where there is none."""
    for program, *options in PLAYERS:
        if shutil.which(program) is not None:
            return [program, *options]
    names = ", ".join(program for program, *_ in PLAYERS)
    raise NoPlayerError(
        f"this machine has none of {names}: install one (Debian: alsa-utils or ffmpeg), or open "
        "the file elsewhere"
    )


def play(path: Path, side: Side) -> None:
    """Play it to its end. NoPlayerError, which names the file."""
    try:
        command = player()
        with _sound(path, side) as sound:
            ended = subprocess.run(  # noqa: S603  # a program of PLAYERS, without a shell
                [*command, str(sound.absolute())],  # no name is taken for an option
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                check=False,
            )
    except NoPlayerError as error:
        raise NoPlayerError(f"{path} was not played: {error}") from None
    if ended.returncode:
        said = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NoPlayerError(
            f"{path} was not played: {command[0]} ended with status {ended.returncode}: {said}"
        )


@contextlib.contextmanager
def _sound(path: Path, side: Side) -> Iterator[Path]:
    """The file to play; a side alone is on both ears. InvalidRequestError where the sides are not
    one on each channel."""
    if side == "both":
        yield path
        return
    from ..reports.recordings import sides

    theirs, ours = sides(path)
    with tempfile.TemporaryDirectory(prefix="trunkline-play-") as directory:
        alone = Path(directory) / f"{path.stem}-{side}.wav"
        wav.write(alone, ours if side == "ours" else theirs, rate=RATE)
        yield alone
