"""The settings of one carrier: keywords of ``CarrierSim``, options of ``trunkline carrier-sim``."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a carrier. Times are in seconds."""

    #: So many outbound calls are placed in a second; the others wait in a queue. None: no queue.
    calls_per_second: float | None = None
    #: A stream may have a ws:// URL, which Twilio refuses.
    allow_ws: bool = True
    #: Keep the sound that each far end hears and says.
    keep_audio: bool = True
    webhook_timeout: float = 15.0
    stream_connect_timeout: float = 10.0
    #: SIDs, habits and faults repeat with the seed. 0: they never do.
    seed: int = 0
    #: The line of far ends that name none (line/profiles.py). "": their sound stays as it is.
    line: str = ""
    #: Habits that always take one form (habits.py).
    habits: Mapping[str, str] = {}
    #: Beliefs that the carrier contradicts (beliefs.py).
    contradict: tuple[str, ...] = ()
