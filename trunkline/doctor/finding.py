"""A check's findings, and the knowledge that checks hand on to later ones."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from trunkline.bus import messages as m
from trunkline.bus.settings import Settings

#: ok; warn: it works, but …; fail: calls will not work until this is put right; skip: it cannot be
#: told, because something before it failed.
State = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's. ``hint`` says what to do about it."""

    name: str
    state: State
    text: str
    hint: str = ""


@dataclass
class Known:
    """The knowledge that earlier checks hand on to later ones."""

    settings: Settings
    #: credentials were accepted
    account: bool = False
    #: the running stack's welcome and status
    welcome: m.Welcome | None = None
    status: dict[str, Any] = field(default_factory=dict)


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that an answer holds; an empty one where it holds something else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
