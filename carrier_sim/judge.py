"""The judge's lists: everything that the real Twilio would have refused or warned of, by number.

``errors`` are faults of the program under test, or effects of a fault rule. ``notices`` are things
that Twilio logs although nothing is wrong: 31921, for instance, when the server closes a stream in
order to end it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

#: Twilio's names of the numbers used here (TD api/errors); docs/refusals.md says when each comes.
NAMES: Final[dict[int, str]] = {
    11100: "Invalid URL format",
    11200: "HTTP retrieval failure",
    11205: "HTTP connection failure",
    11210: "HTTP bad host name",
    11750: "TwiML response body too large",
    12100: "Document parse failure",
    12200: "Schema validation warning",
    12300: "Invalid Content-Type",
    13224: "Dial: Twilio does not support calling this number or the number is invalid",
    20001: "Invalid parameter",
    20003: "Authenticate",
    20004: "Method not allowed",
    20404: "Not found",
    20429: "Too many requests",
    20500: "Internal server error",
    21201: "No 'To' number specified",
    21205: "Invalid URL",
    21206: "Invalid SendDigits",
    21208: "Invalid Timeout",
    21209: "Invalid method",
    21210: "'From' phone number not verified",
    21211: "Invalid 'To' phone number",
    21212: "Invalid 'From' phone number",
    21213: "'From' phone number is required",
    21218: "Invalid ApplicationSid",
    21220: "Invalid call state",
    21234: "Invalid Machine Detection configuration value",
    21262: "No AMD status callback URL provided",
    21402: "Invalid URL",
    21403: "Invalid method",
    21626: "Invalid StatusCallbackEvents",
    31901: "Stream - WebSocket - Connection Timeout",
    31902: "Stream - WebSocket - Connection Refused",
    31903: "Stream - WebSocket - Connection Broken Pipe",
    31920: "Stream - WebSocket - Handshake Error",
    31921: "Stream - WebSocket - Close Error",
    31922: "Stream - WebSocket - Unsupported Scheme",
    31923: "Stream - WebSocket - Malformed URL",
    31924: "Stream - WebSocket - Protocol Error",
    31931: "Stream - Media - Buffered media discarded",
    31941: "Stream - Stream Track - Invalid Track Configuration",
    31950: "Stream - Protocol - Malformed Message",
    31951: "Stream - Protocol - Invalid Message",
    32018: "TwiML is too long",
}


class ErrorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One entry: when (monotonic seconds), whose, Twilio's number and the exact fault."""

    time: float
    code: int
    text: str
    call_sid: str = ""
    stream_sid: str = ""

    def __str__(self) -> str:
        whose = " ".join(s for s in (self.call_sid, self.stream_sid) if s)
        return f"{self.code} {NAMES.get(self.code, '')}: {self.text} {whose}".rstrip()


class Judge:
    """The list, with the clock it stamps from."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.errors: list[ErrorRecord] = []
        self.notices: list[ErrorRecord] = []

    def error(self, code: int, text: str, *, call_sid: str = "", stream_sid: str = "") -> None:
        """Something that Twilio's debugger would show as an error or warning."""
        self.errors.append(self._record(code, text, call_sid, stream_sid))

    def notice(self, code: int, text: str, *, call_sid: str = "", stream_sid: str = "") -> None:
        """Something that Twilio logs under an error number although it was meant."""
        self.notices.append(self._record(code, text, call_sid, stream_sid))

    def codes(self, call_sid: str | None = None) -> list[int]:
        """The numbers of the errors, in order, of one call or of all."""
        return [e.code for e in self.errors if call_sid in (None, e.call_sid)]

    def clear(self) -> None:
        """Forget everything."""
        self.errors.clear()
        self.notices.clear()

    def _record(self, code: int, text: str, call_sid: str, stream_sid: str) -> ErrorRecord:
        assert code in NAMES, code
        return ErrorRecord(
            time=self._clock(), code=code, text=text, call_sid=call_sid, stream_sid=stream_sid
        )
