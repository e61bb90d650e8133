"""What gateway and controller both put into URLs that Twilio calls: the gateway serves these paths,
and the controller writes them into numbers, calls and documents."""

from __future__ import annotations

from typing import Final

VOICE_PATH: Final = "/twilio/voice"
STATUS_PATH: Final = "/twilio/status"
STREAM_PATH: Final = "/twilio/stream"

#: Asks Twilio to try a webhook up to three more times, whatever went wrong: ``rc`` is the number of
#: retries, ``rp`` the policy (usage/webhooks/webhooks-connection-overrides in Twilio's documents).
#: A gateway that is just being started again then costs a caller a second instead of the call.
#: Twilio reads the fragment itself: it neither sends nor signs it.
RETRY_FRAGMENT: Final = "#rc=3&rp=all"
