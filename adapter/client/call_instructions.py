"""Instructions of a call's sound at the client (``call_audio.py``), for ``call_media.py`` to carry
out."""

from __future__ import annotations

import msgspec

from trunkline.bus import messages as m

from .outbound import Utterance


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send ``message`` to ``worker``; where that fails, call :meth:`CallAudio.unsent`."""

    worker: str
    message: m.ToWorker


class HeardDigit(msgspec.Struct, frozen=True, gc=False):
    digit: str


class Spoken(msgspec.Struct, frozen=True, gc=False):
    """``utterance.sent`` is known now."""

    utterance: Utterance


class InterruptDone(msgspec.Struct, frozen=True, gc=False):
    serial: int


class MarkDone(msgspec.Struct, frozen=True, gc=False):
    name: str
    played: bool


class Ended(msgspec.Struct, frozen=True, gc=False):
    """Everything was handed out; nothing more comes."""

    reason: m.EndedReason


Instruction = Send | HeardDigit | Spoken | InterruptDone | MarkDone | Ended
