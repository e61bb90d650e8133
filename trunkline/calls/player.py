"""Plays a recording by a program of this machine, if it has one."""

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

#: Programs that play a WAV file and end, with their options. The first that is installed is used.
PLAYERS: Final[tuple[tuple[str, ...], ...]] = (
    ("afplay",),
    ("paplay",),
    ("pw-play",),
    ("aplay", "-q"),
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error"),
    ("play", "-q"),
)


class NoPlayerError(TrunklineError, RuntimeError):
    """No program of PLAYERS is installed, or the program failed."""


def player() -> list[str]:
    """The command to which the file to play is appended. NoPlayerError where there is none."""
    for program, *options in PLAYERS:
        if shutil.which(program) is not None:
            return [program, *options]
    names = ", ".join(program for program, *_ in PLAYERS)
    raise NoPlayerError(
        f"this machine has none of {names}: install one (Debian: alsa-utils or ffmpeg), or open "
        "the file elsewhere"
    )


def play(path: Path, side: Side) -> None:
    """Play a recording to its end. Raises NoPlayerError that names the file."""
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
    """The file to play: the recording, or a temporary mono file of one side. InvalidRequestError
    where the recording does not have one side on each channel."""
    if side == "both":
        yield path
        return
    from ..reports.recordings import sides

    theirs, ours = sides(path)
    with tempfile.TemporaryDirectory(prefix="trunkline-play-") as directory:
        alone = Path(directory) / f"{path.stem}-{side}.wav"
        wav.write(alone, ours if side == "ours" else theirs, rate=RATE)
        yield alone
