"""The override of a number: which fields it changes, and when a write of them is certain. No I/O.

An *override* makes a number of the account call us instead of whoever it called before. Two jobs
write to the number. *apply* replaces the prior fields by ours, *restore* replaces ours by the prior
ones. Both meet the same question: a write got no answer, so did it land?

Theory of operation
-------------------

Twilio may have carried such a write out, may carry it out later, or may never have received it. We
cannot ask it about a request, but we can read the number. So the rule is: after any failure look
before writing again, and remember how much is in doubt.

- *none*: every write was answered. So a read shows how the number stays, until somebody else
  writes.
- *one*: one write has no answer. A read that shows its fields settles it, because it has landed
  and cannot land twice.
- *many*: several writes have no answer, or those of an earlier process, which nobody counted. A
  read that shows the fields does not tell which of them landed; the others may still do so. Only
  time ends this doubt: :data:`UNCERTAIN_SECONDS` after the last of them none lands any more.

An apply whose first write gets no answer, for example::

    Read   somebody's URL is there   other   none   -> Put, intended anew
    Put    no answer                 lost    one    -> Read, after a back-off
    Read   ours is there             ours    none   -> Done(certain=True)

Had the second read shown *prior*, the write would be repeated, and its answer would lead to
``Done(certain=False)``: the first write may still land. That is harmless now, because it says the
same, but not after the restore, which it would undo. The journal therefore keeps until when it may
come (``uncertain_until``), and a restore ends only once that time is over or there is no doubt.

An apply ends as soon as our fields stand there: a test waits for it. Somebody else may have changed
the number since we planned our write. Then an apply makes a new plan, so that their fields are put
back in the end. A restore never writes over them: it compares first. Between that read and the
write the journal is told of the write, and while its database is away that may take minutes. Then
the number is read again.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from trunkline.bus.errors import NumberRoutedElsewhereError
from trunkline.bus.redact import redact_number

from ..journal.rows import OverrideRow
from .number_settings import VOICE_FIELDS, NumberSettings
from .seal import Seal

#: Seconds for which a write without an answer may still take effect, from when it was given up.
#: Twilio documents no such time. This is our assumption; it is long, compared with the 8 s until we
#: give a request up.
UNCERTAIN_SECONDS: Final = 60.0
#: How often a restore reads the number again while such a write may still land (seconds).
REREAD_EVERY: Final = 5.0
#: For this long after an override was made, a read that shows the prior fields may be out of date
#: (seconds): Twilio does not promise that a number reads as it was just written. So it is read
#: again, every STALE_EVERY seconds.
STALE_SECONDS: Final = 15.0
STALE_EVERY: Final = 1.0
#: What a read shows is written over within this time, or the number is read again (seconds). Each
#: time that happens the time is doubled, because a database may be that slow always.
READ_HOLDS: Final = 2.0
#: A timer may fire a little early. Without a least pause the last read would be repeated at once.
SHORTEST_PAUSE: Final = 0.1

Job = Literal["apply", "restore"]
Doubt = Literal["none", "one", "many"]
#: Events. A read shows the *prior* voice_url, *ours*, or an *other*, which may also be one
#: that nobody has journalled yet. A write was answered (*written*), got no answer (*lost*), or was
#: certainly not carried out (*refused*, such as 429). A read failed (*unread*). What the last read
#: showed was too old to be written over (*late*).
Event = Literal["prior", "ours", "other", "written", "lost", "refused", "unread", "late"]

#: The read that shows what this job writes.
LANDED: Final[dict[Job, Event]] = {"apply": "ours", "restore": "prior"}

#: How an event changes the doubt. All other events leave it as it is.
DOUBT: Final[dict[Doubt, dict[str, Doubt]]] = {
    "none": {"lost": "one"},
    # After a second write a read can no longer tell which of the two it shows.
    "one": {"landed": "none", "written": "many", "lost": "many"},
    "many": {},
}

#: The next step of each job. *intend*: journal a new intent, then write. *settle*: done if that is
#: certain, otherwise read again later.
NEXT: Final[dict[Event, dict[Job, Literal["read", "intend", "put", "done", "settle"]]]] = {
    "other": {"apply": "intend", "restore": "settle"},
    "prior": {"apply": "put", "restore": "settle"},
    "ours": {"apply": "done", "restore": "put"},
    "written": {"apply": "done", "restore": "settle"},
    "lost": {"apply": "read", "restore": "read"},
    "refused": {"apply": "read", "restore": "read"},
    "unread": {"apply": "read", "restore": "read"},
    "late": {"apply": "read", "restore": "read"},
}


class Read(NamedTuple):
    """Read the number, ``after`` a pause (seconds) -> prior, ours, other or unread."""

    after: float = 0.0


class Put(NamedTuple):
    """Write the fields -> written, lost, refused or late.

    ``until``: if it gets no answer, it may land until then. That must be in the journal before,
    because we may die while we write. ``anew``: journal a new intent first, which is the number's
    present fields and those that we are going to write over them.
    """

    until: float
    anew: bool


class Done(NamedTuple):
    """``certain``: no write of ours can land any more. ``left``: the fields are somebody else's."""

    certain: bool
    left: bool


