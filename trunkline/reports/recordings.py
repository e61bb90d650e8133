"""Finds recordings with one side on each channel, reads them, and lets the ear listen to them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from trunkline.bus import wav
from trunkline.bus.errors import InvalidRequestError, SettingsError
from trunkline.ear.figures import Digit, Report
from trunkline.ear.levels import RATE
from trunkline.ear.listen import listen
from trunkline.gateway.recording_file import read_whose

Channel = Literal["left", "right"]
#: The side of a recording's keys where its left channel, not its right one, is ours.
_OTHER: Final = {"ours": "theirs", "theirs": "ours"}


@dataclass(frozen=True)
class Heard:
    """A call that the ear has listened to."""

    title: str
    #: PCM16 at 8 kHz
    ours: wav.Samples
    theirs: wav.Samples
    report: Report


def find(what: str, directory: Callable[[], Path | None]) -> list[Path]:
    """The recordings of ``what``: a WAV file, a directory or a CallSid. They are sorted by name,
    and so by time, because a stack begins each name with the time.

    Recordings of a CallSid are looked for in ``directory``. As a rule there is one for the whole
    call. Gateways on several machines make several, each of those streams of the call that came to
    it. Raises SettingsError where no directory is known, and InvalidRequestError where there is no
    recording.
    """
    path = Path(what)
    if path.is_file():
        return [path]
    if path.is_dir():
        where, pattern = path, "*.wav"
    elif re.fullmatch(r"CA\w+", what):
        found = directory()
        if found is None:
            raise SettingsError(
                f"{what} is no file, and it is not known where the recordings of calls are: set "
                "TRUNKLINE_RECORDINGS_DIR or --recordings-dir"
            )
        where, pattern = found, f"*-{what}*.wav"
    else:
        raise InvalidRequestError(
            f"{what} is no file, no directory and no CallSid: `trunkline calls` lists calls and "
            "their recordings"
        )
    recordings = sorted(where.glob(pattern))
    if not recordings:
        raise InvalidRequestError(f"{where} has no recording {pattern}")
    return recordings


def hear(path: Path, ours: Channel = "right") -> Heard:
    """Read a recording, and let the ear listen to it. ``ours``: the channel of the test's side.

    Raises InvalidRequestError where it is not a PCM WAV file of two channels.
    """
    left, right = sides(path)
    mine, other = (left, right) if ours == "left" else (right, left)
    keys = [
        Digit(at=key.at, side=key.side if ours == "right" else _OTHER[key.side], digit=key.digit)
        for key in read_whose(path).keys
    ]
    return Heard(path.name, mine, other, listen(mine, other, keys=keys))


def sides(path: Path) -> tuple[wav.Samples, wav.Samples]:
    """The left and the right channel, PCM16 at 8 kHz. InvalidRequestError as of :func:`hear`."""
    channels = wav.read_channels(path, RATE)
    if len(channels) != 2:
        raise InvalidRequestError(
            f"{path} has {len(channels)} channel(s): each side has to be on a channel of its own, "
            "left and right, as in the recordings of a stack with TRUNKLINE_RECORDINGS_DIR"
        )
    left, right = channels
    return left, right
