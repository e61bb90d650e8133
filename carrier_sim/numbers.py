"""The account's phone numbers, as Twilio's resource shows them, and every change of them.

No I/O. Times: ``now`` is monotonic, ``wall`` is in seconds since the epoch, for the dates that
Twilio shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

from .account import API_VERSION, rfc2822


def number_sid(phone_number: str) -> str:
    """A number keeps its SID when the carrier is started again, as at Twilio."""
    return "PN" + hashlib.sha256(phone_number.encode()).hexdigest()[:32]


class Number(msgspec.Struct, kw_only=True):
    """An IncomingPhoneNumber, as far as voice is concerned."""

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
    created: float = 0.0
    updated: float = 0.0

    def fields(self) -> dict[str, object]:
        """The fields that REST may write."""
        return {name: getattr(self, name) for name in NUMBER_FIELDS}

    def resource(self, account_sid: str) -> dict[str, object]:
        """The JSON that REST shows, apart from the habit ``unset-fields``. The ``twilio`` package
        takes a field that is not there for one that is null."""
        shown = self.fields()
        # These are null here when they are not set; the URLs are "".
        for name in _NULL_WHEN_EMPTY:
            shown[name] = shown[name] or None
        return shown | {
            "sid": self.sid,
            "account_sid": account_sid,
            "phone_number": self.phone_number,
            "api_version": API_VERSION,
            "capabilities": {"voice": True, "sms": True, "mms": False, "fax": False},
            "date_created": rfc2822(self.created),
            "date_updated": rfc2822(self.updated),
            "status": "in-use",
            "uri": f"/{API_VERSION}/Accounts/{account_sid}/IncomingPhoneNumbers/{self.sid}.json",
        }


#: Fields of a number that REST may write: attribute -> form field.
NUMBER_FIELDS: Final[dict[str, str]] = {
    name: "".join(part.capitalize() for part in name.split("_"))
    for name in Number.__struct_fields__
    if name not in ("sid", "phone_number", "created", "updated")
}
_NULL_WHEN_EMPTY: Final = [name for name in NUMBER_FIELDS if name.endswith("_sid")]


class NumberWrite(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a number through REST: the form, and all fields before it and after it."""

    time: float
    number: str
    sid: str
    sent: dict[str, str]
    before: dict[str, object]
    after: dict[str, object]


class Numbers(dict[str, Number]):
    """The account's numbers, by phone number."""

    def __init__(self) -> None:
        super().__init__()
        #: Every change through REST, in order.
        self.writes: list[NumberWrite] = []

    def write(
        self,
        number: Number,
        changes: Mapping[str, object],
        sent: Mapping[str, str],
        now: float,
        wall: float,
    ) -> None:
        """Change a number, and keep the change. ``sent`` is the form that asked for it."""
        before = number.fields()
        for attribute, value in changes.items():
            setattr(number, attribute, value)
        number.updated = wall
        self.writes.append(
            NumberWrite(
                time=now,
                number=number.phone_number,
                sid=number.sid,
                sent=dict(sent),
                before=before,
                after=number.fields(),
            )
        )

    def before(self, number: Number, since: float) -> Number:
        """The number as it was before all changes from ``since`` on."""
        for write in self.writes:
            if write.sid == number.sid and write.time >= since:
                return msgspec.structs.replace(number, **write.before)
        return number
