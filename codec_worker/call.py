"""The record of one call at a worker: its peers, its outbound sound on the way to the playout, its
inbound sound, its digits. Rules of the call as a whole are in ``calls.py``. No I/O."""

from __future__ import annotations

from collections import deque
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.sound import FRAME, POSITION_BYTES

from .inbound import Inbound
from .playout import FRAME_NS, SAMPLE_NS, Playout
from .resample import Downsampler, History

#: This many of the last digits are kept, because the worker sends them again after each Resume.
DIGITS_KEPT: Final = 256


class Call:
    """One call that was opened here."""

    # With many calls, others push this object out of the processor's caches between two frames.
    # Slots keep its attributes in the object, so that no dict has to be fetched from memory too.
    __slots__ = (
        "_history", "_pcm", "_pcm_bytes", "adapter", "before", "digits", "ended", "frames_in",
        "gaps", "gateway", "gateway_heard", "generation", "id", "inbound", "lead_ns", "left",
        "one_way", "opened_at", "ordinal", "playback", "playout", "resumed", "resumed_at", "secret",
        "streamless_since", "tell_end", "unplayed", "unplayed_before",
    )  # fmt: skip

    def __init__(self, opened: m.OpenCall, gateway: bytes, now: int) -> None:
        self.id = opened.call
        self.generation = opened.generation
        self.ordinal = opened.ordinal
        self.secret = opened.secret
        self.lead_ns = max(FRAME_NS, opened.lead_ms * 1_000_000)
        self.playback = opened.playback
        #: identity of the gateway that writes our frames; None: it is gone
        self.gateway: bytes | None = gateway
        #: the streams before the present one, which joins them, that may still bring sound from
        #: other gateways: by ordinal, the gateway and the generation; None: it is not opened yet
        self.before: dict[int, tuple[bytes, int] | None] = {}
        #: a time at which the gateway lived for certain: that of the last empty look at the socket
        #: before its last message was read. By the time of the reading it may have died
        self.gateway_heard = now
        #: identity of the client, who speaks and listens; None: nobody is attached
        self.adapter: bytes | None = None
        #: nobody is attached, and the last client has said Detach
        self.left = False
        #: the client answered the Opened of the present generation
        self.resumed = False
        #: None until it is known at which position outbound sound continues
        self.playout: Playout | None = None
        #: the present stream takes no sound of ours
        self.one_way = opened.one_way
        self.inbound = Inbound()
        self.digits: deque[m.DigitIn] = deque(maxlen=DIGITS_KEPT)
        #: the StreamEnded of the present stream, once it came
        self.ended: m.StreamEnded | None = None
        #: tell the client the stream's end, once all sound before it was handed out
        self.tell_end = False
        self.frames_in = 0
        self.opened_at = now
        #: since when there is no stream; None while there is one
        self.streamless_since: int | None = None
        #: how many times in a row speech left a gap
        self.gaps = 0
        #: the acknowledged position that the client named in its last Resume
        self.resumed_at = 0
        #: samples of outbound sound that the present stream lost and no Loss has reported yet
        self.unplayed = 0
        #: the same of the streams before it; Opened reports them, until a Resume answers
        self.unplayed_before = 0
        self._history = Downsampler.history()
        self._pcm: deque[bytes | memoryview] = deque()
        self._pcm_bytes = 0

    # ------------------------------------------------------------------ speech

    @property
    def spoken_to(self) -> int:
        """The position that follows all speech taken so far."""
        assert self.playout is not None
        waiting = self._pcm_bytes // POSITION_BYTES
        return self.playout.end + self.playout.tail + waiting

    @property
    def waiting(self) -> bool:
        """Some speech still has to be encoded."""
        return self._pcm_bytes > 0

    def speak(self, position: int, pcm: bytes) -> bool:
        """Take speech, and ignore any that was taken before. False: it would leave a gap."""
        skip = (self.spoken_to - position) * POSITION_BYTES
        if skip < 0:
            return False
        if skip < len(pcm):
            self._pcm.append(pcm[skip:] if skip else pcm)
            self._pcm_bytes += len(pcm) - skip
        return True

    def next_chunk(self, most: int) -> tuple[History, bytes]:
        """The filter's history and the PCM to encode next, at most ``most`` bytes."""
        parts: list[bytes | memoryview] = []
        size = 0
        while self._pcm and size < most:
            part = self._pcm.popleft()
            if size + len(part) > most:
                view, room = memoryview(part), most - size
                self._pcm.appendleft(view[room:])
                part = view[:room]
            parts.append(part)
            size += len(part)
        self._pcm_bytes -= size
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        return self._history, whole if isinstance(whole, bytes) else bytes(whole)

    def encoded(self, payload: bytes) -> int:
        """Give the playout the encoded chunk. Returns the samples lost to the playout's bound."""
        assert self.playout is not None
        held = Downsampler.held(self._history)
        return self.playout.speak(self.playout.end, payload, tail=held)

    @property
    def history(self) -> History:
        """The outbound filter's history."""
        return self._history

    def silence_before(self) -> None:
        """A pause precedes what is encoded next."""
        self._history.tail = Downsampler.history().tail

    def forget_speech(self) -> None:
        """Drop what is not encoded yet, and the filter's history."""
        self._pcm.clear()
        self._pcm_bytes = 0
        self._history = Downsampler.history()

    def go_on(self, position: int | None, playback: int | None = None) -> int:
        """Outbound sound continues at ``position``. See Playout.open, also for what is returned."""
        assert self.playout is not None
        before = self.playout.end
        lost = self.playout.open(position, playback)
        if self.playout.end != before:
            # The playout dropped all that it held, so drop the rest too. The client speaks again
            # from the new position.
            self.forget_speech()
        return lost

    # ------------------------------------------------------------------ streams

    def reopen(self, opened: m.OpenCall, gateway: bytes, now: int) -> None:
        """The call goes on here under a newer generation: a new stream, or moved back."""
        playout = self.playout
        if opened.ordinal > self.ordinal:
            self._comes_after(opened, gateway)
        if playout is not None:
            if opened.ordinal > self.ordinal:
                # The stream before may have ended without a StreamEnded, because its gateway died,
                # or because this stream joins it. A death of the gateway shows here only when
                # something has to be sent there. The stream ended at some time after we last heard
                # that gateway.
                self.unplayed += playout.freeze(self.gateway_heard, told=False).samples
            if not opened.one_way:
                self.unplayed += self.go_on(opened.out_next, opened.playback)
            if opened.ordinal > self.ordinal:
                self.unplayed_before += self.unplayed
                self.unplayed = 0
            if opened.ahead:
                playout.plays_on(now + opened.ahead * SAMPLE_NS)
        self.generation = opened.generation
        self.ordinal = opened.ordinal
        self.secret = opened.secret
        self.playback = opened.playback
        self.one_way = opened.one_way
        self.gateway = gateway
        self.gateway_heard = now
        self.resumed = False
        self.ended = None
        self.tell_end = False
        self.streamless_since = None

    def _comes_after(self, opened: m.OpenCall, gateway: bytes) -> None:
        """Note which streams before this one may still bring sound. Those of its own gateway have
        brought all of theirs, because one connection keeps its order. A one-way stream may be
        opened behind the stream that joins it; its ordinal is then the one that is missing."""
        before = self.before
        if self.ended is None and self.gateway is not None:
            before[self.ordinal] = (self.gateway, self.generation)
        if self.ordinal < opened.ordinal - 1 and not opened.one_way:
            before[opened.ordinal - 1] = None
        newest = sorted(before)[-2:]
        self.before = {
            ordinal: source
            for ordinal, source in before.items()
            if opened.joins and ordinal in newest and (source is None or source[0] != gateway)
        }

    def is_unopened(self, ordinal: int) -> bool:
        """The present stream joins this one, and no gateway has opened it here."""
        return ordinal in self.before and self.before[ordinal] is None

    @property
    def mute(self) -> bool:
        """No stream takes sound of ours now."""
        return self.one_way or self.ended is not None

    def stream_ended(self, ended: m.StreamEnded, now: int) -> None:
        """The stream has ended, so playout freezes."""
        self.ended = ended
        self.tell_end = True
        if self.streamless_since is None:
            self.streamless_since = now
        if self.playout is not None:
            self.unplayed += self.playout.freeze(now, ended.unplayed).samples

    def gateway_lost(self) -> None:
        """The gateway is gone. Its stream has most likely ended too, at some time after we last
        heard the gateway. The next OpenCall shows whether it has, so playout is not frozen here:
        without a gateway nothing is sent anyway."""
        self.gateway = None
        if self.streamless_since is None:
            self.streamless_since = self.gateway_heard

    # ------------------------------------------------------------------ reports

    @property
    def idle(self) -> bool:
        """All that was sent is acknowledged, and less than a frame is left, which goes out without
        more speech."""
        playout = self.playout
        return (
            playout is not None
            and not playout.frozen
            and not self._pcm_bytes
            and playout.unsent < FRAME
            and playout.acknowledged == playout.position
        )

    @property
    def late(self) -> int:
        """How long the far end has waited within our utterances, because their sound came late
        (samples at 8 kHz)."""
        return 0 if self.playout is None else self.playout.underrun_ns // SAMPLE_NS

    def stats(self, now: int) -> m.CallStats:
        """The call's counters."""
        out = self.playout
        lost = self.inbound.lost + (0 if out is None else out.lost)
        return m.CallStats(
            call=self.id,
            generation=self.generation,
            frames_in=self.frames_in,
            frames_out=0 if out is None else out.frames_out,
            frames_lost=-(-lost // FRAME),
            underruns=0 if out is None else out.underruns,
            seconds=(now - self.opened_at) / 1e9,
        )
