"""The account: its numbers, calls and their history, as Twilio's resources show them.

No I/O. A call's status changes only along TRANSITIONS. Times: `now` monotonic for durations, `wall`
(seconds since the epoch) for what Twilio shows as dates.
"""

from __future__ import annotations

import email.utils
import hashlib
import secrets
from typing import Final

import msgspec

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
    """Twilio-like identifiers: two letters, 32 hex digits; repeatable for a seed not 0."""

    def __init__(self, seed: int) -> None:
        self._seed = seed or secrets.token_hex(8)
        self._count = 0

    def new(self, prefix: str) -> str:
        self._count += 1
        text = f"{self._seed}:{prefix}:{self._count}"
        return prefix + hashlib.sha256(text.encode()).hexdigest()[:32]


def number_sid(phone_number: str) -> str:
    """A number keeps its SID when the carrier is started anew, as at Twilio."""
    return "PN" + hashlib.sha256(phone_number.encode()).hexdigest()[:32]


#: Fields of a number that REST may write: attribute -> form field.
NUMBER_FIELDS: Final[dict[str, str]] = {
    name: "".join(part.capitalize() for part in name.split("_"))
    for name in [
        "friendly_name",
        "voice_url",
        "voice_method",
        "voice_fallback_url",
        "voice_fallback_method",
        "voice_application_sid",
        "trunk_sid",
        "voice_receive_mode",
        "voice_caller_id_lookup",
        "status_callback",
        "status_callback_method",
        "sms_url",
        "sms_method",
        "sms_fallback_url",
        "sms_fallback_method",
        "sms_application_sid",
        "address_sid",
        "identity_sid",
        "bundle_sid",
        "emergency_status",
        "emergency_address_sid",
    ]
}


_NULL_WHEN_EMPTY: Final = (
    "voice_application_sid",
    "trunk_sid",
    "address_sid",
    "identity_sid",
    "bundle_sid",
    "emergency_address_sid",
)


class Number(msgspec.Struct, kw_only=True):
    """An IncomingPhoneNumber."""

    sid: str
    phone_number: str
    friendly_name: str = ""
    voice_url: str = ""
    voice_method: str = "POST"
    voice_fallback_url: str = ""
    voice_fallback_method: str = "POST"
    voice_application_sid: str = ""
    trunk_sid: str = ""
    voice_receive_mode: str = "voice"
    voice_caller_id_lookup: bool = False
    status_callback: str = ""
    status_callback_method: str = "POST"
    sms_url: str = ""
    sms_method: str = "POST"
    sms_fallback_url: str = ""
    sms_fallback_method: str = "POST"
    sms_application_sid: str = ""
    address_sid: str = ""
    identity_sid: str = ""
    bundle_sid: str = ""
    emergency_status: str = "Active"
    emergency_address_sid: str = ""
    created: float = 0.0
    updated: float = 0.0

    def resource(self, account_sid: str) -> dict[str, object]:
        """The JSON that REST shows."""
        shown: dict[str, object] = {name: getattr(self, name) for name in NUMBER_FIELDS}
        # Twilio shows these as null when they are not set; the URLs as "".
        for name in _NULL_WHEN_EMPTY:
            shown[name] = shown[name] or None
        return shown | {
            "sid": self.sid,
            "account_sid": account_sid,
            "phone_number": self.phone_number,
            "address_requirements": "none",
            "api_version": API_VERSION,
            "beta": False,
            "capabilities": {"voice": True, "sms": True, "mms": False, "fax": False},
            "date_created": rfc2822(self.created),
            "date_updated": rfc2822(self.updated),
            "emergency_address_status": "unregistered",
            "origin": "twilio",
            "status": "in-use",
            "type": None,
            "subresource_uris": {},
            "uri": f"/{API_VERSION}/Accounts/{account_sid}/IncomingPhoneNumbers/{self.sid}.json",
        }


class NumberWrite(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a number through REST: what was sent, what the fields were before and after."""

    time: float
    number: str
    sid: str
    sent: dict[str, str]
    before: dict[str, object]
    after: dict[str, object]


class CallOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What Calls create asked for."""

    url: str = ""
    method: str = "POST"
    fallback_url: str = ""
    fallback_method: str = "POST"
    twiml: str = ""
    timeout: float = 60.0
    time_limit: float = 14400.0
    send_digits: str = ""
    status_callback: str = ""
    status_callback_method: str = "POST"
    status_callback_event: frozenset[str] = frozenset(["completed"])


class Call(msgspec.Struct, kw_only=True):
    """A Call resource: one leg, seen from the account."""

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
    started: float | None = None
    ended: float | None = None
    answered_at: float | None = None
    ended_at: float | None = None
    updated: float = 0.0
    queue_time_ms: int = 0
    #: Why the call ended: completed-by-api, far-end, twiml, application-error, time-limit, …
    end_reason: str = ""
    #: (monotonic time, status) of each change.
    history: list[tuple[float, str]] = []

    def move(self, status: str, now: float, wall: float) -> None:
        """Change the status. AssertionError when TRANSITIONS has no such step: a fault of ours."""
        allowed = TRANSITIONS[self.status]
        assert status in allowed, f"{self.sid}: {self.status} -> {status} is not in TRANSITIONS"
        self.status = status
        self.updated = wall
        self.history.append((now, status))
        if status == "in-progress":
            self.answered_at, self.started = now, wall
        elif status in ENDED:
            self.ended_at, self.ended = now, wall

    @property
    def live(self) -> bool:
        """Not ended."""
        return self.status not in ENDED

    @property
    def duration(self) -> int | None:
        """Whole seconds from answer to end; None before the end, 0 when never answered."""
        if self.ended_at is None:
            return None
        return 0 if self.answered_at is None else round(self.ended_at - self.answered_at)

    def resource(self, account_sid: str) -> dict[str, object]:
        """The JSON that REST shows."""
        base = f"/{API_VERSION}/Accounts/{account_sid}/Calls/{self.sid}"
        duration = self.duration
        return {
            "sid": self.sid,
            "account_sid": account_sid,
            "annotation": None,
            "answered_by": None,
            "api_version": API_VERSION,
            "caller_name": None,
            "date_created": rfc2822(self.created),
            "date_updated": rfc2822(self.updated or self.created),
            "direction": self.direction,
            "duration": None if duration is None else str(duration),
            "end_time": rfc2822(self.ended),
            "forwarded_from": None,
            "from": self.from_,
            "from_formatted": self.from_,
            "group_sid": None,
            "parent_call_sid": self.parent_call_sid or None,
            "phone_number_sid": self.phone_number_sid or None,
            "price": None,
            "price_unit": "USD",
            "queue_time": str(self.queue_time_ms),
            "start_time": rfc2822(self.started or self.created),
            "status": self.status,
            "subresource_uris": {
                "events": f"{base}/Events.json",
                "streams": f"{base}/Streams.json",
            },
            "to": self.to,
            "to_formatted": self.to,
            "trunk_sid": None,
            "uri": f"{base}.json",
        }
