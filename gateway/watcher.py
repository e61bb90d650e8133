"""What of this gateway's streams the console shows: how loud they are, and the sound of some.

Nothing here costs anything while nobody looks. A Watch of the controller puts a :class:`Meter` on
each stream, and takes it off again when no other one comes in time. The console renews it for as
long as a page is open.

A meter looks at every eighth sample. That is a thousand a second, so the loudest of a tenth of a
second is found to within a decibel in speech, and a stream costs an eighth of the time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.clock import Clock
from trunkline.bus.sound import WIRE_RATE

from .recording import Stereo, linear, place_of
from .stream import Stream
from .streams import Streams

#: Levels are told this often (seconds). Each has two bytes a side.
EVERY: Final = 0.2
#: Steps of half a decibel, up to full scale.
FULL_SCALE: Final = 127
_LOUDEST: Final = 32_124
_EACH: Final = 8


def _steps(code: int) -> int:
    """How loud one mu-law code is."""
    magnitude = abs(linear(code))
    decibel = 20 * math.log10(magnitude / _LOUDEST) if magnitude else -math.inf
    return max(0, round(FULL_SCALE + 2 * max(decibel, -FULL_SCALE)))


_LOUDNESS: Final = bytes(_steps(code) for code in range(256))


def loudness(mulaw: bytes | bytearray) -> int:
    """The loudest sample: 0 is silence, each step is 0.5 dB, and 127 is full scale."""
    return max(mulaw[::_EACH].translate(_LOUDNESS), default=0)


class Meter:
    """Both directions of one stream since the last :meth:`take`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._far = bytearray()
        self._ours = bytearray()
        #: samples that lie unplayed at the carrier; it plays one for each that the far end sends
        self._ahead = 0
        self._transit: float | None = None
        self._jitter = 0.0

    def heard(self, position: int, payload: bytes) -> None:
        """The far end said it. Jitter is that of RFC 3550, 6.4.1, in seconds."""
        self._far += payload
        self._ahead = max(0, self._ahead - len(payload))
        transit = self._clock() - position / WIRE_RATE
        if self._transit is not None:
            self._jitter += (abs(transit - self._transit) - self._jitter) / 16
        self._transit = transit

    def said(self, payload: bytes) -> None:
        """We sent it to the carrier's buffer."""
        self._ours += payload
        self._ahead += len(payload)

    def cleared(self) -> None:
        """The carrier's buffer was emptied."""
        self._ahead = 0

    def take(self, call: str) -> m.Level:
        """How loud it was, in two halves of the time since the last one."""
        far, ours = bytes(self._far), bytes(self._ours)
        self._far.clear()
        self._ours.clear()
        return m.Level(
            call=call,
            far=_halves(far),
            ours=_halves(ours),
            lead_ms=self._ahead * 1000 // WIRE_RATE,
            jitter_ms=round(self._jitter * 1000),
        )


def _halves(mulaw: bytes) -> bytes:
    middle = len(mulaw) // 2
    return bytes((loudness(mulaw[:middle]), loudness(mulaw[middle:])))


@dataclass
class _Shown:
    """A stream that is shown. ``sound``: somebody listens to it."""

    stream: Stream
    meter: Meter
    sound: Stereo | None = None


class Watcher:
    """Tells the controller levels and sound of ``streams`` for as long as it asks for them."""

    def __init__(
        self, gateway: str, streams: Streams, notify: Callable[[m.Notification], bool], clock: Clock
    ) -> None:
        self._gateway = gateway
        self._streams = streams
        self._notify = notify
        self._clock = clock
        self._until = float("-inf")
        self._listened_to: frozenset[str] = frozenset()
        self._shown: dict[str, _Shown] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, watch: m.Watch) -> None:
        """Somebody looks, for so long."""
        self._until = self._clock() + watch.seconds
        self._listened_to = frozenset(watch.sound)
        for stream in self._streams.all_live():
            self._show(stream)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY, self._tell)

    def opened(self, call: str) -> None:
        """A stream of the call is up."""
        stream = self._streams.of_call(call) if self._timer is not None else None
        if stream is not None:
            self._show(stream)

    def close(self) -> None:
        """Tell nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for shown in self._shown.values():
            shown.stream.untap(shown.meter)
            if shown.sound is not None:
                shown.stream.untap(shown.sound)
        self._shown.clear()

    def _show(self, stream: Stream) -> None:
        """Put the meter on it, and an ear where somebody listens; or take that off again."""
        shown = self._shown.get(stream.call)
        if shown is None or shown.stream is not stream:
            shown = self._shown[stream.call] = _Shown(stream, Meter(self._clock))
            stream.tap(shown.meter)
        listened_to = stream.call in self._listened_to
        if listened_to and shown.sound is None:
            age = (stream.info.age or 0.0) + self._clock() - stream.accepted_at
            shown.sound = Stereo(place_of(age))
            stream.tap(shown.sound)
        elif not listened_to and shown.sound is not None:
            stream.untap(shown.sound)
            shown.sound = None

    def _tell(self) -> None:
        self._timer = None
        if self._clock() > self._until:
            self.close()
            return
        levels = []
        for call, shown in list(self._shown.items()):
            if shown.stream.ended is not None:
                del self._shown[call]
            else:
                levels.append(shown.meter.take(call))
            if shown.sound is not None and shown.sound.waiting:
                at, mulaw = shown.sound.take()
                sound = m.CallSound(gateway=self._gateway, call=call, at=at, mulaw=mulaw)
                self._notify(sound)
        if levels:
            self._notify(m.Levels(gateway=self._gateway, levels=levels))
        self._timer = asyncio.get_running_loop().call_later(EVERY, self._tell)
