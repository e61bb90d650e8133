"""``trunkline report``: what the ear says of recordings, as lines, as JSON, and as a page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from trunkline.bus.errors import InvalidRequestError
from trunkline.bus.process import EXIT_DONE, EXIT_FAILED, complain
from trunkline.bus.settings import Settings

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
    """Listen to the recordings of ``what``, and say what was heard; the exit status.

    JSON is one object: the report, or for a directory, or a call with several recordings, reports
    by the name of their file. One of several that cannot be heard is named, and the others are
    reported on; the status is 1 then. Raises as recordings.find and recordings.hear do.
    """
    paths = recordings.find(what, settings)
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
