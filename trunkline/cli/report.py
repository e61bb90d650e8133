"""``trunkline report``: what the ear says of recordings, as lines, as JSON, and as a page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from trunkline.bus.process import EXIT_DONE
from trunkline.bus.settings import Settings

from ..reports import page, recordings, text
from . import progress


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
    by the name of their file. Raises as recordings.find and recordings.hear do.
    """
    paths = recordings.find(what, settings)
    calls = [recordings.hear(path, ours) for path in progress.each(paths, "listening")]
    if html is not None:
        html.write_text(page.page(f"trunkline report: {what}", map(page.section, calls)))
    if as_json:
        alone = len(calls) == 1 and not Path(what).is_dir()
        found = calls[0].report if alone else {call.title: call.report for call in calls}
        click.echo(msgspec.json.encode(found).decode())
    else:
        for call in calls:
            for line in text.lines(call.title, call.report):
                click.echo(line)
    return EXIT_DONE
