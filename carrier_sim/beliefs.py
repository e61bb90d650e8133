"""The beliefs of Twilio by name, and how the carrier contradicts each of them.

No I/O. Product and stand-in share these beliefs, so no test can notice that one of them is wrong;
only a real account can. ``docs/beliefs.md`` names each belief, its source, and the
consequence for the product if it is wrong. The carrier can contradict each belief by name, so that
this can be tested:

    CarrierSim(contradict=["clear-returns-marks"])
    trunkline carrier-sim --contradict clear-returns-marks

Where Twilio is known to vary, that is a habit (habits.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: By name, in the order of docs/beliefs.md: the carrier's way when it contradicts the belief.
BELIEFS: Final[dict[str, str]] = {
    # Numbers
    "numbers-read-as-written": "For 3 s after a write, reads show what stood there before.",
    "urls-are-kept-verbatim": "REST shows them without their fragment, though Twilio keeps it.",
    "urls-may-be-long": "More than 1,000 are refused (21402).",
    "voice-url-counts-at-once": "For 4 s after a write, calls still find the number as it was.",
    "routed-numbers-ignore-voice-url": "Its calls ask voice_url all the same.",
    "one-route-deletes-the-other": "Both stay.",
    "rest-takes-both-tokens": "It takes the primary alone: the secondary gives 401, error 20003.",
    # Webhooks
    "webhooks-are-signed": "They carry none.",
    "query-is-kept": "It is neither sent nor signed.",
    "fragment-is-not-signed": "The signature covers the fragment.",
    "fragment-is-followed": "The fragment changes nothing: an HTTP error is not tried again.",
    "fallback-is-asked": "The call ends with an application error.",
    "webhooks-may-take-15-s": "It is given 2 s.",
    "signed-url-is-the-given-one": "The query is left out too.",
    "the-auth-token-signs": "A shared key signs them with HMAC-SHA256, and a header says so.",
    "webhook-user-info": "They are never sent.",
    "webhooks-name-their-call": "They have no CallStatus.",
    # An inbound call before it is answered
    "pause-keeps-ringing": "<Pause> answers it.",
    "reject-is-busy": "It ends as no-answer.",
    "reject-does-not-answer": "The call is answered, then ended as completed.",
    "rest-shows-new-calls": "Read by its SID, a call that comes in gives 404 for its first 3 s.",
    # Calls that we place
    "callbacks-for-each-event": "Only completed is.",
    "callbacks-name-the-cause": "It always says completed.",
    "completed-ends-ringing": "It is answered with 200, and the call rings on.",
    "time-limit-ends-calls": "The limit is not kept.",
    "new-calls-are-listed": "It shows calls after 30 s.",
    "429-is-not-processed": "It was.",
    "rest-shows-ends": "Read by its SID, a call goes on showing its status before the end.",
    "own-number-asks": "The call is answered, and the number's voice_url is not asked.",
    "async-amd-calls-back": "Who answered is shown in REST, and nobody is called.",
    "async-amd-names-the-call": "The callback has no CallSid; its URL's query alone tells.",
    # Media Streams
    "upgrades-are-signed": "It carries none.",
    "parameters-arrive": "customParameters is empty.",
    "frames-of-20-ms": "It comes in frames of 40 ms.",
    "silence-is-sent": "Frames below about -42 dBFS are left out; timestamps go on.",
    "timestamps-from-stream-start": "It counts from the call's creation.",
    "digits-arrive": "It gets none.",
    "marks-wait-for-playback": "It comes back at once.",
    "clear-empties-buffer": "What is buffered is played.",
    "clear-returns-marks": "They never come back.",
    "playback-starts-at-once": "It is held back for 0.4 s at the start of each stretch.",
    "ten-minutes-are-buffered": "One minute may.",
    "next-verb-after-close": "The call ends.",
    "next-verb-after-break": "The call ends.",
    "next-verb-after-refusal": "The call ends.",
    "stop-before-close": "The socket is closed without it.",
    "stream-user-info": "Such a url is malformed (error 31923), and the stream does not start.",
    "stream-port": "Only port 443 (80 for ws) is reached; another gives error 31901.",
    "one-way-beside-connect": "REST refuses it there.",
    "streams-alike": "They differ in the lowest bit.",
    "one-way-close-ends": "The carrier connects it once more, with the same parameters.",
    "tracks-share-a-clock": "Those of the outbound track are 200 ms ahead.",
    "streams-stop-by-name": "Only their SID stops them.",
    "update-sends-stop": "Its socket is closed without one.",
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
        """True where the carrier acts as is believed, False where it contradicts."""
        assert name in BELIEFS, name
        return name not in self.contradicted
