"""A phone number of the account and its voice fields, as REST shows and takes them.

For example ``NumberSettings(sid="PN…", number="+14155551234", fields={"voice_url":
"https://agent.example.com/voice", "voice_method": "POST", "trunk_sid": "", …})``.
"""

from __future__ import annotations

from typing import Final

from trunkline.bus.wire import Shown

#: Every field that decides what happens to the number's calls (TD
#: phone-numbers/api/incomingphonenumber-resource). We write some of them and read all, so that it
#: can be told afterwards which somebody else has changed meanwhile.
VOICE_FIELDS: Final = (
    "voice_url",
    "voice_method",
    "voice_fallback_url",
    "voice_fallback_method",
    "voice_application_sid",
    "trunk_sid",
    "status_callback",
    "status_callback_method",
    "voice_receive_mode",
)


class NumberSettings(Shown, frozen=True):
    """``fields``: every one of VOICE_FIELDS, "" where REST shows null."""

    sid: str
    number: str
    fields: dict[str, str]

    @property
    def voice_url(self) -> str:
        """The URL that answers the number's calls, unless they are routed elsewhere."""
        return self.fields["voice_url"]

    @property
    def routed_to(self) -> str:
        """What takes the number's calls instead of voice_url, for example "TwiML app AP…"; "" if
        nothing does."""
        if self.fields["voice_application_sid"]:
            return f"TwiML app {self.fields['voice_application_sid']}"
        if self.fields["trunk_sid"]:
            return f"SIP trunk {self.fields['trunk_sid']}"
        return ""
