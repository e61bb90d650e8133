"""``trunkline report``: the ear's reports of recordings, as lines, as JSON, and as a page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import click

from trunkline.bus.errors import InvalidRequestError
from trunkline.bus.process import EXIT_DONE, EXIT_FAILED, complain
from trunkline.bus.settings import Settings

from ..calls import known
from ..reports import files, page, recordings, text
from . import progress
from .json_text import json_text


def report(
    what: str,
    settings: Callable[[], Settings],
    ours: recordings.Channel,
    *,
    as_json: bool,
    html: Path | None,
) -> int:
    """Listen to the recordings that ``what`` names, and print their reports; returns the exit
    status.

    The JSON of one recording is its report. That of a directory, or of a call with several
    recordings, is an object of reports by the name of their file. A recording among several that
    cannot be read is named on stderr, the others are reported, and the status is 1. Raises what
    recordings.find and files.check_option raise, and for a single recording what recordings.hear
    raises.
    """
    paths = recordings.find(what, lambda: asyncio.run(known.recordings_dir(settings())))
    if html is not None:
        files.check_option("--html", html)
    calls, wrong = [], []
    for path in progress.each(paths, "listening"):
        try:
            calls.append(recordings.hear(path, ours))
        except (InvalidRequestError, OSError) as error:
            if len(paths) == 1:
                raise
            wrong.append(f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error))
    if html is not None:
        files.write(html, page.page(f"trunkline report: {what}", map(page.section, calls)))
    if as_json:
        alone = len(paths) == 1 and not Path(what).is_dir()
        found = calls[0].report if alone else {call.title: call.report for call in calls}
        click.echo(json_text(found))
    else:
        for call in calls:
            for line in text.lines(call.title, call.report):
                click.echo(line)
    for each in wrong:
        complain("report", each)
    return EXIT_FAILED if wrong else EXIT_DONE
