"""What a controller that ends leaves to be done: named in the log, and told by the exit status.

The journal is asked and not the core, because the next start will find the journal. A number that
Twilio did not take back within the 4 s of an end is such a thing, and so is a call that it did not
hang up. A line for each, with all but four digits of its number hidden, for example::

    number ***1234 is still to be restored: the next start, or `trunkline restore`, does it

A script that ends a stack looks at the status (3) and runs the command.
"""

from __future__ import annotations

import logging

from trunkline.bus.process import EXIT_DONE, EXIT_PENDING
from trunkline.bus.redact import redact_number

from .journal.orphans import Orphans
from .journal.store import Journal

log = logging.getLogger("trunkline.controller")


async def say_what_is_left(journal: Journal, orphans: Orphans) -> int:
    """The exit status: 3 where something is left, or where a row cannot be read that may be of a
    number. Unreadable dials do not count, because no start can do anything about them; their calls
    end by their time limit. DatabaseAwayError: nobody can say."""
    open_rows = await journal.open_rows()
    overrides = open_rows.overrides + await orphans.open_overrides()
    later = "the next start, or `trunkline restore`, does it"
    for row in overrides:
        log.error("number %s is still to be restored: %s", redact_number(row.number), later)
    for dial in open_rows.dials:
        shown = redact_number(dial.callee)
        log.error("a call to %s is still to be hung up: %s", shown, later)
    for heard in open_rows.listening:
        log.error("a stream of call %s is still to be stopped: %s", heard.sid, later)
    unreadable = [row for row in open_rows.unreadable if row.table == "override"]
    for lost in unreadable:
        log.error("%s", lost.text(journal.name))
    left = overrides or open_rows.dials or open_rows.listening or unreadable
    return EXIT_PENDING if left else EXIT_DONE
