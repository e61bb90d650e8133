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
    # Numbers
    "numbers-read-as-written": Belief(
        "A number that was just written reads back as written.",
        "For 3 s after a write, reads show what stood there before.",
        "inferred: TD phone-numbers/api/incomingphonenumber-resource does not say",
    ),
    "urls-are-kept-verbatim": Belief(
        "REST shows a number's URLs as they were written, query and fragment included.",
        "REST shows them without their fragment, though Twilio keeps it.",
        "inferred: TD usage/webhooks/webhooks-connection-overrides puts settings into the fragment",
    ),
    "urls-may-be-long": Belief(
        "A voice_url may have 2,000 characters.",
        "More than 1,000 are refused (21402).",
        "inferred: no document that we found names a limit",
    ),
    "voice-url-counts-at-once": Belief(
        "A call that comes in after a write asks the new voice_url.",
        "For 4 s after a write, calls still find the number as it was.",
        "inferred: TD phone-numbers/api/incomingphonenumber-resource does not say",
    ),
    "routed-numbers-ignore-voice-url": Belief(
        "A number with a TwiML app or a SIP trunk does not use its voice_url.",
        "Its calls ask voice_url all the same.",
        'package twilio 9.13, incoming_phone_number: "we ignore all of the voice urls"',
    ),
    "one-route-deletes-the-other": Belief(
        "To set one of voice_application_sid and trunk_sid deletes the other.",
        "Both stay.",
        'package twilio 9.13, incoming_phone_number: "will automatically delete"',
    ),
    "rest-takes-both-tokens": Belief(
        believed="During a rotation REST takes the primary and the secondary auth token alike.",
        contradicted="It takes the primary alone: the secondary gives 401, error 20003.",
        source='TD iam/api/authtoken ("works the same way as your primary token")',
    ),
    # Webhooks
    "webhooks-are-signed": Belief(
        "Webhooks and callbacks carry X-Twilio-Signature.",
        "They carry none.",
        "TD usage/webhooks/webhooks-security",
    ),
    "query-is-kept": Belief(
        "The query of voice_url, <Redirect> and status callbacks is sent, and signed.",
        "It is neither sent nor signed.",
        "TD usage/webhooks/webhooks-security",
    ),
    "fragment-is-not-signed": Belief(
        "A URL is signed without its fragment.",
        "The signature covers the fragment.",
        "inferred: a fragment is not sent (RFC 9110, 4.2.5)",
    ),
    "fragment-is-followed": Belief(
        "#rc=3&rp=all on a URL makes Twilio try again, after an HTTP error too.",
        "The fragment changes nothing: an HTTP error is not tried again.",
        "TD usage/webhooks/webhooks-connection-overrides",
    ),
    "fallback-is-asked": Belief(
        "When voice_url cannot be had, voice_fallback_url is asked.",
        "The call ends with an application error.",
        "TD usage/security/availability-reliability",
    ),
    "webhooks-may-take-15-s": Belief(
        "A webhook is given 15 s.",
        "It is given 2 s.",
        "TD errors/11205",
    ),
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
    "webhook-user-info": Belief(
        believed="User name and password in a webhook's URL are sent, as Basic credentials, once "
        "the server has answered 401 with WWW-Authenticate.",
        contradicted="They are never sent.",
        source="TD usage/security, HTTP authentication",
    ),
    # An inbound call before it is answered
    "pause-keeps-ringing": Belief(
        "A document of <Pause> and <Redirect> does not answer the call.",
        "<Pause> answers it.",
        "TD voice/twiml/pause; TD voice/twiml/reject says that only <Reject> leaves a call "
        "unanswered",
    ),
    "reject-is-busy": Belief(
        '<Reject reason="busy"> ends the call as busy.',
        "It ends as no-answer.",
        "TD voice/twiml/reject",
    ),
    "reject-does-not-answer": Belief(
        "<Reject> as the first verb does not answer the call.",
        "The call is answered, then ended as completed.",
        "TD voice/twiml/reject",
    ),
    # Calls that we place
    "callbacks-for-each-event": Belief(
        "Each event that was asked for is posted to the status callback.",
        "Only completed is.",
        "package twilio 9.13, call: status_callback_event",
    ),
    "callbacks-name-the-cause": Belief(
        "The last status callback of a call that was not answered says busy, no-answer, "
        "failed or canceled.",
        "It always says completed.",
        "inferred from TD voice/api/call-resource (CallStatus)",
    ),
    "completed-ends-ringing": Belief(
        "Status=completed ends a call that still rings.",
        "It is answered with 200, and the call rings on.",
        'inferred: TD voice/api/call-resource says "even if it\'s already in progress"',
    ),
    "time-limit-ends-calls": Belief(
        "TimeLimit ends a call, as completed.",
        "The limit is not kept.",
        "TD voice/api/call-resource (TimeLimit)",
    ),
    "new-calls-are-listed": Belief(
        "The list of calls shows a call within seconds of its creation.",
        "It shows calls after 30 s.",
        "inferred: TD voice/api/call-resource does not say",
    ),
    "429-is-not-processed": Belief(
        "A request that is answered with 429 was not processed.",
        "It was.",
        'TD errors/20429: "aren\'t processed and are safe to retry"',
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
    # Media Streams
    "upgrades-are-signed": Belief(
        "The WebSocket upgrade carries X-Twilio-Signature, over the wss URL of the TwiML.",
        "It carries none.",
        "TD global-infrastructure/firewall-configurations/media-streams-configuration",
    ),
    "parameters-arrive": Belief(
        "<Parameter> arrives in start.customParameters.",
        "customParameters is empty.",
        "TD voice/twiml/stream; voice/media-streams/websocket-messages",
    ),
    "frames-of-20-ms": Belief(
        "Inbound audio comes in frames of 20 ms, 160 bytes.",
        "It comes in frames of 40 ms.",
        "inferred: users report it, TD voice/media-streams/websocket-messages names no size",
    ),
    "silence-is-sent": Belief(
        "Frames come through silence too.",
        "Frames of pure silence are left out; timestamps go on.",
        "inferred; github.com/Phonic-Co/phonic-node/pull/32 saw calls without",
    ),
    "timestamps-from-stream-start": Belief(
        "media.timestamp counts ms from the stream's start.",
        "It counts from the call's creation.",
        "TD voice/media-streams/websocket-messages",
    ),
    "digits-arrive": Belief(
        "A bidirectional stream gets a dtmf message for a key that the far end presses.",
        "It gets none.",
        "TD voice/media-streams/websocket-messages",
    ),
    "marks-wait-for-playback": Belief(
        "A mark comes back when the audio before it has been played.",
        "It comes back at once.",
        "TD voice/media-streams/websocket-messages",
    ),
    "clear-empties-buffer": Belief(
        "clear empties the buffer.",
        "What is buffered is played.",
        "TD voice/media-streams/websocket-messages",
    ),
    "clear-returns-marks": Belief(
        "clear returns the marks of what it throws away.",
        "They never come back.",
        "TD voice/media-streams/websocket-messages",
    ),
    "playback-starts-at-once": Belief(
        "Audio is played as soon as it comes.",
        "It is held back for 0.4 s at the start of each stretch.",
        "inferred",
    ),
    "ten-minutes-are-buffered": Belief(
        "Ten minutes of audio may lie in the buffer.",
        "One minute may.",
        "TD errors/31931",
    ),
    "next-verb-after-close": Belief(
        "When our side closes the socket, the verb after <Connect> runs.",
        "The call ends.",
        "TD errors/31921; TD voice/twiml/stream",
    ),
    "next-verb-after-break": Belief(
        "When the socket breaks without a close frame, the verb after <Connect> runs.",
        "The call ends.",
        "inferred: TD errors/31903 does not say",
    ),
    "next-verb-after-refusal": Belief(
        "When the upgrade is refused, the verb after <Connect> runs.",
        "The call ends.",
        "inferred: TD errors/31920 does not say",
    ),
    "stop-before-close": Belief(
        "When the call ends, stop comes before the socket is closed.",
        "The socket is closed without it.",
        "TD voice/media-streams/websocket-messages",
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
