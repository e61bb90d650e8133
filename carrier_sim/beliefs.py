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
