"""Things that Twilio does now in one way, now in another: the form is drawn by seed, each time.

No I/O. A habit has a name and the forms that have been seen of it, with their source. Product and
stand-in must not agree on one of them by accident, so the carrier draws a form each time the
question comes up. A test that needs one form pins it:

    CarrierSim(seed=7)                                  draws, and draws the same again
    CarrierSim(habits={"signed-url": "no-port"})        always signs in this form

Something that Twilio does in one way only, as far as anybody knows, is a belief (beliefs.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final

#: A gateway's own number, in place of the caller's.
GATEWAY: Final = "+811045000"

#: The caller as other carriers hand it on, by form of the habit ``caller-id``.
#: Twilio's support says so: "caller ID preservation cannot be guaranteed to all destinations. Some
#: countries require caller ID mutation to ensure delivery, and some countries append or prepend
#: additional digits" (International Voice Quirks). Withheld numbers come as words, or as the digits
#: that spell them on a keypad (Why am I getting calls from these strange numbers).
CALLER_FORMS: Final[dict[str, Callable[[str], str]]] = {
    "kept": lambda caller: caller,
    "country-code-cut": lambda caller: "+" + caller[2:],
    "national": lambda caller: caller[2:],
    "digits-added": lambda caller: f"+010{caller[1:]}",
    "gateway-number": lambda caller: GATEWAY,
    "anonymous": lambda caller: "anonymous",
    "capital-anonymous": lambda caller: "Anonymous",
    "spelled-anonymous": lambda caller: "+266696687",
    "restricted": lambda caller: "RESTRICTED",
    "empty": lambda caller: "",
}

#: name -> the forms that are drawn from, all equally likely.
HABITS: Final[dict[str, tuple[str, ...]]] = {
    # The text of a URL that is signed: as Twilio was given it, with its (or the default) port or
    # without, with its user-info or without. TD usage/security says that https URLs lose port and
    # user-info; github.com/twilio/twilio-csharp issue 44 and twilio-python's request_validator.py
    # ("sig generation on back end is inconsistent") saw the port kept. The carrier draws for http
    # and ws, too, because tests use those.
    "signed-url": ("given", "port", "no-port", "port-no-user", "no-port-no-user"),
    # The text of a stream's URL that is signed: as the TwiML has it, or with a slash behind it. A
    # live call was seen to sign the first. Several public servers take both; they name a note of TD
    # usage/security on the second, which we have not seen ourselves.
    "signed-upgrade": ("given", "slash"),
    # Where the timestamps of frames lie: 20 ms after one another, or some ms beside that. A
    # recorded stream has the chunks 1 and 73, with no number missing, at "155" and "1593": that is
    # 1,438 ms for 72 frames. github.com/qisoft/i-hate-making-calls issue 23 counts 19 ms of a track
    # as missing by timestamps, and no chunk.
    "timestamps": ("grid", "off-grid"),
    # The timestamp of a stream's first frame, whose chunk number is 1. The example in TD voice/
    # media-streams/websocket-messages has "5". Logs of real streams, which users have published,
    # have "57", "102", "111", "155" and "171".
    "first-timestamp": ("0", "5", "57", "102", "171"),
    # How REST shows a number's URL that is not set. TD phone-numbers/api/
    # incomingphonenumber-resource has both forms in one answer: "voice_fallback_url": null and
    # "status_callback": "". It shows an unset voice_application_sid as null and as "", too.
    "unset-fields": ("empty", "null"),
    # The order in which the status callbacks of a call arrive. TD voice/api/call-resource
    # (SequenceNumber): "they are made as separate HTTP requests, and there is no guarantee they
    # will arrive in the same order". An overtaken callback arrives OVERTAKEN_BY later (sim.py).
    "callback-order": ("kept", "overtaken"),
    # Which of the account's two auth tokens signs while there are two. TD api/errors/57012 reads as
    # if it were the primary until the secondary is promoted; a promotion takes a minute to spread
    # (TD iam/api/authtoken).
    "signing-token": ("primary", "secondary"),
    # From, as the webhooks of the callee's number have it, where the account calls a number of its
    # own. Whoever calls from outside (place_inbound_call) arrives as the test says.
    "caller-id": tuple(CALLER_FORMS),
    # Seconds from the end of one bidirectional stream to the beginning of the next, when a document
    # replaces another that is in <Connect> (qisoft/i-hate-making-calls, issue 18: 0.856 s; a cold
    # <Connect> took 0.565 s).
    "seam": ("0.3", "0.6", "0.9", "1.2"),
    # Seconds until a one-way stream, asked for by <Start> or by REST, brings sound. Not measured; a
    # cold <Connect> is of the same kind (the same issue 18).
    "one-way-start": ("0.1", "0.3", "0.6"),
}


class Habits:
    """Draws forms; each habit has a generator of its own, so that one does not shift another."""

    def __init__(self, seed: int, pinned: Mapping[str, str] | None = None) -> None:
        """``pinned``: habit -> the one form it takes. ValueError for one that is not in HABITS."""
        self._seed = seed
        self._pinned = dict(pinned or {})
        self._random: dict[str, random.Random] = {}
        for name, form in self._pinned.items():
            if name not in HABITS:
                raise ValueError(f"no habit {name!r}. There are {', '.join(sorted(HABITS))}")
            if form not in HABITS[name]:
                raise ValueError(f"{name!r} has no form {form!r}. It has {', '.join(HABITS[name])}")

    def draw(self, name: str) -> str:
        """The form that the habit takes this time."""
        if name in self._pinned:
            return self._pinned[name]
        if name not in self._random:
            self._random[name] = random.Random(f"{self._seed}:{name}")
        return self._random[name].choice(HABITS[name])
