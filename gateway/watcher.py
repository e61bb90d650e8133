"""What the console shows of this gateway's streams: how loud they are, and the sound of some.

Nothing here costs anything while nobody looks. A Watch of the controller puts a :class:`Meter` on
each stream. The meters go when the Watch runs out. The console renews the Watch for as long as a
page is open.

A hundred calls have 10,000 frames a second, so a meter does next to nothing for each of them. The
meter reads the far end's sound from the stream's ring, and keeps our own sound as it is. Three
times a second it looks at three pieces of each side.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.clock import Clock
from trunkline.bus.sound import LINEAR, WIRE_RATE

from .recording import Stereo, place_of
from .stream import Stream
from .streams import Streams

#: Levels are sent this often (seconds). Each has three bytes a side, from the middle of each third
#: of that time.
EVERY: Final = 0.3
_MIDDLES: Final = (5, 3, 1)
#: Full scale, in steps of half a decibel.
FULL_SCALE: Final = 127
#: The largest sample that mu-law has: full scale.
_LOUDEST: Final = max(LINEAR)
#: Sound is sorted into classes of so many steps: 2 dB.
_CLASS: Final = 4


def _class_of(magnitude: int) -> int:
    """The class of samples of this magnitude; 0 is silence."""
    if magnitude == 0:
        return 0
    return max(0, round((FULL_SCALE + 40 * math.log10(magnitude / _LOUDEST)) / _CLASS))


_CLASSES: Final = bytes(_class_of(abs(sample)) for sample in LINEAR)
#: The classes from the loudest down, each with its loudness.
_LADDER: Final = tuple(
    (each, min(FULL_SCALE, each * _CLASS)) for each in range(max(_CLASSES), 0, -1)
)


def loudness(mulaw: bytes) -> int:
    """How loud the loudest sample is: 0 is silence, each step is 0.5 dB, and 127 is full scale. The
    class decides, so that is right to 1 dB. To look for one class after the other takes a tenth of
    the time that ``max`` would."""
    classes = mulaw.translate(_CLASSES)
    if classes.count(0) < len(classes):
        for each, loud in _LADDER:
            if each in classes:
                return loud
    return 0


class Meter:
    """Both directions of one stream since the last :meth:`take`. ``lateness``: by how much the
    newest frame came later than the far end's clock says, in seconds."""

    def __init__(self, stream: Stream, lateness: Callable[[], float]) -> None:
        self._stream = stream
        self._lateness = lateness
        self._ours: list[bytes] = []
        #: keeps a frame of our own sound, and does nothing else
        self.keeps = self._ours.append
        #: the meter has not looked at the far end's frames from this position on
        self._next = stream.ring.end
        self._late: float | None = None
        self._jitter = 0.0

    def take(self, now: float) -> m.Level:
        """How loud the stream was in the middle of each third of the time since the last ``take``.
        The jitter is that of RFC 3550, 6.4.1, measured at one frame in fifteen."""
        late = self._lateness()
        if self._late is not None:
            self._jitter += (abs(late - self._late) - self._jitter) / 16
        self._late = late
        stream, ring = self._stream, self._stream.ring.frames
        far = ours = bytes(3)
        new = 0
        for frame in reversed(ring):
            if frame.position < self._next:
                break
            new += 1
        if new:
            self._next = stream.ring.end
            far = bytes([loudness(ring[-1 - new * odd // 6].payload) for odd in _MIDDLES])
        if said := len(self._ours):
            ours = bytes([loudness(self._ours[-1 - said * odd // 6]) for odd in _MIDDLES])
            self._ours.clear()
        return m.Level(
            call=stream.call,
            far=far,
            ours=ours,
            lead_ms=stream.unplayed(now) * 1000 // WIRE_RATE,
            jitter_ms=round(self._jitter * 1000),
        )


@dataclass
class _Shown:
    """A stream that is shown. ``sound``: somebody listens to it."""

    stream: Stream
    meter: Meter
    sound: Stereo | None = None


class Watcher:
    """Tells the controller levels and sound of ``streams`` for as long as it asks for them.
    ``lateness`` returns how late the newest frame of a socket came."""

    def __init__(
        self,
        gateway: str,
        streams: Streams,
        notify: Callable[[m.Notification], bool],
        clock: Clock,
        lateness: Callable[[int], float],
    ) -> None:
        self._gateway = gateway
        self._streams = streams
        self._notify = notify
        self._clock = clock
        self._lateness = lateness
        self._until = float("-inf")
        self._listened_to: frozenset[str] = frozenset()
        self._shown: dict[str, _Shown] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, watch: m.Watch) -> None:
        """Somebody looks, for ``watch.seconds``. 0: nobody looks any more."""
        if not watch.seconds:
            self.close()
            return
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
            shown.stream.keep(None)
            if shown.sound is not None:
                shown.stream.untap(shown.sound)
        self._shown.clear()

    def _show(self, stream: Stream) -> None:
        """Put a meter on the stream. If somebody listens to it, tap its sound too; if nobody does
        any more, take the tap off."""
        shown = self._shown.get(stream.call)
        if shown is None or shown.stream is not stream:
            meter = Meter(stream, lambda: self._lateness(stream.socket))
            shown = self._shown[stream.call] = _Shown(stream, meter)
            stream.keep(meter.keeps)
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
        now = self._clock()
        if now > self._until:
            self.close()
            return
        levels = []
        for call, shown in list(self._shown.items()):
            if shown.stream.ended is not None:
                del self._shown[call]
            else:
                levels.append(shown.meter.take(now))
            if shown.sound is not None and shown.sound.waiting:
                at, mulaw = shown.sound.take()
                sound = m.CallSound(gateway=self._gateway, call=call, at=at, mulaw=mulaw)
                self._notify(sound)
        if levels:
            self._notify(m.Levels(gateway=self._gateway, levels=levels))
        self._timer = asyncio.get_running_loop().call_later(EVERY, self._tell)
