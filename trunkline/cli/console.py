"""``trunkline console``: open the console in a browser, or print its link.

The link has the console's token in its fragment, which a browser does not send to any server. Other
users of the machine can read a browser's command line, so the browser does not get the link itself,
but a file that leads to it and that only its owner can read.
"""

from __future__ import annotations

import contextlib
import html
import os
import tempfile
import time
import webbrowser
from pathlib import Path
from typing import Final

import click

from trunkline.bus import messages as m
from trunkline.bus.process import EXIT_DONE
from trunkline.bus.settings import Settings

from ..stack.controller_client import controller_client
from .status import ANSWER_WITHIN

#: How the names of pages begin and end that lead a browser to a console.
_NAME: Final = ("trunkline-console-", ".html")
#: A browser has read such a page by then (seconds).
_READ_WITHIN: Final = 60.0
_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>trunkline</title>'
    '<meta http-equiv="refresh" content="0; url={0}"><a href="{0}">the console</a></html>\n'
)


async def console(settings: Settings, *, show: bool) -> int:
    """Ask the controller for the link, and open it, or with ``show`` print it. Raises
    StackUnavailableError where no controller answers."""
    async with controller_client(settings, timeout=ANSWER_WITHIN) as client:
        link = await client.request(m.GetConsole(), m.ConsoleLink, timeout=5.0)
    url = f"{link.url}/#token={link.token}"
    if show or not _opened(url):
        click.echo(url)
    return EXIT_DONE


def _opened(url: str) -> bool:
    """Open a browser at ``url``; False where there is none.

    The page that leads the browser there is left behind, because nobody tells when it has been
    read. Its token is void once the controller has ended, and the next call removes it.
    """
    _remove_read()
    page = _page(url)
    found = webbrowser.open(page.as_uri())
    if not found:
        page.unlink()
    return found


def _page(url: str) -> Path:
    """A page that leads to ``url``, and that only its owner can read."""
    descriptor, name = tempfile.mkstemp(prefix=_NAME[0], suffix=_NAME[1])
    with os.fdopen(descriptor, "w") as file:
        file.write(_PAGE.format(html.escape(url)))
    return Path(name)


def _remove_read() -> None:
    """Remove the pages that this user's earlier calls have left."""
    for page in Path(tempfile.gettempdir()).glob("*".join(_NAME)):
        with contextlib.suppress(OSError):  # somebody else has just removed it
            found = page.lstat()
            if found.st_uid == os.geteuid() and time.time() - found.st_mtime > _READ_WITHIN:
                page.unlink()
