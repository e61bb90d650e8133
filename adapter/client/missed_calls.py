"""Calls that came while a line waited, and did not become its call: for the error that ends it."""

from __future__ import annotations

from collections import Counter

from trunkline.bus import messages as m
from trunkline.bus.callers import listed


class MissedCalls:
    """The calls since :meth:`forget`, as the controller's
    :class:`~trunkline.bus.messages.WebhooksCounted` name them."""

    def __init__(self) -> None:
        self._calls: list[str] = []
        self._unsigned: Counter[str] = Counter()

    def forget(self) -> None:
        """A new wait begins."""
        self._calls.clear()
        self._unsigned.clear()

    def add(self, event: m.WebhooksCounted) -> None:
        if event.caller:
            self._calls.append(f"from {event.caller} ({event.why})")
        elif event.why:
            self._unsigned[event.why] += event.rejected

    def __str__(self) -> str:
        """In words; "" where nothing came."""
        parts = []
        count = len(self._calls)
        if count:
            calls = "1 call came" if count == 1 else f"{count} calls came"
            parts.append(f"{calls} meanwhile: {listed(self._calls)}")
        for why, number in self._unsigned.items():
            hooks = "1 webhook" if number == 1 else f"{number} webhooks"
            parts.append(f"{hooks} to this number refused ({why})")
        return "; ".join(parts)
