"""A session: an adapter's hold on a number, as the controller keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from .instructions import Asked
from .tables import MODES, SESSION, Subject

#: What reading and writing a number may take, retries included, whatever the request's ttl.
REST_WITHIN: Final = 30.0
#: The number of a session that takes whichever is free.
ANY: Final = "any"


@dataclass
class Session(Subject):
    """An adapter's session. ``since``: Unix time; ``renewed``: monotonic, of the last beat."""

    TABLE = SESSION

    id: str
    secret_hash: str
    number: str
    peer: str
    since: float
    renewed: float
    allowed_callers: frozenset[str] | None = None
    allowed_callees: frozenset[str] | None = None
    number_sid: str = ""
    #: of the last Arm: what a call that comes in belongs to
    trace: dict[str, str] = field(default_factory=dict)
    state: str = "opening"
    #: requests that wait for the session's next state
    opening: list[Asked] = field(default_factory=list)
    arming: list[Asked] = field(default_factory=list)
    closing: list[Asked] = field(default_factory=list)
    #: the call that came in under the last Arm
    arm_call: str | None = None
    #: numbers that are being put back because of this session
    restoring: dict[str, str] = field(default_factory=dict)  # override -> number
    close_by: float = float("inf")
    deadline: float = float("inf")

    @property
    def mode(self) -> str:
        return MODES.get(self.state, "idle")

    def __str__(self) -> str:
        return f"session {self.id}"
