"""The beliefs that a live run can settle, what each means for the user, and what a run found.

No I/O. The names are those of docs/beliefs.md, which has the source of each belief and says what
trunkline does where it is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

#: Belief -> what it means for the user where it does not hold. In the order of docs/beliefs.md.
LIVE: Final[dict[str, str]] = {
    "numbers-read-as-written": "a number may be put back some seconds later",
    "urls-are-kept-verbatim": "a number whose own URLs have a fragment is put back without it",
    "urls-may-be-long": "numbers with long URLs cannot be answered or called in b-leg mode",
    "voice-url-counts-at-once": "the first call after wait_for_call() may go to the old URL",
    "webhooks-are-signed": "every webhook is refused with 403; no call gets through",
    "query-is-kept": "callbacks that come before Twilio's answer to a dial are lost",
    "fragment-is-not-signed": "every webhook is refused with 403; no call gets through",
    "fragment-is-followed": "a call that comes in while a gateway restarts is not asked for again",
    "fallback-is-asked": "callers hear an application error when the whole stack is gone",
    "signed-url-is-the-given-one": "every webhook is refused with 403; no call gets through",
    "the-auth-token-signs": "what a shared key signs gets 403, until its Webhook Rule is gone",
    "pause-keeps-ringing": "a caller may be answered before it is known whether anybody waits",
    "reject-is-busy": "a callee that is in use is reported as no-answer instead of busy",
    "reject-does-not-answer": "calls that nobody waits for are answered, and billed",
    "callbacks-for-each-event": "an answered call whose stream does not come is noticed later",
    "callbacks-name-the-cause": "a dial that was busy or not answered is reported as failed",
    "completed-ends-ringing": "hanging up while it rings takes a second request",
    "time-limit-ends-calls": "only trunkline itself ends calls at their longest duration",
    "new-calls-are-listed": "a dial whose answer got lost may be taken for one that never was",
    "rest-shows-ends": "a dial whose callbacks got lost ends by its timeout",
    "upgrades-are-signed": "every stream is refused with 403; no call has sound",
    "parameters-arrive": "no stream is let in; no call has sound",
    "frames-of-20-ms": "what is heard comes in larger pieces; nothing is lost",
    "silence-is-sent": "pauses of the far end are reported as lost samples",
    "timestamps-from-stream-start": "a call's first stream may report sound lost at its start",
    "digits-arrive": "on_dtmf is not told of keys that the far end presses",
    "marks-wait-for-playback": "a turn is thought to have been heard before it has been",
    "clear-empties-buffer": "interrupt() is heard up to the lead (60 ms) later",
    "clear-returns-marks": "nothing: marks that an interrupt threw away are settled without Twilio",
    "next-verb-after-close": "a call does not outlive the restart of its gateway",
    "next-verb-after-break": "a call does not outlive the death of its gateway",
    "next-verb-after-refusal": "a call does not outlive a stream that could not be opened",
    "stop-before-close": "a hang-up looks like a broken stream for up to 15 s",
}

Judgement = Literal["holds", "contradicted", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """The judgement of one belief. ``seen``: the observation that it rests on."""

    judgement: Judgement
    seen: str


class Verdicts:
    """The judgements of a run so far. A contradiction stays, and "unknown" replaces nothing."""

    def __init__(self) -> None:
        self._found: dict[str, Verdict] = {}

    def _judge(self, name: str, judgement: Judgement, seen: str) -> None:
        assert name in LIVE, name
        known = self._found.get(name)
        if known is None or (known.judgement != "contradicted" and judgement != "unknown"):
            self._found[name] = Verdict(judgement, seen)

    def holds(self, name: str, seen: str) -> None:
        self._judge(name, "holds", seen)

    def contradicted(self, name: str, seen: str) -> None:
        self._judge(name, "contradicted", seen)

    def unknown(self, name: str, seen: str) -> None:
        self._judge(name, "unknown", seen)

    def decide(self, name: str, good: bool, seen: str) -> None:
        self._judge(name, "holds" if good else "contradicted", seen)

    @property
    def all(self) -> dict[str, Verdict]:
        """A verdict for each belief of LIVE, in that order."""
        missing = Verdict("unknown", "the run did not come to it")
        return {name: self._found.get(name, missing) for name in LIVE}

    def named(self, judgement: Judgement) -> list[str]:
        """The beliefs of this judgement."""
        return [name for name, verdict in self.all.items() if verdict.judgement == judgement]
