"""What we believe of Twilio, and how the carrier contradicts each belief by name.

No I/O. Product and stand-in share these beliefs, so no test can notice where one of them is wrong.
Only a real account can; `docs/beliefs.md` lists them with their sources and with what the product
does when one does not hold. Each can be turned round here, so that this "what if" is tested:

    CarrierSim(contradict=["clear-returns-marks"])
    trunkline carrier-sim --contradict clear-returns-marks

Where Twilio is known to vary, that is a habit (habits.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec


class Belief(msgspec.Struct, frozen=True):
    """What is believed, what the carrier does when it is contradicted, and who says so (TD:
    Twilio's documents, by path)."""

    believed: str
    contradicted: str
    source: str


#: By name, in the order of docs/beliefs.md.
BELIEFS: Final[dict[str, Belief]] = {
    "signed-url-is-the-given-one": Belief(
        believed="What is signed is the URL that Twilio was given, with its whole query; only port "
        "and user-info may be left out.",
        contradicted="The query is left out too.",
        source="TD usage/webhooks/webhooks-security; twilio-python request_validator.py",
    ),
    "the-auth-token-signs": Belief(
        believed="Webhooks and upgrades are signed with HMAC-SHA1 under the account's auth token, "
        "unless the account has a Webhook Rule for their URL.",
        contradicted="A shared key signs them with HMAC-SHA256, and a header says so.",
        source="TD usage/webhooks/webhook-shared-keys; twilio-node "
        "examples/WebhookSignatureValidation.md",
    ),
    "rest-takes-both-tokens": Belief(
        believed="During a rotation REST takes the primary and the secondary auth token alike.",
        contradicted="It takes the primary alone: the secondary gives 401, error 20003.",
        source='TD iam/api/authtoken ("works the same way as your primary token")',
    ),
    "webhook-user-info": Belief(
        believed="User name and password in a webhook's URL are sent, as Basic credentials, once "
        "the server has answered 401 with WWW-Authenticate.",
        contradicted="They are never sent.",
        source="TD usage/security, HTTP authentication",
    ),
    "stream-user-info": Belief(
        believed="The url of <Stream> may have a user name and password, which the upgrade carries "
        "as Basic credentials.",
        contradicted="Such a url is malformed (error 31923), and the stream does not start.",
        source="inferred from webhooks; RFC 6455 section 3 has no user-info in a ws URI",
    ),
    "stream-port": Belief(
        believed="A stream is opened at the port that its url names.",
        contradicted="Port 443 alone is reached; another gives error 31901.",
        source="inferred; TD api/errors/31901 and 31910 ask for TCP port 443",
    ),
    "rest-shows-ends": Belief(
        believed="a call's status in REST is its last one as soon as the call has ended",
        contradicted="REST goes on showing the status that the call had before it ended",
        source="TD voice/api/call-resource (Call status values)",
    ),
    "own-number-asks": Belief(
        believed="a call from one number of the account to another makes an inbound call, whose "
        "number's voice_url is asked",
        contradicted="the call is answered, and the number's voice_url is not asked",
        source="TD usage/webhooks/voice-webhooks (incoming voice call)",
    ),
    "silence-is-sent": Belief(
        believed="A stream carries a media message for each 20 ms, through silence too.",
        contradicted="What is silent is left out; the timestamps of what follows go on.",
        source="TD voice/twiml/stream (the raw audio of the call); langwatch/scenario PR 990, "
        "which measured a real call",
    ),
    "one-way-beside-connect": Belief(
        "REST starts a one-way stream on a call that is in <Connect><Stream>.",
        "REST refuses it there.",
        "TD voice/api/stream-resource (starts and stops streams on a live call); beside <Connect>: "
        "measured with <Start> in qisoft/i-hate-making-calls, issue 18",
    ),
    "streams-alike": Belief(
        "Two streams of one call's inbound track bring the same sound, byte for byte.",
        "They differ in the lowest bit.",
        "inferred: both fork the same raw audio (TD voice/twiml/stream)",
    ),
    "one-way-close-ends": Belief(
        "A one-way stream whose socket the server closes is over.",
        "The carrier connects it once more, with the same parameters.",
        "TD voice/media-streams, api/errors/31921; that it stays closed is inferred",
    ),
    "update-sends-stop": Belief(
        "A stream that a new document ends is sent stop.",
        "Its socket is closed without one.",
        "TD voice/media-streams/websocket-messages (stop: the stream has stopped, or the call)",
    ),
}


class Beliefs:
    """Which beliefs the carrier contradicts."""

    def __init__(self, contradicted: Iterable[str] = ()) -> None:
        """ValueError for a name that is not in BELIEFS."""
        self.contradicted: frozenset[str] = frozenset()
        self.contradict(contradicted)

    def contradict(self, names: Iterable[str]) -> None:
        """Contradict exactly these from now on. ValueError for a name that is not in BELIEFS."""
        wanted = frozenset(names)
        unknown = sorted(wanted - set(BELIEFS))
        if unknown:
            known = ", ".join(BELIEFS)
            raise ValueError(f"no belief {', '.join(unknown)}. There are {known}")
        self.contradicted = wanted

    def hold(self, name: str) -> bool:
        """Whether the carrier does as is believed."""
        assert name in BELIEFS, name
        return name not in self.contradicted
