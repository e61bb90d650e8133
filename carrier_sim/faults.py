"""Faults as small rules, in an ordered list. Each can be removed again.

No I/O. A rule says where it applies (REST request, webhook, status callback, stream) and on which
method and path or URL (a regular expression, searched). A stream's URL is followed by ``#`` and its
call's SID, so that a rule can be about one call. It says how often it fires (``skip`` the first
matches, then at most ``count`` times) and how likely (``probability``, from the rule's own seeded
generator). A request gets the first rule that matches and fires; an open stream gets all of them.
The shell that asked carries the kind out.

- rest ``status``: answers ``status`` with nothing done, and with ``retry_after`` as Retry-After if
  that is given
- rest ``latency``: waits ``seconds``, then does and answers
- rest ``timeout_before``: nothing done, no answer; the connection drops after ``seconds`` (60)
- rest ``timeout_after``: done, but no answer; the same
- rest ``late_effect``: done ``seconds`` later, but no answer; the connection drops after 60 s
- rest ``reset``, ``reset_after``: resets the connection, with nothing done or after all was done
- webhook or status ``drop``: not sent, counts as not reached
- webhook or status ``delay``: sent ``seconds`` later
- webhook or status ``duplicate``: sent twice, the second answer counts
- stream ``refuse``: the connection attempt fails as refused (31902)
- stream ``drop_socket``: ``seconds`` after the start the socket breaks, with no close frame (31903)
- stream ``stall``: ``seconds`` after the start nothing is sent for ``duration`` seconds, then
  everything at once
- stream ``jitter``: each message to the server is late by up to ``duration`` seconds, order kept
- stream ``drop_frames``: each frame to the server is lost with ``probability``, and its chunk
  number is left out
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

KINDS: Final[dict[str, frozenset[str]]] = {
    where: frozenset(kinds.split())
    for where, kinds in {
        "rest": "status latency timeout_before timeout_after late_effect reset reset_after",
        "webhook": "drop delay duplicate",
        "status": "drop delay duplicate",
        "stream": "refuse drop_socket stall jitter drop_frames",
    }.items()
}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One rule. Raises ValueError for an unknown place or kind, or an impossible probability."""

    where: str
    kind: str
    method: str = ""
    path: str = ""
    count: int | None = None
    skip: int = 0
    probability: float = 1.0
    seed: int = 0
    status: int = 429
    retry_after: float | None = None
    seconds: float = 0.0
    duration: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS.get(self.where, frozenset()):
            known = "; ".join(f"{w}: {', '.join(sorted(k))}" for w, k in KINDS.items())
            raise ValueError(f"no fault {self.kind!r} for {self.where!r}. There are {known}")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability={self.probability}: 0 to 1 is wanted")
        re.compile(self.path)


class Rule:
    """An installed fault with its counters."""

    def __init__(self, rule_id: int, fault: Fault) -> None:
        self.id = rule_id
        self.fault = fault
        self.seen = 0
        self.fired = 0
        self._pattern = re.compile(fault.path)
        self._random = random.Random(fault.seed)

    def match(self, method: str, path: str) -> bool:
        """Whether the rule fires on this one; counts it."""
        fault = self.fault
        if fault.method and fault.method.upper() != method.upper():
            return False
        if not self._pattern.search(path):
            return False
        self.seen += 1
        if self.seen <= fault.skip or (fault.count is not None and self.fired >= fault.count):
            return False
        # For lost frames the probability is each frame's, not the rule's.
        likely = 1.0 if fault.kind == "drop_frames" else fault.probability
        if likely < 1.0 and self._random.random() >= likely:
            return False
        self.fired += 1
        return True

    def describe(self) -> dict[str, object]:
        """The rule and its counters, for the control API."""
        fields: dict[str, object] = msgspec.to_builtins(self.fault)
        return {"id": self.id, "seen": self.seen, "fired": self.fired, **fields}


class Faults:
    """The list. ``version`` grows with each change, so that live streams notice new rules."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.rules: list[Rule] = []
        self.version = 0
        self._next = 1

    def add(self, fault: Fault) -> Rule:
        """Install behind the others."""
        if fault.seed == 0 and self.seed:
            fault = msgspec.structs.replace(fault, seed=self.seed + self._next)
        rule = Rule(self._next, fault)
        self._next += 1
        self.rules.append(rule)
        self.version += 1
        return rule

    def remove(self, rule_id: int) -> None:
        """Uninstall. Raises KeyError when it is not installed."""
        kept = [r for r in self.rules if r.id != rule_id]
        if len(kept) == len(self.rules):
            raise KeyError(f"no fault rule {rule_id}")
        self.rules = kept
        self.version += 1

    def clear(self) -> None:
        """Uninstall all."""
        self.rules.clear()
        self.version += 1

    @contextmanager
    def during(self, fault: Fault) -> Iterator[Rule]:
        """Installed within a with block."""
        rule = self.add(fault)
        try:
            yield rule
        finally:
            if rule in self.rules:
                self.remove(rule.id)

    def match(self, where: str, method: str, path: str, kind: str = "") -> Fault | None:
        """The first rule that fires on this request; of one kind only, where a kind is given."""
        for rule in self.rules:
            fault = rule.fault
            if fault.where != where or kind not in ("", fault.kind):
                continue
            if rule.match(method, path):
                return fault
        return None
