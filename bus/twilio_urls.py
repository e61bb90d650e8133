"""What gateway and controller both put into URLs that Twilio calls."""

from __future__ import annotations

from typing import Final

#: Asks Twilio to try a webhook up to three more times, whatever went wrong: ``rc`` is the number of
#: retries, ``rp`` the policy (usage/webhooks/webhooks-connection-overrides in Twilio's documents).
#: A gateway that is just being started again then costs a caller a second instead of the call.
#: Twilio reads the fragment itself: it neither sends nor signs it.
RETRY_FRAGMENT: Final = "#rc=3&rp=all"
