"""What a check of the doctor's finds, and what it leaves for later checks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trunkline.bus import messages as m
from trunkline.bus.settings import Settings

#: ok: all is well. warn: calls work, but something needs attention. fail: calls will not work until
#: this is put right. skip: the check could not be made, because it needs something that is missing.
State = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's output. ``hint`` says what to do about it."""

    name: str
    state: State
    text: str
    hint: str = ""


@dataclass
class Known:
    """What earlier checks have found out, for later ones."""

    settings: Settings
    #: Twilio accepted the credentials
    account: bool = False
    #: the running stack's welcome and status
    welcome: m.Welcome | None = None
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def stand_in(self) -> str | None:
        """The stand-in carrier of the running stack, if our own settings name none. They say
        nothing of the account, the ports and the public URL of such a stack."""
        told: str | None = self.status.get("controller", {}).get("stand_in")
        return told if self.settings.twilio_api_url is None else None


def shown(numbers: Sequence[str]) -> str:
    """The first numbers, and how many more there are."""
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"{', '.join(numbers[:5]) or 'none'}{more}"


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in the body of an answer, or an empty one where it holds something else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
