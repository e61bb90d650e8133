"""What Twilio's REST is asked for, how it is asked for a call, and the words that it has for how a
call stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

#: The call is over.
ENDED_STATUSES: Final = frozenset(("completed", "busy", "failed", "no-answer", "canceled"))
#: The call goes on, or is just being set up.
LIVE_STATUSES: Final = frozenset(("queued", "ringing", "in-progress"))
#: The call is over, and nobody picked up.
NOT_ANSWERED: Final = frozenset(("busy", "no-answer", "failed", "canceled"))


@dataclass(frozen=True)
class CallOrder:
    """An order for Twilio's Calls create."""

    to: str
    from_: str
    twiml: str = field(repr=False)
    time_limit: int
    ring_timeout: int
    status_callback: str = field(repr=False)
    #: "Enable" or "DetectMessageEnd"; the answer goes to status_callback. None: nobody wants it
    machine_detection: str | None = None


#: A request to Twilio's REST.
RestRequest = Literal[
    "find_number",
    "list_numbers",
    "read_number",
    "write_number",
    "create_call",
    "fetch_call",
    "end_call",
    "instruct_call",
    "start_stream",
    "listen",
    "stop_stream",
    "list_calls",
]
#: Why one has failed.
RestFault = Literal["credentials", "too many", "refused", "server error", "no answer"]
