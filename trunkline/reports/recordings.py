"""Recordings with one side on each channel: found, read, and listened to."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from trunkline.bus import wav
from trunkline.bus.errors import InvalidRequestError, SettingsError
from trunkline.bus.settings import Settings
from trunkline.ear.figures import Digit, Report
from trunkline.ear.levels import RATE
from trunkline.ear.listen import listen
from trunkline.gateway.recording_file import read_whose

Channel = Literal["left", "right"]
#: Whose keys those are that a recording has, where its left channel is taken for ours.
_OTHER: Final = {"ours": "theirs", "theirs": "ours"}


@dataclass(frozen=True)
class Heard:
    """A call that the ear has heard."""

    title: str
    #: PCM16 at 8 kHz
    ours: wav.Samples
    theirs: wav.Samples
    report: Report


def find(what: str, settings: Callable[[], Settings]) -> list[Path]:
    """The recordings of a WAV file, a directory, or a CallSid; the oldest first.

    A CallSid's is in TRUNKLINE_RECORDINGS_DIR, one for the whole call. Stacks on several machines
    have several: each has those streams of the call that came to it. Raises SettingsError where
    that directory is not set, and InvalidRequestError where there is no recording.
    """
    path = Path(what)
    if path.is_file():
        return [path]
    if path.is_dir():
        directory, pattern = path, "*.wav"
    elif re.fullmatch(r"CA\w+", what):
        found = settings().recordings_dir
        if found is None:
            raise SettingsError(
                f"{what} is no file, and where recordings of calls are is not known: set "
                "TRUNKLINE_RECORDINGS_DIR, or --recordings-dir"
            )
        directory, pattern = found, f"*-{what}*.wav"
    else:
        raise InvalidRequestError(f"{what} is no file, no directory and no CallSid")
    recordings = sorted(directory.glob(pattern))
    if not recordings:
        raise InvalidRequestError(f"{directory} has no recording {pattern}")
    return recordings


def hear(path: Path, ours: Channel = "right") -> Heard:
    """Read a recording, and listen to it. ``ours``: the channel of the side that tests.

    Raises InvalidRequestError for what is no PCM WAV file of two channels.
    """
    left, right = sides(path)
    mine, other = (left, right) if ours == "left" else (right, left)
    keys = [
        Digit(at=key.at, side=key.side if ours == "right" else _OTHER[key.side], digit=key.digit)
        for key in read_whose(path).keys
    ]
    return Heard(path.name, mine, other, listen(mine, other, keys=keys))


def sides(path: Path) -> tuple[wav.Samples, wav.Samples]:
    """Both channels, PCM16 at 8 kHz. InvalidRequestError as :func:`hear`."""
    channels = wav.read_channels(path, RATE)
    if len(channels) != 2:
        raise InvalidRequestError(
            f"{path} has {len(channels)} channel(s): a report needs each side on its own, left and "
            "right"
        )
    left, right = channels
    return left, right
