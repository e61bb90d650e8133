"""All calls of one worker, without I/O: messages in, messages out.

The rules:

1. A call is here from OpenCall on. An OpenCall with a newer generation takes the call over, and the
   worker goes on with all that it knows of the call. An OpenCall that is not newer is dropped, and
   so is every message of another generation. An OpenCall shows the call's secret. Until the next
   OpenCall only the gateway that sent it speaks for the call. One exception: a stream may join
   streams at another gateway. Then that gateway's OpenCall and frames are taken up to the joint,
   and so are digits and the news that such a stream has ended.
2. The client attaches by the call's secret, before or after the call is opened. ``Opened`` asks the
   client for a ``Resume``, and nothing is sent in either direction before that. So the client does
   not hear sound again that it has heard, and no sound goes out that it has interrupted.
3. Outbound positions: a fresh worker begins where the gateway says, or (``out_next`` None) where
   the client's Resume says. A worker that knows the call goes on behind the last sound that was
   acknowledged to it. If the worker has not seen the last interrupt, the Resume carries that out,
   as long as the interrupted sound may still lie at the carrier (``floor`` above the next position,
   and no sound behind ``floor`` acknowledged).
4. Speech that leaves a gap is not taken. The worker asks the client for a Resume again, but three
   times at most until some speech fits.
5. A peer to which a message could not be sent is gone. A gateway's calls then send nothing before
   the next OpenCall, and a client's calls nothing before the next Attach.
6. A call whose sound cannot be paced, by a mistake of ours, is given back to its gateway, which has
   another worker try. Such a call must not take the other calls' sound with it.
7. Messages are only collected here. ``work`` (once the messages at hand are read) and ``tick``
   (each 20 or 40 ms) do the sound of all calls together.

Times are integer nanoseconds of one monotonic clock. ``until`` is when the next tick comes.
"""

from __future__ import annotations

import hmac
from collections import Counter, deque
from typing import Final

from trunkline.bus import messages as m
from trunkline.bus.sound import FRAME, POSITION_BYTES, TOGETHER, UNPLAYED

from .batches import Batches, ToPeer
from .call import Call
from .inbound import InboundFrame
from .pairs import Pairs
from .playout import SAMPLE_NS, Playout, PlayoutError

#: A worker takes this many calls, unless it is told another number.
MOST_CALLS: Final = 2_000
#: A call without a stream is forgotten after this time, or at the first beat after its client has
#: left it.
FORGET_NS: Final = 120_000_000_000
_TOMBSTONES: Final = 4_096
#: This many Attaches of one client are kept. On a standby worker they wait for calls that are
#: opened elsewhere.
MOST_ATTACHED: Final = 2 * MOST_CALLS
_MOST_GAPS: Final = 3
_LONGEST_IDLE: Final = 86_400.0  # seconds; no call is longer


