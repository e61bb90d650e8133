"""The state of all streams of one gateway, without I/O: events in, instructions out.

Rules:

1. A call runs on one worker at a time, the *active* one, under a generation. Sound from a worker is
   written only with the call's present generation and at the position that follows what was
   written before; all else is dropped and counted. So whatever a worker does that was stopped,
   slow or dead, no sound is written twice and none is left out.
2. The call moves *at once* when the active worker's connection is lost, when nobody listens at its
   endpoint, when it has said nothing for 500 ms, and when it refuses the call. The generation is
   counted up, unless no worker has got the present one yet. The call goes to the first worker of
   its placement that is usable (OpenCall, with the next outbound position and the ring of recent
   inbound sound). If none is, the call waits for a new placement or for a worker that ticks again,
   and tries the workers of its placement anew each second.
3. A worker that had the call and lost it to another worker gets CloseCall, once the other one has
   got its OpenCall. When the controller has said that the call is over, the last worker gets it,
   too.
4. Inbound frames always go to the ring, and also to the active worker once that has got OpenCall.
   Frames that arrive before are in the ring of the OpenCall. Acknowledgements of written sound
   leave with the frames, and before any other message to the same worker.
5. An ended stream's state stays for 2 s, so that StreamEnded also reaches a worker that takes over
   in that time. A later stream of the same call supersedes an earlier one.
6. Time in which the gateway itself did not run does not count against a worker. A stream whose end
   is read just after the gateway stood still may have ended when the standstill began. We assume
   the worst: sound that lay at the carrier at that moment, or was written since, counts as
   unplayed.
7. A one-way stream is worked on like any other, but nothing is written to it.
8. A call that is listened to brings two tracks on one socket. Each track is a one-way stream of its
   own here, because a worker takes one row of sound per call. The inbound track has the call's own
   id, and the socket's number. The outbound track has an id of its own (``outbound_track``), and
   the socket's number with a minus sign. The controller is told nothing of the outbound track.

:mod:`.links` looks after the connections to the workers.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from math import inf
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.sound import FRAME, WIRE_RATE

from .instructions import CloseSocket, Instruction, Notify, WriteTexts
from .links import Link, Links
from .stream import Stream, Tap, Wire

log = logging.getLogger("trunkline.gateway")

#: ``check`` is to be called this often.
CHECK_SECONDS: Final = 0.1
#: If nothing was done for this long, the gateway stood still ...
STOOD_STILL: Final = 2 * CHECK_SECONDS
#: ... and when it has run again for this long, it has read everything that came meanwhile.
CAUGHT_UP_WITHIN: Final = 0.1
#: An ended stream is kept for this long.
LINGER_SECONDS: Final = 2.0
#: A call that no worker has tries its workers again after this time. A worker that refused the call
#: is not asked again for the same time.
RETRY_SECONDS: Final = 1.0

#: The lower 16 bits of a generation count the moves of one stream.
_LAST_MOVE: Final = 0xFFFF


class Streams:
    """All streams of the gateway ``gateway`` (its peer id). ``now`` is the monotonic clock."""

    def __init__(self, gateway: str, now: float, lead_ms: int = 60) -> None:
        self.gateway = gateway
        #: how much sound workers are to keep ahead at the carrier; OpenCall says so
        self.lead_ms = lead_ms
        #: how much was dropped or ignored, by reason: generation, position, ended, one-way,
        #: unknown-call, unknown-mark, stale-mark, placement
        self.dropped: Counter[str] = Counter()
        #: when the gateway was last seen to run
        self._ran_at = now
        #: after the gateway stood still: when it will have read everything that came meanwhile;
        #: infinite: it has caught up, or never stood still
        self._caught_up_at = inf
        #: instructions of the event that is being handled
        self._out: list[Instruction] = []
        self._links = Links(self._out)
        #: by call: the newest stream, live or lingering
        self._calls: dict[str, Stream] = {}
        #: by socket: live streams only
        self._sockets: dict[int, Stream] = {}
        #: a frame waits for the next flush
        self._batched = False
        #: frames or acknowledgements still wait after a flush, for the next one
        self.waits = False

    def _take(self) -> list[Instruction]:
        """The instructions of the event that has just been handled."""
        taken = self._out[:]
        self._out.clear()
        return taken

    # ------------------------------------------------------------------ what it holds

    @property
    def live(self) -> int:
        """How many streams are live."""
        return len(self._sockets)

    def socket_of(self, call: str) -> int | None:
        """The socket of the call's live stream."""
        stream = self.of_call(call)
        return None if stream is None else stream.socket

    def of_call(self, call: str) -> Stream | None:
        """The call's live stream."""
        stream = self._calls.get(call)
        return None if stream is None or stream.ended is not None else stream

    def all_live(self) -> list[Stream]:
        """The live streams."""
        return list(self._sockets.values())

    def announce(self, now: float) -> list[m.StreamInfo]:
        """The live streams, for Hello."""
        return [
            stream.announced(self._links.worker(stream.active), now)
            for stream in self._sockets.values()
            if not stream.is_second_track
        ]

    def stats(self) -> list[m.StreamStats]:
        """Counters of the live streams, for Beat."""
        return [s.stats for s in self._sockets.values() if not s.is_second_track]

    def tracks(self, call: str) -> list[str]:
        """The ids of the call's streams. A call that is listened to has two."""
        other = m.outbound_track(call)
        return [call, other] if other in self._calls else [call]

    # ------------------------------------------------------------------ the carrier's events

    def accept(
        self,
        socket: int,
        wire: Wire,
        accepted: m.StreamAccepted,
        stream_sid: str,
        now: float,
        taps: tuple[Tap, ...] = (),
        early: Iterable[tuple[int, bytes]] = (),
    ) -> list[Instruction]:
        """The controller let this socket's stream in. ``taps`` hear its sound. ``early``: frames
        that the stream has brought already, and that the worker needs with the OpenCall."""
        info = accepted.info
        joins = accepted.one_way or accepted.overlaps
        holders: set[str] = set()
        earlier = self._calls.get(info.call)
        if earlier is not None:
            if earlier.ordinal >= info.ordinal:
                closed = m.StreamClosed(
                    call=info.call, ordinal=info.ordinal, reason="close", gateway=self.gateway
                )
                close = CloseSocket(socket, "a later stream of the call is here")
                return [close] if socket < 0 else [close, Notify(closed)]
            if earlier.ended is None:
                self._out.append(CloseSocket(earlier.socket, "superseded by a later stream"))
                # If the next stream joins this one, its sound goes on there. So the worker is not
                # told that this one ended.
                self._end(earlier, "close", now, told=not joins)
            holders = earlier.holders
        stream = Stream(
            socket=socket,
            wire=wire,
            info=info,
            stream_sid=stream_sid,
            accepted_at=now,
            generation=m.first_generation(info.ordinal),
            out_next=0 if accepted.first else None,
            holders=holders,
            one_way=accepted.one_way or info.theirs is not None,
            joins=joins,
            taps=taps,
        )
        self._calls[info.call] = stream
        self._sockets[socket] = stream
        for position, payload in early:
            self._heard(stream, position, payload)
        self._links.revive(stream.workers, now)  # a host that was cut off may be back
        self._place(stream, now)
        return self._take()

    def media(self, socket: int, position: int, payload: bytes) -> bool:
        """Inbound sound. True: nothing waited before; call ``flush`` within a few milliseconds."""
        stream = self._sockets.get(socket)
        if stream is None:
            self.dropped["ended"] += 1
            return False
        link = None
        if stream.opened:
            assert stream.active is not None
            link = self._links.by_endpoint[stream.active]
        self._heard(stream, position, payload, link)
        if link is None:
            return False
        first, self._batched = not self._batched, True
        return first

    def _heard(
        self, stream: Stream, position: int, payload: bytes, link: Link | None = None
    ) -> None:
        """Keep sound that came, and gather it for ``link``."""
        stream.frames_in += -(-len(payload) // FRAME)
        for tap in stream.taps:
            tap.heard(position, payload)
        info = stream.info
        frame = m.InFrame(info.call, stream.generation, info.ordinal, position, payload)
        stream.ring.add(frame)
        if link is not None:
            link.batch.append(frame)

    def flush(self, now: float | None = None, *, all_of_it: bool = False) -> list[Instruction]:
        """Send what was gathered, and how far sound was written: one Inbound to each worker. If a
        worker wants frames in pairs, its Inbound may wait for the next flush, unless ``all_of_it``
        is to go."""
        self._batched = False
        self.waits = self._links.flush(now, all_of_it=all_of_it)
        return self._take()

    @property
    def in_pairs(self) -> bool:
        """All workers for which the last flush had something want frames in pairs."""
        return self._links.in_pairs

    def digit(self, socket: int, index: int, digit: str) -> list[Instruction]:
        """A DTMF digit arrived."""
        stream = self._sockets.get(socket)
        if stream is None:
            self.dropped["ended"] += 1
            return []
        told = m.DigitIn(stream.ordinal, index, digit)
        stream.digits.append(told)
        if stream.opened:
            self._say(stream, m.Digit(stream.call, stream.generation, told))
        return self._take()

    def mark_returned(self, socket: int, name: str) -> list[Instruction]:
        """The carrier returned a mark.

        Two marks may have the same name, with a clear between them. Then the mark that the clear
        threw out comes back first. The worker does not get that one, because the mark for which it
        waits is still to come.
        """
        stream = self._sockets.get(socket)
        if stream is None:
            self.dropped["ended"] += 1
            return []
        sent = next((mark for mark in stream.marks if mark[0] == name), None)
        if sent is None:
            self.dropped["unknown-mark"] += 1
            return []
        stream.marks.remove(sent)
        if sent[1] != stream.playback and (name, stream.playback) in stream.marks:
            self.dropped["stale-mark"] += 1
            return []
        if stream.opened:
            self._say(stream, m.MarkReached(stream.call, stream.generation, name))
        return self._take()

    def closed(self, socket: int, reason: m.StreamEndReason, now: float) -> list[Instruction]:
        """The stream is over: ``stop`` came, or the socket is gone. Only the first call counts."""
        self._runs(now)
        for track in (socket, -socket):
            stream = self._sockets.get(track)
            if stream is not None:
                self._end(stream, reason, now)
        return self._take()

    # ------------------------------------------------------------------ events of the controller

    def call_placed(self, placed: m.CallPlaced, now: float) -> list[Instruction]:
        """A newer placement: move the call, unless its active worker is in it and usable."""
        stream = self._calls.get(placed.call)
        if stream is None:
            self.dropped["unknown-call"] += 1
            return []
        new, old = placed.placement, stream.info.placement
        if old is not None and (new.epoch, new.n) <= (old.epoch, old.n):
            self.dropped["placement"] += 1
            return []
        stream.place(new)
        self._links.revive(stream.workers, now)
        if stream.active not in {worker.endpoint for worker in stream.workers}:
            # An active worker that stays is usable: otherwise it would have lost the call already.
            self._move(stream, now)
        return self._take()

    def close_one_way(self, call: str, ordinal: int, now: float) -> list[Instruction]:
        """Close the call's one-way stream, because a stream at another gateway has taken over."""
        stream = self._calls.get(call)
        if stream is not None and stream.ordinal == ordinal and stream.ended is None:
            self._end(stream, "close", now)
            self._out.append(CloseSocket(stream.socket, "the stream that it stood in for is back"))
        return self._take()

    def close_stream(self, call: str, now: float) -> list[Instruction]:
        """Close this call's socket, because the controller says that the call is over. Read out the
        socket before: the worker is told that no more sound comes."""
        stream = self._calls.get(call)
        if stream is None:
            self.dropped["unknown-call"] += 1
            return []
        stream.over = True
        if stream.ended is None:
            self._end(stream, "stop", now)  # "stop", because the stream ends with its call
            self._out.append(CloseSocket(stream.socket, "closed by the controller"))
        return self._take()

    # ------------------------------------------------------------------ events of the workers

    def link_up(self, endpoint: str, now: float) -> list[Instruction]:
        """The handshake with the worker is done (MediaHello has been sent)."""
        link = self._links.up(endpoint, now)
        if link is not None:
            for stream in list(self._calls.values()):
                if stream.active == endpoint and not stream.opened:
                    self._open(stream, link, now)
        return self._take()

    def link_lost(self, endpoint: str, now: float) -> list[Instruction]:
        """The connection is gone, or could not take a message."""
        link = self._links.by_endpoint.get(endpoint)
        if link is not None and link.phase != "lost":
            self._lose(link, now)
        return self._take()

    def from_worker(
        self, endpoint: str, message: m.WorkerToGateway, now: float
    ) -> list[Instruction]:
        """A message came from the worker. MediaRefused counts as a lost connection."""
        self._runs(now)
        link = self._links.by_endpoint.get(endpoint)
        if link is None or link.phase != "up":
            return []
        if isinstance(message, m.Outbound):
            self._outbound(link, message, now)
        elif isinstance(message, m.Clear):
            stream = self._current(endpoint, message.call, message.generation)
            if stream is not None:
                stream.out_next = message.next_position
                stream.playback = message.playback
                stream.plays_until, stream.in_doubt = now, 0.0
                self._out.append(WriteTexts([(stream.socket, stream.wire.clear)]))
                for tap in stream.taps:
                    tap.cleared()
        elif isinstance(message, m.Mark):
            stream = self._current(endpoint, message.call, message.generation)
            if stream is not None:
                stream.marks.append((message.name, stream.playback))
                self._out.append(WriteTexts([(stream.socket, stream.wire.mark(message.name))]))
        elif isinstance(message, m.Pair):
            link.pairs = message.on
        elif isinstance(message, m.OpenRefused):
            stream = self._calls.get(message.call)
            if (
                stream is not None
                and stream.active == endpoint
                and stream.generation == message.generation
            ):
                if endpoint not in stream.refused:  # told once: it is asked again each second
                    what = "call %s: codec worker %s refuses it: %.300s"
                    log.warning(what, stream.info.sid, link.worker.id, message.why)
                stream.refused[endpoint] = now + RETRY_SECONDS
                stream.holders.discard(endpoint)
                self._move(stream, now)
        elif isinstance(message, m.MediaRefused):
            self._lose(link, now)
            return self._take()
        link.heard = now
        if link.stalled:
            link.stalled = False
            for stream in list(self._calls.values()):
                if stream.active is None and link.worker in stream.workers:
                    self._place(stream, now)
        return self._take()

    @property
    def at_rest(self) -> bool:
        """There is no call, and no connection to a worker: the clock changes nothing."""
        return not self._calls and self._links.at_rest

    def rested(self, now: float) -> None:
        """The gateway was at rest, and nobody called ``check``. So it did not stand still."""
        self._ran_at = now

    def _runs(self, now: float) -> None:
        """The gateway runs now. If it has not run for long before, it stood still."""
        since, self._ran_at = self._ran_at, max(self._ran_at, now)
        if now - since > STOOD_STILL:
            self._caught_up_at = now + CAUGHT_UP_WITHIN
            self._links.excuse(now - since - STOOD_STILL)
            for stream in self._sockets.values():
                stream.stood_still(since, now)

    def check(self, now: float) -> list[Instruction]:
        """Look at the clock; to be called each CHECK_SECONDS, unless at rest."""
        self._runs(now)
        if now >= self._caught_up_at:
            self._caught_up_at = inf
            for stream in self._sockets.values():
                stream.in_doubt = 0.0
        for link in self._links.fallen_silent(now):
            if link.phase == "connecting":
                self._lose(link, now)
            else:
                self._leave(link.endpoint, now)
        used: set[str | None] = set()
        for stream in list(self._calls.values()):
            if stream.ended is not None and now - stream.ended_at >= LINGER_SECONDS:
                self._forget(stream)
                continue
            if stream.active is None and now >= stream.retry_at:
                self._links.revive(stream.workers, now)
                self._place(stream, now)
            used.add(stream.active)
            used |= stream.holders
            for worker in stream.workers:
                used.add(worker.endpoint)
        self._links.close_unused(used, now)
        return self._take()

    # ------------------------------------------------------------------ outbound sound

    def _outbound(self, link: Link, batch: m.Outbound, now: float) -> None:
        out, written, endpoint = self._out, link.written, link.endpoint
        calls = self._calls
        texts: list[tuple[int, bytes]] = []
        for frame in batch.frames:
            call = frame.call
            stream = calls.get(call)
            if (
                stream is None
                or stream.generation != frame.generation
                or stream.active != endpoint
                or stream.ended is not None
                or stream.one_way
            ):
                self._drop(stream)
                continue
            following = stream.out_next
            if following is None or following == frame.position:
                payload = frame.payload
                samples = len(payload)
                following = frame.position + samples
                stream.out_next = following
                stream.frames_out += -(-samples // FRAME)
                begins = now if now > stream.plays_until else stream.plays_until
                stream.plays_until = begins + samples / WIRE_RATE
                texts.append((stream.socket, stream.wire.media(payload)))
                for tap in stream.taps:
                    tap.said(payload)
                if stream.keeps is not None:
                    stream.keeps(payload)
            else:
                self.dropped["position"] += 1
            # Also after a frame out of position: so the worker learns which position comes next.
            written[call] = (frame.generation, following, stream.plays_until)
        if texts:
            out.append(WriteTexts(texts))

    def _drop(self, stream: Stream | None) -> None:
        if stream is None:
            self.dropped["unknown-call"] += 1
        elif stream.ended is not None:
            self.dropped["ended"] += 1
        elif stream.one_way:
            self.dropped["one-way"] += 1
        else:
            self.dropped["generation"] += 1

    def _current(self, endpoint: str, call: str, generation: int) -> Stream | None:
        """The call's live stream, if this worker has the call in this generation and may write. If
        not, the worker's message is counted as dropped."""
        stream = self._calls.get(call)
        if (
            stream is not None
            and stream.generation == generation
            and stream.active == endpoint
            and stream.ended is None
            and not stream.one_way
        ):
            return stream
        self._drop(stream)
        return None

    # ------------------------------------------------------------------ placing calls

    def _usable(self, stream: Stream, worker: m.WorkerRef, now: float) -> bool:
        link = self._links.by_endpoint[worker.endpoint]
        return link.usable and stream.refused.get(worker.endpoint, now) <= now

    def _place(self, stream: Stream, now: float) -> None:
        """Give a call that no worker has to the first of its workers that is usable."""
        assert stream.active is None
        for worker in stream.workers:
            if self._usable(stream, worker, now):
                stream.active = worker.endpoint
                link = self._links.by_endpoint[worker.endpoint]
                if link.phase == "up":
                    self._open(stream, link, now)
                return
        stream.retry_at = now + RETRY_SECONDS

    def _open(self, stream: Stream, link: Link, now: float) -> None:
        generation, endpoint = stream.generation, link.endpoint
        self._links.send(link, stream.open_call(self.lead_ms, now))
        stream.opened = True
        self._close_call(stream, stream.holders - {endpoint})
        stream.holders = {endpoint}
        if not stream.is_second_track and (
            generation != m.first_generation(stream.ordinal)
            or endpoint != stream.workers[0].endpoint
        ):
            moved = m.CallMoved(
                call=stream.call,
                generation=generation,
                worker=link.worker.id,
                gateway=self.gateway,
            )
            self._out.append(Notify(moved))
        if stream.ended is not None:
            self._say_ended(stream)

    def _close_call(self, stream: Stream, holders: set[str]) -> None:
        """Send CloseCall to these workers: another one has the call, or it is over."""
        for holder in holders:
            link = self._links.by_endpoint.get(holder)
            if link is not None and link.phase == "up":
                self._links.send(link, m.CloseCall(stream.call, stream.generation))

    def _move(self, stream: Stream, now: float) -> None:
        """Take the call from its active worker and give it to another, a generation higher."""
        stream.active = None
        if stream.opened:  # otherwise no worker knows the present generation, and it can stay
            stream.opened = False
            if stream.generation & _LAST_MOVE == _LAST_MOVE:
                if stream.ended is None:  # a new stream begins a new range of generations
                    self._end(stream, "error", now)
                    self._out.append(CloseSocket(stream.socket, "moved too often"))
                return
            stream.generation += 1
        self._place(stream, now)

    def _leave(self, endpoint: str, now: float) -> None:
        for stream in list(self._calls.values()):
            if stream.active == endpoint:
                self._move(stream, now)

    def _lose(self, link: Link, now: float) -> None:
        self._links.lose(link)
        for stream in self._calls.values():
            stream.holders.discard(link.endpoint)
        self._leave(link.endpoint, now)

    def _say(self, stream: Stream, message: m.ToWorker) -> None:
        """Send a message to the active worker, after all sound that came before."""
        assert stream.active is not None
        self._links.send(self._links.by_endpoint[stream.active], message)

    # ------------------------------------------------------------------ the end of streams

    def _end(
        self, stream: Stream, reason: m.StreamEndReason, now: float, *, told: bool = True
    ) -> None:
        """End the stream. ``told``: tell its worker, too."""
        stream.ended = reason
        stream.ended_at = now
        del self._sockets[stream.socket]
        if stream.opened and told:
            self._say_ended(stream)
        if stream.is_second_track:
            return
        closed = m.StreamClosed(
            call=stream.call, ordinal=stream.ordinal, reason=reason, gateway=self.gateway
        )
        self._out.append(Notify(closed))

    def _say_ended(self, stream: Stream) -> None:
        assert stream.ended is not None
        ended = m.StreamEnded(
            stream.call, stream.generation, stream.ordinal, stream.ended, stream.lost
        )
        self._say(stream, ended)

    def _forget(self, stream: Stream) -> None:
        if stream.over:
            self._close_call(stream, stream.holders)
        del self._calls[stream.call]
