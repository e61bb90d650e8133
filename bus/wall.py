"""The wall between a process's sockets and its work. Each process has one.

No content of a message may end a loop, and a paced loop least of all. So every message is decoded
and handled behind the wall, whichever socket brought it. The wall tells a peer's mistakes from our
own:

- *undecodable*: the decoder refused it. It raises more than msgspec's own errors (a text that is no
  UTF-8 is a UnicodeDecodeError, and thousands of nested lists a RecursionError).
- *fault*: it was a message, and handling it raised. That is a mistake of ours, so the log gets it
  with its traceback.

Both are counted, and logged once a minute for each kind, so that whoever sends them by the thousand
fills neither a log nor a disk. The next record says how many were left out.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec

from .clock import Clock, monotonic

#: Seconds between two records of one kind.
LOGGED_EVERY: Final = 60.0
#: Characters of a decoder's error that are logged: it may repeat what it could not read.
_LONGEST_WHY: Final = 200


class Wall:
    """``log``: the logger of the process. ``dropped`` counts what was stopped, by its kind.
    ``count`` is called with that kind, too, where a process counts for itself."""

    def __init__(
        self,
        log: logging.Logger,
        count: Callable[[str], object] = lambda kind: None,
        *,
        clock: Clock = monotonic,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self._count = count
        self._log = log
        self._clock = clock
        #: by kind: when it was last logged, and how often it came since
        self._logged: dict[str, tuple[float, int]] = {}

    def door(
        self, messages: Any, handle: Callable[[Any], None], whence: str
    ) -> Callable[[bytes], None]:
        """A function that a DEALER calls with each payload. ``handle`` gets it decoded as one of
        ``messages``. ``whence`` says in the log who sent it."""
        decode = msgspec.msgpack.Decoder(messages).decode

        def receive(payload: bytes) -> None:
            try:
                message = decode(payload)
            except Exception as error:  # noqa: BLE001  # whatever it holds, the loop goes on
                self._undecodable(whence, error)
                return
            try:
                handle(message)
            except Exception as error:  # noqa: BLE001  # the same
                self.fault(type(message).__name__, error)

        return receive

    def gate(
        self,
        messages: Any,
        handle: Callable[[bytes, Any], None],
        whence: str,
        refused: Callable[[bytes, bytes, Exception], None] | None = None,
    ) -> Callable[[bytes, bytes], None]:
        """As :meth:`door`, for a ROUTER, which calls it with ``(identity, payload)``. ``handle``
        gets the identity and the message. ``refused`` gets each payload that could not be decoded,
        with the decoder's error."""
        decode = msgspec.msgpack.Decoder(messages).decode

        def receive(identity: bytes, payload: bytes) -> None:
            try:
                message = decode(payload)
            except Exception as error:  # noqa: BLE001  # as above
                self._undecodable(whence, error)
                if refused is not None:
                    self.shield("undecodable message", refused, identity, payload, error)
                return
            try:
                handle(identity, message)
            except Exception as error:  # noqa: BLE001  # the same
                self.fault(type(message).__name__, error)

        return receive

    def _undecodable(self, whence: str, error: Exception) -> None:
        why = str(error)[:_LONGEST_WHY]
        self.stop("undecodable", f"a message of {whence} could not be read: {why}")

    def shield(self, what: str, act: Callable[..., object], *arguments: Any) -> bool:
        """Call ``act``. False: it raised, which is counted and logged as a fault of ours."""
        try:
            act(*arguments)
        except Exception as error:  # noqa: BLE001  # the loop that calls this goes on
            self.fault(what, error)
            return False
        return True

    def fault(self, what: str, error: Exception) -> None:
        """A mistake of ours, while ``what`` was handled."""
        self.stop("fault", f"a {what} failed", what, error)

    def stop(self, kind: str, text: str, detail: str = "", error: Exception | None = None) -> None:
        """Count one of this kind, and log it unless one was logged within the last minute."""
        self.dropped[kind] += 1
        self._count(kind)
        now = self._clock()
        key = kind + detail
        at, unsaid = self._logged.get(key, (float("-inf"), 0))
        if now - at < LOGGED_EVERY:
            self._logged[key] = (at, unsaid + 1)
            return
        self._logged[key] = (now, 0)
        if unsaid:
            text += f" (and {unsaid} like it since the last of these lines)"
        if error is None:
            self._log.warning("%s", text)
        else:
            self._log.error("%s", text, exc_info=error)