class Calls:
    """The calls of the worker ``worker`` (its peer id). Peers are named by ZeroMQ identity."""

    def __init__(self, worker: str, *, most_calls: int = MOST_CALLS) -> None:
        self.worker = worker
        self.most_calls = most_calls
        #: no new calls are taken
        self.draining = False
        self.calls: dict[str, Call] = {}
        #: identity -> role of every peer that said MediaHello
        self.peers: dict[bytes, m.Role] = {}
        #: how many messages were dropped, by reason
        self.dropped: Counter[str] = Counter()
        #: mistakes of peers, for the log; bounded
        self.complaints: deque[str] = deque(maxlen=50)
        #: why calls were given back; the process takes these errors and logs them
        self.broken: list[Exception] = []
        #: call id -> identity of each client that sent an Attach for it -> the secret it showed
        self._attached: dict[str, dict[bytes, str]] = {}
        #: how many Attaches in ``_attached`` are each client's
        self._attaches: Counter[bytes] = Counter()
        #: call id -> the generation with which the call was forgotten, for the calls that were
        #: forgotten last
        self._closed: dict[str, int] = {}
        #: one object for each gateway's identity, so that each frame costs a comparison of objects
        #: and not of bytes
        self._gateways: dict[bytes, bytes] = {}
        #: when the socket was last found empty: messages that are read now came after this
        self._read_at = 0
        self._batches = Batches()
        self.pairs = Pairs()
        #: signs of life so far
        self._ticks = 0
        #: peers that got another message than a Tick since the last beat
        self._told: set[bytes] = set()

    @property
    def over(self) -> bool:
        """Every stream here has ended, and its client, if there is one, has all of its sound."""
        return all(
            call.ended is not None and (call.adapter is None or not call.tell_end)
            for call in self.calls.values()
        )

    # ------------------------------------------------------------------ in

    def receive(self, peer: bytes, message: m.ToWorker, now: int) -> None:
        """Take one message of ``peer``."""
        if isinstance(message, m.Inbound):
            # First the acknowledgements: they have to be worked on before a stream's end.
            if message.written:
                self._all_written(peer, message, now)
            self._in_frames(peer, message.frames, now)
        elif isinstance(message, m.Speak):
            self._speak(peer, message)
        elif isinstance(message, m.Interrupt):
            self._interrupt(peer, message, now)
        elif isinstance(message, m.OpenCall):
            self._open(peer, message, now)
        elif isinstance(message, m.Attach):
            self._attach(peer, message)
        elif isinstance(message, m.Resume):
            self._resume(peer, message, now)
        elif isinstance(message, m.Gather):
            self._gather(peer, message)
        elif isinstance(message, m.SetMark):
            self._set_mark(peer, message)
        elif isinstance(message, m.MarkReached):
            self._mark_reached(peer, message)
        elif isinstance(message, m.Digit):
            self._digit(peer, message)
        elif isinstance(message, m.StreamEnded):
            self._stream_ended(peer, message, now)
        elif isinstance(message, m.CloseCall):
            self._close(peer, message)
        elif isinstance(message, m.Detach):
            self._detach(peer, message.call)
        else:
            self._hello(peer, message)

    def all_read(self, now: int) -> None:
        """Every message that had come until ``now`` was received. Call this only after a look at
        the socket has found it empty. For example, when a process that was stopped goes on, its
        timer may come first, while messages still wait."""
        self._read_at = now

    def take_instructions(self) -> list[tuple[bytes, ToPeer]]:
        """Messages to send, in order, as (identity, message). Say :meth:`disconnected` of each peer
        that could not take its message."""
        if not self._batches.instructions:
            return []
        instructions, self._batches.instructions = self._batches.instructions, []
        self._told.update(peer for peer, message in instructions if type(message) is not m.Tick)
        return instructions

    def disconnected(self, peer: bytes, now: int) -> None:
        """The peer is gone, or could not take a message."""
        self.peers.pop(peer, None)
        if self._attaches[peer]:
            for call_id in [call_id for call_id, by in self._attached.items() if peer in by]:
                self._forget_attach(peer, call_id)
        del self._attaches[peer]
        self._gateways.pop(peer, None)
        for call in self.calls.values():
            if call.gateway == peer:
                call.gateway_lost()
                call.inbound.none_late()  # nothing comes any more behind what waits
                self._hand_out_soon(call)
            for ordinal, source in list(call.before.items()):
                if source is not None and source[0] == peer:
                    self._none_late(call, ordinal)
            if call.adapter == peer:
                self._lose_adapter(call)

    def _hello(self, peer: bytes, hello: m.MediaHello) -> None:
        if hello.major != m.PROTOCOL[0]:
            text = f"this worker speaks protocol {m.PROTOCOL[0]}, you speak {hello.major}"
            self._batches.instructions.append((peer, m.MediaRefused(text)))
            return
        self.peers[peer] = hello.role

    def _current(self, call_id: str, generation: int) -> Call | None:
        call = self.calls.get(call_id)
        if call is None:
            self.dropped["unknown-call"] += 1
        elif call.generation != generation:
            self.dropped["generation"] += 1
            call = None
        return call

    def _from_gateway(self, peer: bytes, call_id: str, generation: int) -> Call | None:
        call = self._current(call_id, generation)
        if call is not None and call.gateway != peer:
            self.dropped["not-its-gateway"] += 1
            call = None
        return call

    def _from_adapter(self, peer: bytes, call_id: str, generation: int) -> Call | None:
        call = self._current(call_id, generation)
        if call is not None and (call.adapter != peer or not call.resumed):
            self.dropped["not-resumed"] += 1
            call = None
        return call

    # ------------------------------------------------------------------ from a gateway: the call

    def _open(self, peer: bytes, opened: m.OpenCall, now: int) -> None:
        call = self.calls.get(opened.call)
        newest = self._closed.get(opened.call, -1) if call is None else call.generation
        if opened.generation <= newest:
            if call is None or not self._open_late(peer, call, opened, now):
                self.dropped["generation"] += 1
            return
        self.peers.setdefault(peer, "gateway")
        peer = self._gateways.setdefault(peer, peer)
        why = self._why_not(call, opened)
        if why is not None:
            refused = m.OpenRefused(opened.call, opened.generation, why)
            self._batches.instructions.append((peer, refused))
            if self.pairs.on:  # the gateway stopped sending in pairs when it sent this OpenCall
                self._batches.instructions.append((peer, m.Pair(True)))
            return
        if call is None:
            call = self.calls[opened.call] = Call(opened, peer, now)
            self._closed.pop(opened.call, None)
        else:
            self._batches.hand_out([call])  # what came on the old generation goes out under it
            call.reopen(opened, peer, now)
        if call.playout is None and opened.out_next is not None:
            call.playout = self._playout(call, opened.out_next)
            if opened.ahead:
                call.playout.plays_on(now + opened.ahead * SAMPLE_NS)
        if opened.joins:
            call.inbound.join(opened.ordinal, call.before)
        else:
            call.inbound.none_late()
        call.inbound.replace_ring(_ring(opened.ring, now))
        for digit in opened.digits:
            if digit not in call.digits:
                call.digits.append(digit)
        self._choose_adapter(call)
        self._say_opened(call)

    def _open_late(self, peer: bytes, call: Call, opened: m.OpenCall, now: int) -> bool:
        """A stream that the present one joins is opened behind it, by a gateway that stood still.
        False: it is no such stream."""
        ordinal = opened.ordinal
        if not call.is_unopened(ordinal) or not _same(call.secret, opened.secret):
            return False
        call.before[ordinal] = (peer, opened.generation)
        call.inbound.join(ordinal, call.before)
        call.inbound.add_late(_ring(opened.ring, now))
        self._hand_out_soon(call)
        return True

    def _why_not(self, call: Call | None, opened: m.OpenCall) -> str | None:
        """Why the call is not taken; None: it is taken."""
        if call is not None:
            # After its restart the controller may have made another secret for a call that lost its
            # gateway, so such a call may change its secret.
            if call.gateway is None or _same(call.secret, opened.secret):
                return None
            self.dropped["wrong-secret"] += 1
            return "the call is here, with another secret"
        if self.draining:
            return "draining"
        full = len(self.calls) >= self.most_calls
        return f"{self.most_calls} calls are the most" if full else None

    def _playout(self, call: Call, position: int) -> Playout:
        return Playout(position, lead_ns=call.lead_ns, playback=call.playback)

    def _choose_adapter(self, call: Call) -> None:
        """Give the call to the newest Attach with its secret. Attaches with another secret are
        refused, and older ones with the right secret are kept: their client may have the call when
        the newest one leaves."""
        call.adapter = None
        attached = self._attached.get(call.id, {})
        for peer, secret in list(attached.items()):
            if _same(secret, call.secret):
                call.adapter = peer
                call.left = False
            else:
                self._forget_attach(peer, call.id)
                self._batches.instructions.append((peer, m.AttachRefused(call.id)))

    def _say_opened(self, call: Call) -> None:
        call.resumed = False
        call.inbound.pause()
        self._batches.forget(call)
        if call.adapter is not None:
            position = None if call.playout is None else call.playout.acknowledged
            lost = call.unplayed_before
            opened = m.Opened(call.id, call.generation, call.ordinal, position, lost)
            self._batches.instructions.append((call.adapter, opened))

    def _stream_ended(self, peer: bytes, ended: m.StreamEnded, now: int) -> None:
        joined = self._joined(peer, ended.call, ended.generation)
        if joined is not None:
            self._none_late(joined, ended.ordinal)
            return
        call = self._from_gateway(peer, ended.call, ended.generation)
        if call is None:
            return
        call.stream_ended(ended, now)
        call.inbound.end_stream()
        self._batches.heard[call.id] = call
        if call.resumed:
            self._batches.tell_acknowledged()  # a client gets these before the stream's end
            self._tell_unplayed(call)

    def _joined(self, peer: bytes, call_id: str, generation: int) -> Call | None:
        """The call, if this generation is of an earlier stream, at this gateway, that its present
        one joins."""
        call = self.calls.get(call_id)
        at = (peer, generation)
        return None if call is None or at not in call.before.values() else call

    def _none_late(self, call: Call, ordinal: int) -> None:
        """This stream, which the call's present one joins, brings no more sound."""
        call.before.pop(ordinal, None)
        call.inbound.none_late(ordinal)
        self._hand_out_soon(call)

    def _tell_unplayed(self, call: Call) -> None:
        self._batches.tell_loss(call, call.unplayed, UNPLAYED)
        call.unplayed = 0

    def _close(self, peer: bytes, close: m.CloseCall) -> None:
        call = self.calls.get(close.call)
        if call is None or close.generation < call.generation:
            self.dropped["unknown-call" if call is None else "generation"] += 1
            return
        if call.gateway != peer:
            self.dropped["not-its-gateway"] += 1
            return
        self._batches.hand_out([call])
        self._forget(call, max(close.generation, call.generation))

    def _forget(self, call: Call, generation: int) -> None:
        del self.calls[call.id]
        self._batches.forget(call)
        # A call that moved away comes back under a newer generation than the one it left with.
        self._closed[call.id] = generation
        while len(self._closed) > _TOMBSTONES:
            del self._closed[next(iter(self._closed))]

    # ------------------------------------------------------------------ from a gateway: sound

    def _in_frames(self, peer: bytes, frames: list[m.InFrame], now: int) -> None:
        calls, heard, read_at = self.calls, self._batches.heard, self._read_at
        gateway = self._gateways.get(peer, peer)
        others: dict[tuple[str, int], list[m.InFrame]] = {}
        for frame in frames:
            call = calls.get(frame.call)
            if call is None or call.generation != frame.generation or call.gateway is not gateway:
                others.setdefault((frame.call, frame.generation), []).append(frame)
                continue
            call.frames_in += -(-len(frame.payload) // FRAME)
            if read_at > call.gateway_heard:
                call.gateway_heard = read_at
            fresh = InboundFrame(now, frame.ordinal, frame.position, frame.payload)
            if call.inbound.add(fresh):
                heard[frame.call] = call
        for (call_id, generation), found in others.items():
            self._late_frames(peer, call_id, generation, found, now)

    def _late_frames(
        self, peer: bytes, call_id: str, generation: int, frames: list[m.InFrame], now: int
    ) -> None:
        """Frames that are not of a present stream. They may be of a stream that a present one
        joins."""
        call = self._joined(peer, call_id, generation)
        if call is None or not call.inbound.awaits(frames[0].ordinal):
            for _ in frames:
                self._from_gateway(peer, call_id, generation)  # counts why
            return
        call.frames_in += sum(-(-len(frame.payload) // FRAME) for frame in frames)
        call.inbound.add_late(
            [InboundFrame(now, frame.ordinal, frame.position, frame.payload) for frame in frames]
        )
        self._hand_out_soon(call)

    def _all_written(self, peer: bytes, inbound: m.Inbound, now: int) -> None:
        calls, acknowledged, read_at = self.calls, self._batches.acknowledged, self._read_at
        gateway = self._gateways.get(peer, peer)
        # The gateway said this between our last empty look at the socket and now. If its clock is
        # ours, it knows the time exactly.
        since, until = read_at, now
        if inbound.at is not None and read_at <= (at := int(inbound.at * 1e9)) <= now:
            since = until = at
        for written in inbound.written:
            call = calls.get(written.call)
            if call is None or call.generation != written.generation or call.gateway is not gateway:
                self._from_gateway(peer, written.call, written.generation)  # counts why
                continue
            playout, position = call.playout, written.position
            if playout is None:
                continue
            if read_at > call.gateway_heard:
                call.gateway_heard = read_at
            if position > playout.position:
                self.dropped["written-ahead"] += 1
                if playout.frozen:
                    continue
                # The gateway is right. Sound before its position was written under another
                # generation.
                call.go_on(position)
            elif not playout.acknowledge(position, until, since, written.ahead):
                continue
            if call.resumed:
                acknowledged[call.id] = call

    def _mark_reached(self, peer: bytes, reached: m.MarkReached) -> None:
        call = self._from_gateway(peer, reached.call, reached.generation)
        if call is None or call.playout is None:
            return
        if not call.playout.mark_returned(reached.name):
            self.dropped["unknown-mark"] += 1
        elif call.adapter is not None:
            told = m.MarkPlayed(call.id, call.generation, reached.name, True)
            self._batches.instructions.append((call.adapter, told))

    def _digit(self, peer: bytes, digit: m.Digit) -> None:
        call = self._joined(peer, digit.call, digit.generation)
        call = call or self._from_gateway(peer, digit.call, digit.generation)
        if call is None:
            return
        call.digits.append(digit.digit)
        if call.resumed and call.adapter is not None:
            self._batches.hand_out([call])  # a digit has its time by the sound before it
            told = m.DigitHeard(call.id, call.generation, digit.digit)
            self._batches.instructions.append((call.adapter, told))

    # ------------------------------------------------------------------ from a client

    def _attach(self, peer: bytes, attach: m.Attach) -> None:
        call = self.calls.get(attach.call)
        self._forget_attach(peer, attach.call)
        if self._attaches[peer] >= MOST_ATTACHED:
            self.dropped["too-many-attaches"] += 1
            return
        self.peers.setdefault(peer, "adapter")
        self._attaches[peer] += 1
        self._attached.setdefault(attach.call, {})[peer] = attach.secret  # the newest comes last
        if call is not None:
            before = call.adapter
            self._choose_adapter(call)
            if call.adapter == peer or call.adapter != before:
                self._say_opened(call)

    def _detach(self, peer: bytes, call_id: str) -> None:
        self._forget_attach(peer, call_id)
        call = self.calls.get(call_id)
        if call is not None and call.adapter == peer:
            call.left = True
            self._lose_adapter(call)

    def _forget_attach(self, peer: bytes, call_id: str) -> None:
        attached = self._attached.get(call_id, {})
        if attached.pop(peer, None) is not None:
            self._attaches[peer] -= 1
            if not attached:
                del self._attached[call_id]

    def _lose_adapter(self, call: Call) -> None:
        """The client's connection is gone, or has left the call. The client may be back already, on
        another connection whose Attach was read first."""
        call.resumed = False
        call.inbound.pause()
        self._batches.forget(call)
        self._choose_adapter(call)
        if call.adapter is not None:
            self._say_opened(call)

    def _resume(self, peer: bytes, resume: m.Resume, now: int) -> None:
        call = self._current(resume.call, resume.generation)
        if call is None or call.adapter != peer:
            self.dropped["not-attached"] += call is not None
            return
        if call.playout is None:
            call.playout = self._playout(call, max(resume.acknowledged, resume.floor))
            if call.mute:
                call.playout.freeze(now)
        floor = resume.floor
        unseen = resume.interrupt > call.playout.serial and floor > call.playout.position
        if unseen and resume.acknowledged <= floor:
            # The worker that had the call may have died before it sent the Clear, so the gateway
            # may not have cleared. Once sound behind the floor is acknowledged, it has.
            self._carry_out_interrupt(call, resume.interrupt, floor, now)
        elif resume.acknowledged > call.playout.acknowledged:
            # Our own knowledge is old: other workers had the call meanwhile.
            call.go_on(resume.acknowledged)
            if call.mute:
                call.playout.freeze(now)
        call.playout.serial = max(call.playout.serial, resume.interrupt)
        call.resumed = True
        call.resumed_at = resume.acknowledged
        call.unplayed_before = 0
        self._tell_unplayed(call)
        idle_ns = int(resume.idle * 1e9) if 0 <= resume.idle < _LONGEST_IDLE else 0
        # ``idle`` counts up to when the Resume was sent, and the Resume may have waited while we
        # stood still. It was sent after our last empty look at the socket. Count from that look, so
        # that a loss is counted too long rather than too short.
        sent = self._read_at
        if call.is_unopened(resume.ordinal):  # another worker had that stream
            self._none_late(call, resume.ordinal)
        call.inbound.remember(resume.ordinal, resume.position, resume.heard, sent - idle_ns)
        call.inbound.resume(resume.ordinal, resume.position, resume.call_position, idle_ns, sent)
        for digit in call.digits:
            self._batches.instructions.append((peer, m.DigitHeard(call.id, call.generation, digit)))
        if call.ended is not None:
            call.tell_end = True
            call.inbound.end_stream()
        self._batches.heard[call.id] = call
        self._batches.acknowledged[call.id] = call
        if call.waiting:
            self._batches.speaking[call.id] = call

    def _gather(self, peer: bytes, gather: m.Gather) -> None:
        call = self._from_adapter(peer, gather.call, gather.generation)
        if call is not None:
            call.inbound.gathers = gather.samples
            self._hand_out_soon(call)

    def _hand_out_soon(self, call: Call) -> None:
        """Hand out with the next ``work`` whatever sound of the call waits to make up a piece."""
        if call.resumed:
            self._batches.heard[call.id] = call

    def _speak(self, peer: bytes, speak: m.Speak) -> None:
        call = self._from_adapter(peer, speak.call, speak.generation)
        if call is None:
            return
        if len(speak.pcm) % POSITION_BYTES:
            self.dropped["speech-length"] += 1
            self.complaints.append(
                f"call {call.id}: speech of {len(speak.pcm)} bytes, not a multiple of 3 samples"
            )
            return
        if not call.speak(speak.position, speak.pcm):
            self.dropped["speech-gap"] += 1
            self.complaints.append(
                f"call {call.id}: speech at {speak.position} leaves a gap, {call.spoken_to} is next"
            )
            call.gaps += 1
            if call.gaps <= _MOST_GAPS:
                self._say_opened(call)
            return
        call.gaps = 0
        if call.waiting:
            self._batches.speaking[call.id] = call
        else:
            self._batches.acknowledged[call.id] = call

    def _interrupt(self, peer: bytes, interrupt: m.Interrupt, now: int) -> None:
        call = self._from_adapter(peer, interrupt.call, interrupt.generation)
        if call is None:
            return
        assert call.playout is not None
        playout = call.playout
        if interrupt.serial > playout.serial and not self._carry_out_interrupt(
            call, interrupt.serial, interrupt.resume_at, now
        ):
            return
        last = playout.last_interruption
        if last is not None and last.serial == interrupt.serial:
            sent_to = last.sent_to
        else:  # another worker did it, and told the gateway where sound goes on
            sent_to = min(call.resumed_at, interrupt.resume_at)
        done = m.Interrupted(call.id, call.generation, interrupt.serial, sent_to)
        self._batches.instructions.append((peer, done))

    def _carry_out_interrupt(self, call: Call, serial: int, resume_at: int, now: int) -> bool:
        assert call.playout is not None
        assert call.adapter is not None
        try:
            done = call.playout.interrupt(serial, resume_at, now)
        except PlayoutError as error:
            self.dropped["interrupt"] += 1
            self.complaints.append(f"call {call.id}: {error}")
            return False
        assert done is not None
        call.forget_speech()
        self._batches.speaking.pop(call.id, None)
        if call.gateway is not None and not call.playout.frozen:
            clear = m.Clear(call.id, call.generation, done.next_position, done.playback)
            self._batches.instructions.append((call.gateway, clear))
        for name in done.unplayed_marks:
            told = m.MarkPlayed(call.id, call.generation, name, False)
            self._batches.instructions.append((call.adapter, told))
        return True

    def _set_mark(self, peer: bytes, mark: m.SetMark) -> None:
        call = self._from_adapter(peer, mark.call, mark.generation)
        if call is not None:
            assert call.playout is not None
            call.playout.mark(mark.name, mark.position)

    # ------------------------------------------------------------------ the sound of all calls

    def work(self, now: int, until: int) -> bool:
        """Do what the messages at hand brought: encode, start playing, decode, report. True: more
        speech is to be encoded, so call this again soon."""
        if self._batches.speaking:
            self._batches.encode(now, until)
        if self._batches.heard or self._batches.acknowledged:
            self._batches.report()
        return bool(self._batches.speaking)

    @property
    def ended_at(self) -> int:
        """When a call last ran out of sound. Its speaker may be waiting for the acknowledgement
        before it says the next 20 ms, so it has to be answered soon."""
        return self._batches.ended_at

    def choose_pairs(self, now: int) -> None:
        """Tell gateways to begin or to stop sending what came in 40 ms together: see
        :mod:`.pairs`."""
        told = self.pairs.choose(self.calls.values(), now - self.ended_at)
        self._batches.instructions += told

    def tick(self, now: int, until: int, together: int = TOGETHER) -> None:
        """Send the frames of all calls that are due before ``until``, up to ``together`` of them in
        a message. Ticks that send pairs are 40 ms apart for all calls alike, and a call that has
        sent a pair has nothing due in the tick between. So most of those ticks send nothing, and
        gateways are woken half as often."""
        self._batches.pace(self.calls.values(), now, until, together)
        for call_id, error in self._batches.take_broken():
            self.broken.append(error)
            call = self.calls.get(call_id)
            if call is None:
                continue  # it was closed meanwhile, and nobody waits for its sound
            if call.gateway is not None:
                refused = m.OpenRefused(call.id, call.generation, "its sound cannot be worked on")
                self._batches.instructions.append((call.gateway, refused))
            self._forget(call, call.generation)

    def beat(self, now: int) -> None:
        """To be called each 100 ms. Send a Tick to every peer that got no other message since the
        last beat, so that it knows that this loop is alive."""
        self._ticks += 1
        tick = m.Tick(self.worker, self._ticks)
        told, self._told = self._told, set()
        self._batches.instructions.extend((peer, tick) for peer in self.peers if peer not in told)
        for call in list(self.calls.values()):
            if call.inbound.overdue():
                self._hand_out_soon(call)
            since = call.streamless_since
            if since is not None and (call.left or now - since > FORGET_NS):
                self._forget(call, call.generation)

    @property
    def at_rest(self) -> bool:
        """Nobody is connected, there is no call, and nothing is left to be logged."""
        return not (self.peers or self.calls or self.complaints or self.draining)

    def stats(self, now: int) -> list[m.CallStats]:
        """The counters of all calls."""
        return [call.stats(now) for call in self.calls.values()]


def _same(secret: str, other: str) -> bool:
    return hmac.compare_digest(secret.encode(), other.encode())


def _ring(frames: list[m.InFrame], now: int) -> list[InboundFrame]:
    """The gateway's ring, as if its last frame had come now and the others evenly before it."""
    if not frames:
        return []
    end = frames[-1].position + len(frames[-1].payload)
    return [
        InboundFrame(
            now - (end - f.position - len(f.payload)) * SAMPLE_NS, f.ordinal, f.position, f.payload
        )
        for f in frames
    ]
