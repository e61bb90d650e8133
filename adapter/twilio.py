"""The names of ``scenario.voice.adapters.twilio``, for imports that change only their module."""

from __future__ import annotations

from scenario.voice.adapters.twilio import A_LEG_SEND_DTMF_UNSUPPORTED, PLACE_CALL_A_LEG_SAY_TEXT

from .dial_rules import StreamAttachMode
from .scenario.adapter import TwilioAdapterMode, TwilioAgentAdapter, TwilioStreamEndedReason
from .scenario.tunnel_readiness import TunnelNotReadyError, TunnelReadiness

__all__ = [
    "A_LEG_SEND_DTMF_UNSUPPORTED",
    "PLACE_CALL_A_LEG_SAY_TEXT",
    "StreamAttachMode",
    "TunnelNotReadyError",
    "TunnelReadiness",
    "TwilioAdapterMode",
    "TwilioAgentAdapter",
    "TwilioStreamEndedReason",
]
