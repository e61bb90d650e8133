"""The account's calls and their history, as Twilio's resources show them, and how SIDs are made.

No I/O. A call's status changes only along ``TRANSITIONS``. Times: ``now`` is monotonic, for
durations; ``wall`` is in seconds since the epoch, for the dates that Twilio shows.
"""

from __future__ import annotations

import email.utils
import hashlib
import secrets
from typing import Final

import msgspec

from .detection import Detection

API_VERSION: Final = "2010-04-01"

#: status -> the statuses that may follow (TD voice/api/call-resource).
TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    "queued": frozenset(["ringing", "in-progress", "busy", "failed", "no-answer", "canceled"]),
    "ringing": frozenset(["in-progress", "busy", "failed", "no-answer", "canceled", "completed"]),
    "in-progress": frozenset(["completed", "failed"]),
    "completed": frozenset(),
    "busy": frozenset(),
    "failed": frozenset(),
    "no-answer": frozenset(),
    "canceled": frozenset(),
}
ENDED: Final = frozenset(status for status, after in TRANSITIONS.items() if not after)


def rfc2822(wall: float | None) -> str | None:
    """A date as Twilio writes it."""
    return None if wall is None else email.utils.formatdate(wall, usegmt=False)


class Sids:
    """Makes identifiers like Twilio's: two letters, then 32 hex digits. A seed other than 0 makes
    the same ones again."""

    def __init__(self, seed: int) -> None:
        self._seed = seed or secrets.token_hex(8)
        self._count = 0

    def new(self, prefix: str) -> str:
        self._count += 1
        text = f"{self._seed}:{prefix}:{self._count}"
        return prefix + hashlib.sha256(text.encode()).hexdigest()[:32]


class CallOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a request that creates a call."""

    url: str = ""
    method: str = "POST"
    fallback_url: str = ""
    fallback_method: str = "POST"
    twiml: str = ""
    timeout: float = 60.0
    time_limit: float = 14400.0
    status_callback: str = ""
    status_callback_method: str = "POST"
    status_callback_event: frozenset[str] = frozenset(["completed"])
    detection: Detection | None = None

    def __repr__(self) -> str:
        """Without the document: a token is in it."""
        return f"CallOptions(url={self.url!r}, timeout={self.timeout:g})"


class CallRecord(msgspec.Struct, kw_only=True):
    """A Call resource: one leg, seen from the account. Times in ``…_at`` are monotonic;
    ``created``, ``started``, ``ended`` and ``updated`` are in seconds since the epoch."""

    sid: str
    from_: str
    to: str
    direction: str
    status: str
    options: CallOptions
    created_at: float
    created: float
    parent_call_sid: str = ""
    phone_number_sid: str = ""
    #: When it was dialled, or came in; None while it is queued (twilio-python,
    #: rest/api/v2010/account/call: "Empty if the call has not yet been dialed").
    started: float | None = None
    ended: float | None = None
    answered_at: float | None = None
    ended_at: float | None = None
    updated: float = 0.0
    queue_time_ms: int = 0
    #: What the detection of answering machines has found.
    answered_by: str = ""
    #: Why the call ended: completed-by-api, far-end, twiml, application-error, time-limit, …
    end_reason: str = ""
    #: (monotonic time, status) of each change.
    history: list[tuple[float, str]] = []

    def move(self, status: str, now: float, wall: float) -> None:
        """Change the status. An AssertionError means that we took a step that is not allowed."""
        allowed = TRANSITIONS[self.status]
        assert status in allowed, f"{self.sid}: {self.status} -> {status} is not in TRANSITIONS"
        self.status = status
        self.updated = wall
        self.history.append((now, status))
        if self.started is None and status != "canceled":
            self.started = wall
        if status == "in-progress":
            self.answered_at = now
        elif status in ENDED:
            self.ended_at, self.ended = now, wall

    @property
    def live(self) -> bool:
        """Not ended."""
        return self.status not in ENDED

    @property
    def duration(self) -> int | None:
        """Whole seconds from answer to end. None before the end, 0 for a call never answered."""
        if self.ended_at is None:
            return None
        return 0 if self.answered_at is None else round(self.ended_at - self.answered_at)

    def resource(self, account_sid: str) -> dict[str, object]:
        """The JSON that REST shows. Fields that would always be null here are left out."""
        base = f"/{API_VERSION}/Accounts/{account_sid}/Calls/{self.sid}"
        duration = self.duration
        return {
            "sid": self.sid,
            "account_sid": account_sid,
            "answered_by": self.answered_by or None,
            "api_version": API_VERSION,
            "date_created": rfc2822(self.created),
            "date_updated": rfc2822(self.updated or self.created),
            "direction": self.direction,
            "duration": None if duration is None else str(duration),
            "end_time": rfc2822(self.ended),
            "from": self.from_,
            "from_formatted": self.from_,
            "parent_call_sid": self.parent_call_sid or None,
            "phone_number_sid": self.phone_number_sid or None,
            "queue_time": str(self.queue_time_ms),
            "start_time": rfc2822(self.started),
            "status": self.status,
            "subresource_uris": {
                "events": f"{base}/Events.json",
                "streams": f"{base}/Streams.json",
            },
            "to": self.to,
            "to_formatted": self.to,
            "uri": f"{base}.json",
        }