class Write:
    """One job's writes to one number. Begin with :class:`Read`, and tell :meth:`step` what came.

    ``now`` is a monotonic clock, so that a wall clock that is set meanwhile neither shortens nor
    prolongs a doubt. ``until``: a write that an earlier job left in doubt may land until then.
    ``stale``: until then, a read that shows the prior fields proves nothing.
    """

    def __init__(self, job: Job, until: float = 0.0, stale: float = 0.0) -> None:
        self.job = job
        self.doubt: Doubt = "many" if until else "none"
        self.until = until
        self.stale = stale

    @classmethod
    def of(cls, job: Job, row: OverrideRow, wall: float, now: float) -> Write:
        """The writes to the number of ``row``, with the doubt that the journal has of earlier ones.

        The row tells times in Unix time (``wall``). Nobody writes one that is more than
        :data:`UNCERTAIN_SECONDS` ahead, so one that is further ahead shows that the clock was set
        back since. It must not be waited for: a clock that was two days fast would leave the number
        "restoring" for two days.
        """
        ahead = min(row.uncertain_until - wall, UNCERTAIN_SECONDS)
        if row.state == "planned" and row.prior is not None:
            # The process that planned it may have died while it wrote.
            ahead = UNCERTAIN_SECONDS
        fresh = min(row.since - wall, 0.0) + STALE_SECONDS if row.state == "applied" else 0.0
        return cls(job, now + ahead if ahead > 0 else 0.0, now + fresh)

    def step(self, event: Event, now: float) -> Read | Put | Done:
        """The next step after ``event``."""
        if event == "prior" and now < self.stale:
            return Read(STALE_EVERY)
        shown = "landed" if event == LANDED[self.job] else event
        self.doubt = DOUBT[self.doubt].get(shown, self.doubt)
        if event == "lost":
            self.until = now + UNCERTAIN_SECONDS
        elif event == "written":
            self.stale = 0.0
        certain = self.doubt == "none" or self.until <= now
        following = NEXT[event][self.job]
        if following in ("put", "intend"):
            return Put(now + UNCERTAIN_SECONDS, anew=following == "intend")
        if following == "read":
            return Read()
        if following == "settle" and not certain:
            return Read(min(REREAD_EVERY, max(SHORTEST_PAUSE, self.until - now)))
        return Done(certain, left=event == "other")


def what_to_write(
    prior: dict[str, str],
    *,
    fallback_to_prior: bool,
    take_over_routed: bool,
    number: str,
) -> dict[str, str]:
    """The fields of an override. Its voice_url is still empty: it is made last, because it seals
    the prior values of all of them.

    ``voice_fallback_url`` gets the prior URL, so that callers reach whom they reached before if we
    do not answer. Twilio does not use the voice_url of a number that receives faxes, nor of one
    with a TwiML app or a SIP trunk. These are changed or cleared too, an app or a trunk only if the
    user said so; otherwise NumberRoutedElsewhereError.
    """
    written = {"voice_url": "", "voice_method": "POST"}
    if fallback_to_prior and prior["voice_url"]:
        written["voice_fallback_url"] = prior["voice_url"]
        written["voice_fallback_method"] = prior["voice_method"] or "POST"
    for field_name, what in (("voice_application_sid", "TwiML app"), ("trunk_sid", "SIP trunk")):
        if prior[field_name]:
            if not take_over_routed:
                raise NumberRoutedElsewhereError(
                    f"number {redact_number(number)}: its calls are taken by the {what} "
                    f"{prior[field_name]}, so its voice_url is not used; set "
                    "TRUNKLINE_TAKE_OVER_ROUTED=1 to take it over while it is used here",
                    number=number,
                    routed_to=prior[field_name],
                )
            written[field_name] = ""
    if prior["voice_receive_mode"] == "fax":
        written["voice_receive_mode"] = "voice"
    return written


def row_of(number: NumberSettings, seal: Seal, prior: dict[str, str]) -> OverrideRow:
    """The override that a seal describes, for a machine that never saw its journal. It is being
    restored, because no session will claim it.

    A seal holds exactly the fields that were changed, with their ``prior`` values. The written
    values follow from them, because each field has one rule of what we write over it.
    """
    written = what_to_write(
        {name: "" for name in VOICE_FIELDS} | prior,
        fallback_to_prior="voice_fallback_url" in prior,
        take_over_routed=True,
        number=number.number,
    )
    return OverrideRow(
        id=seal.override,
        number=number.number,
        number_sid=number.sid,
        session="",
        state="restoring",
        prior=number.fields | prior,
        written=written | {"voice_url": number.voice_url},
    )


def still_ours(row: OverrideRow, found: NumberSettings) -> dict[str, str]:
    """The fields, voice_url apart, that stand as we wrote them, each with its prior value.

    They can be put back one by one. A field that somebody else changed while our voice_url stood
    there keeps their value.
    """
    assert row.prior is not None and row.written is not None
    return {
        name: row.prior[name]
        for name, value in row.written.items()
        if name != "voice_url" and found.fields[name] == value != row.prior[name]
    }
