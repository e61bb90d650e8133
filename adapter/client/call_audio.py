"""One call's sound at the client, without I/O: follow the active worker, lose and double nothing.

Rules:

- The client is attached to every worker of the call's placement. The worker that says ``Opened``
  with the highest generation is the active one, and messages of the others are dropped. ``Opened``
  is answered by ``Resume`` (how far we have heard, how far we were acknowledged, the floor, the
  last interrupt). Then come the marks that are not done, and the sound that is not acknowledged,
  earliest first.
- Sound is passed on once: everything below the call time heard so far is cut off. Sound that never
  arrived is counted.
- The sound in the carrier's buffer is lost when a stream breaks. The worker that had the stream to
  its end says how much that was. If that worker is dead, stopped or leaves, another worker takes
  the next stream, and does not know how much was lost. Then the loss is counted here, from the
  acknowledgements that came. The old worker may have sent more sound after the last
  acknowledgement. That sound is not said again and counts as lost, because nobody knows for how
  long the carrier played on. But a worker that has reported the stream's end has reported all of
  its loss. Then the same loss is not counted again when another worker reports it.
- A client that did not run for a while (:meth:`CallAudio.stalled`) reads the messages of all its
  workers at once, in any order. If a worker died meanwhile, the messages that did not fit into its
  connection are gone. So each acknowledgement is taken to have come when its sound was played, and
  all messages of the old worker are read before another takes the call over.
- Digits are passed on once by (ordinal, index).
- When the call has ended, sound may still be on its way. The client waits for it until
  ``StreamOver`` of the newest stream comes, :data:`DRAIN_SECONDS` at most. Unless that message says
  that the stream ended with the call, the time from the last sound to the call's end counts as
  lost.

Every method takes ``now`` and collects its instructions; :meth:`CallAudio.take_instructions` hands
them out. The far end's sound alone is returned at once, by :meth:`CallAudio.heard`, because it
comes 50 times a second for each call.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trunkline.bus import messages as m
from trunkline.bus.sound import (
    FRAME,
    IN_DOUBT,
    NEVER_ARRIVED,
    POSITION_BYTES,
    TOGETHER,
    UNPLAYED,
    WIRE_RATE,
)

from .call_instructions import (
    Ended,
    HeardDigit,
    Instruction,
    InterruptDone,
    MarkDone,
    Send,
    Spoken,
)
from .outbound import Outbound, Utterance

if TYPE_CHECKING:
    from .call_tape import CallTape

#: After the call's end the client waits this long (seconds) for sound that is still on its way.
DRAIN_SECONDS = 1.0
#: A call's end cuts off the frame that the far end is saying, which lasts this long (seconds).
CUT_OFF_AT_THE_END = 0.02
#: A gateway reads its sockets by a clock: a frame may have waited there this long (seconds), and
#: twice as long where the sound is taken in large pieces.
READ_EVERY = 0.02
#: A worker has this long (seconds) to say how much was sent before an interrupt.
INTERRUPTED_WITHIN = 0.25
#: An acknowledgement, or sound of the far end, takes at most this long (seconds) from the carrier's
#: socket to here, on a machine that keeps up.
ACKNOWLEDGED_WITHIN = 0.04
#: A worker sends at most this much sound (seconds) to the gateway without an acknowledgement.
MOST_IN_DOUBT = 0.16
#: A worker is told the last sound that was heard: these many pieces, these many samples at most.
LAST_PIECES = 25
LAST_HEARD = WIRE_RATE // 2
#: At most this much sound (seconds) is assumed to lie unplayed at the carrier, unless more was seen
#: there: the stack's default lead (60 ms), and one message.
LEAD_AND_MESSAGE = 0.06 + TOGETHER * 0.02


@dataclass
class Lost:
    """Samples at 8 kHz that were lost, by direction, and why (reason -> samples)."""

    inbound: int = 0
    outbound: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, direction: m.Direction, samples: int, why: str) -> None:
        if direction == "inbound":
            self.inbound += samples
        else:
            self.outbound += samples
        self.reasons[why] = self.reasons.get(why, 0) + samples


def new_tape() -> CallTape:
    """A tape for a call that a report may be asked of."""
    from .call_tape import CallTape  # numpy: Line.open has imported it

    return CallTape()


class CallAudio:
    """The state of one call's sound. Workers are named by their id. ``began``: when the call's
    first stream came up. ``first``: the ordinal of the first stream, which may be gone already when
    the client hears of the call. ``taped``: all that is said is kept."""

    # Python keeps more than 30 attributes in a dict of the object's own, which costs 1 to 2 µs for
    # each frame where caches are cold.
    __slots__ = (
        "_acknowledged_at", "_codes", "_digits", "_drain_until", "_ended", "_ended_at", "_first",
        "_heard_at", "_heard_ordinal", "_heard_stream_end", "_hung_up_at", "_instructions",
        "_interrupt_asked", "_last_active", "_late", "_marks", "_most_ahead", "_over",
        "_plays_until", "_sent_by_then", "_stall", "_stream_began", "_stream_gone",
        "_stream_gone_at", "_unsent", "_worker_gone_at", "active", "call", "finished",
        "gathers", "generation", "heard_samples", "heard_to", "lost", "out", "tape",
    )  # fmt: skip

    def __init__(self, call: str, began: float, first: int = 1, *, taped: bool = True) -> None:
        self.call = call
        self._first = max(1, first)
        self.out = Outbound()
        self.lost = Lost()
        #: by worker: how late our sound came, as its last StreamOver says (samples at 8 kHz)
        self._late: dict[str, int] = {}
        #: all that both sides have said; None: it is not kept
        self.tape = new_tape() if taped else None
        #: newest generation seen; -1: no generation yet
        self.generation = -1
        #: the worker that has the call; None: we know of no such worker
        self.active: str | None = None
        #: the worker that has, or last had, the call
        self._last_active: str | None = None
        #: call time up to which sound was heard
        self.heard_to = 0
        #: pieces of the far end's sound are to have at least this many samples; 0: as sound comes
        self.gathers = 0
        #: samples at 8 kHz that were heard
        self.heard_samples = 0
        self._heard_ordinal = 0
        self._heard_stream_end = 0
        #: the mu-law of the last pieces that were heard, without a gap between them
        self._codes: deque[bytes] = deque(maxlen=LAST_PIECES)
        self._heard_at = began
        #: a time at which the newest stream had begun for certain
        self._stream_began = began
        #: when the carrier will have played all that was acknowledged, as the acknowledgements show
        self._plays_until = 0.0
        self._acknowledged_at = 0.0
        #: the most sound that was seen to lie unplayed at the carrier (seconds)
        self._most_ahead = LEAD_AND_MESSAGE
        #: (since, until): the client did not run since ``since``, and has caught up at ``until``;
        #: None once acknowledgements come in time again
        self._stall: tuple[float, float] | None = None
        #: since when the worker, and the stream, are known to be gone; None: still there
        self._worker_gone_at: float | None = None
        self._stream_gone_at: float | None = None
        #: the ordinal of the stream that was lost last; 0: no stream was
        self._stream_gone = 0
        #: position up to which sound had been sent to a worker when that stream was lost
        self._sent_by_then = 0
        self._digits: set[tuple[int, int]] = set()
        self._marks: dict[str, int] = {}
        #: the StreamOver of the newest stream that has ended
        self._over: m.StreamOver | None = None
        self._interrupt_asked: float | None = None
        self._ended: m.EndedReason | None = None
        self._ended_at = 0.0
        #: a time at which the carrier had taken our hang-up for certain
        self._hung_up_at = math.inf
        self._drain_until: float | None = None
        #: True once ``Ended`` was given out
        self.finished = False
        #: a piece of sound could not be sent
        self._unsent = False
        self._instructions: list[Instruction] = []

    def take_instructions(self) -> list[Instruction]:
        """The instructions since the last time, in order."""
        instructions = self._instructions
        if instructions:
            self._instructions = []
        return instructions

    # ------------------------------------------------------------------ what the user does

    def say(self, pcm: bytes, now: float) -> Utterance:
        """Queue ``pcm`` (PCM16 24 kHz, an even number of bytes) behind the sound that is queued."""
        utterance = self.out.say(pcm, now)
        if utterance.sent is not None:
            self._instructions.append(Spoken(utterance))
        elif self.finished or self._ended is not None:
            self._spoken(self.out.end_all())
        else:
            self._pump()
        return utterance

    def give_up(self, utterance: Utterance, now: float) -> None:
        """The sender of ``utterance`` is gone: the rest of it is not sent any more."""
        if self.out.give_up(utterance):
            self._cut_given_up(now)
        self._pump()

    def put_barrier(self) -> int:
        """Sound that is queued from now on waits until ``take_barrier``."""
        return self.out.put_barrier()

    def take_barrier(self, barrier: int) -> None:
        self.out.take_barrier(barrier)
        self._pump()

    def interrupt(self, now: float) -> int:
        """Drop the queue and the carrier's buffer; returns the interrupt's serial."""
        self._spoken(self.out.interrupt())
        self._ask_interrupt(now)
        return self.out.serial

    def gather(self, samples: int) -> None:
        """Let the far end's sound come in pieces of at least ``samples``; 0: as it comes."""
        if samples != self.gathers:
            self.gathers = samples
            if self.active is not None and self._ended is None:
                self._send_gather()

    def set_mark(self, name: str) -> None:
        """Ask to be told (``MarkDone``) when all that is queued now has been played."""
        out = self.out
        queued = sum(u.length for u in out.utterances if u.start is None and not out.waits(u))
        self._marks[name] = self.out.end + queued
        self._send_mark(name)

    # ------------------------------------------------------------------ what the workers say

    def opened(self, worker: str, message: m.Opened, now: float) -> None:
        if message.generation < self.generation or self.finished:
            return
        if message.ordinal > max(self._first, self.generation >> 16):
            self._new_stream(worker, message, now)
            self._stream_began = now
        elif message.out_next is not None:
            # The worker before may have died with this acknowledgement, unsent.
            self._acknowledged(message.out_next, now)
        self._worker_gone_at = None
        if message.ordinal > self._stream_gone:
            self._stream_gone_at = None
        self.generation = message.generation
        self.active = self._last_active = worker
        self._spoken(self.out.resume(message.out_next, now))
        self._send(
            m.Resume(
                call=self.call,
                generation=self.generation,
                ordinal=self._heard_ordinal,
                position=self._heard_stream_end,
                call_position=self.heard_to,
                idle=self._idle(message.ordinal, now),
                acknowledged=self.out.acknowledged,
                floor=self.out.floor,
                interrupt=self.out.serial,
                heard=b"".join(self._codes)[-LAST_HEARD:],
            )
        )
        if self.gathers:
            self._send_gather()
        # The Resume tells of the interrupt, and out_next how much had been sent before it.
        self._interrupt_done(self.out.serial, None)
        for name in self._marks:
            self._send_mark(name)
        self._pump()

    def _idle(self, ordinal: int, now: float) -> float:
        """For how many seconds nothing was heard; 0.0 on a first stream that has brought nothing
        yet. On a later stream the time counts even if nothing ever was heard, because the earlier
        streams were lost before any worker had them."""
        return (
            max(0.0, now - self._heard_at) if self._heard_ordinal or ordinal > self._first else 0.0
        )

    def heard(self, worker: str, sound: m.Sound, now: float) -> bytes:
        """Returns the sound to pass on: PCM16 24 kHz, b"" where all of it was heard before."""
        if not self._current(worker, sound.generation):
            return b""
        pcm, codes, heard_to = sound.pcm, sound.codes, self.heard_to
        stop = sound.position + -(-len(pcm) // POSITION_BYTES)
        if sound.position != heard_to or sound.lost:
            known = heard_to - sound.position
            if known > 0:
                pcm, codes = pcm[known * POSITION_BYTES :], codes[known:]
            missing = max(-known, sound.lost if known <= 0 else 0)
            if missing > 0:
                self.lost.add("inbound", missing, NEVER_ARRIVED)
                self._codes.clear()
        self._heard_at = self._said_at(sound, stop - heard_to, now)
        if stop > heard_to:
            self.heard_to = stop
        elif (sound.ordinal, sound.stream_end) <= (self._heard_ordinal, self._heard_stream_end):
            return b""
        self._heard_ordinal = sound.ordinal
        self._heard_stream_end = sound.stream_end
        if pcm:
            self.heard_samples += len(pcm) // POSITION_BYTES
            if codes:
                self._codes.append(codes)
            else:
                self._codes.clear()
            if self.tape is not None and codes:
                self.tape.heard(self.heard_to - len(codes), codes, now)
        return pcm

    def _said_at(self, sound: m.Sound, fresh: int, now: float) -> float:
        """The latest time at which the end of ``sound`` can have been said; ``fresh`` positions of
        it are new. The sound may have waited for a worker that did not run, or may come late from a
        stream that is over. But it was said at its own rate, from the stream's beginning on, and
        before the stream was gone."""
        if sound.ordinal < self.generation >> 16:
            return min(now, self._heard_at + max(0, fresh) / WIRE_RATE)
        lasted = sound.stream_end / WIRE_RATE
        if now - lasted < self._stream_began:
            self._stream_began = now - lasted
        said = self._stream_began + lasted
        return said if self._stream_gone_at is None else min(said, self._stream_gone_at)

    def stalled(self, since: float, until: float) -> None:
        """The client has not run since ``since``: messages read before ``until`` had to wait."""
        self._stall = (since, until)

    def may_overtake(self, worker: str, message: object, now: float) -> bool:
        """Another worker had the call, and its last messages may not have been read yet: hold this
        message back, and those behind it, until the client has caught up."""
        if self._late_since(now) is None or self.active in (None, worker) or self.finished:
            return False
        return not isinstance(message, m.Opened) or message.generation > self.generation

    def _late_since(self, now: float) -> float | None:
        """Since when a message that is read now may have waited; None: it came in time."""
        return self._stall[0] if self._stall is not None and now < self._stall[1] else None

    def acknowledge(self, worker: str, message: m.AcknowledgedTo, now: float) -> bool:
        """A worker says how far our sound was written. True: there may be instructions."""
        if not self._current(worker, message.generation):
            return False
        self._acknowledged(message.position, now)
        if self.out.moves_on(message.position, message.idle):
            return False
        self._spoken(self.out.acknowledge(message.position, message.idle, now))
        self._cut_given_up(now)
        self._pump()
        return True

    def _acknowledged(self, position: int, now: float) -> None:
        """Sound up to ``position`` was written: note until when the carrier plays it. Sound below
        the floor was interrupted, and is not played."""
        out = self.out
        first = out.acknowledged if out.acknowledged > out.floor else out.floor
        if position <= first:
            return
        fresh = (position - first) / WIRE_RATE
        since = None if self._stall is None else self._late_since(now)
        if since is not None:
            came = min(now, max(self._acknowledged_at, since) + fresh)
            ahead = min(max(self._plays_until - came, 0.0) + fresh, self._most_ahead)
        else:
            self._stall = None
            came = now
            ahead = self._plays_until - came
            ahead = fresh + ahead if ahead > 0.0 else fresh
            if ahead > self._most_ahead:
                self._most_ahead = ahead
        if self.tape is not None:
            self.tape.said(came + ahead - fresh, first, position)
        self._plays_until = came + ahead
        self._acknowledged_at = came

    def interrupted(self, worker: str, message: m.Interrupted, now: float) -> None:
        if not self._current(worker, message.generation):
            return
        self._plays_until = 0.0
        if self.tape is not None:
            self.tape.cut(now)
        self._interrupt_done(message.serial, message.sent_to)
        self._cut_given_up(now)
        self._pump()

    def mark_played(self, worker: str, message: m.MarkPlayed) -> None:
        if self._current(worker, message.generation) and message.name in self._marks:
            del self._marks[message.name]
            self._instructions.append(MarkDone(message.name, message.played))

    def digit_heard(self, worker: str, message: m.DigitHeard) -> None:
        if not self._current(worker, message.generation):
            return
        key = (message.digit.ordinal, message.digit.index)
        if key not in self._digits:
            self._digits.add(key)
            self._instructions.append(HeardDigit(message.digit.digit))
            if self.tape is not None:
                self.tape.key(self.heard_to / WIRE_RATE, message.digit.digit, ours=False)

    def loss(self, worker: str, message: m.Loss) -> None:
        # Workers tell outbound loss alone. Inbound loss stands in each Sound, and is counted there.
        if self._current(worker, message.generation) and message.direction == "outbound":
            if message.why == UNPLAYED:
                if self._last_word() is not None:
                    return  # The worker that had this stream before has reported the same loss.
                self._plays_until = 0.0  # the sound that lay at the carrier is counted now
            self.lost.add("outbound", message.samples, message.why)

    def stream_over(self, worker: str, message: m.StreamOver, now: float) -> None:
        if not self._current(worker, message.generation):
            return
        self._over = message
        self._late[worker] = message.late
        self._finish_if_drained(now)

    def worker_lost(self, worker: str, now: float) -> None:
        """The connection to ``worker`` is gone; another ``Opened`` follows if the call lives."""
        if self.active == worker:
            self.active = None
            if self._worker_gone_at is None:
                self._worker_gone_at = now

    @property
    def late(self) -> int:
        """How many samples (8 kHz) long the far end has waited within our utterances, in the
        streams that are over."""
        return sum(self._late.values())

    @property
    def stream_gone_at(self) -> float | None:
        """Since when the call has no stream (it may get another); None while it has one."""
        return self._stream_gone_at

    def stream_gone(self, ordinal: int, now: float) -> None:
        """The controller says that the call has lost this stream. The call may come back by a new
        stream, which a worker may have opened already if this message was read late."""
        if self._stream_gone_at is None and ordinal >= self.generation >> 16:
            self._stream_gone_at, self._stream_gone = now, ordinal
            self._sent_by_then = self.out.next

    def stream_there(self, ordinal: int) -> None:
        """The controller says that the call has this stream. If it had said that the stream was
        gone, the stream's gateway had stood still."""
        if ordinal == self._stream_gone:
            self._stream_gone_at = None

    def _new_stream(self, worker: str, opened: m.Opened, now: float) -> None:
        """Count what was lost with the former stream, once.

        If a worker has reported that stream's end, its loss is counted already. Otherwise a worker
        that had the stream, and takes the next one as well, says what was lost. If there is no such
        worker, count the sound that lay at the carrier when the old stream brought its last sign of
        life: an acknowledgement, or sound of the far end. The time at which the controller reports
        the stream's loss is no measure of that, because a controller that stood still reports it
        late. Skip sound that may have been played without being acknowledged.

        The new worker may have had the call before. Then it continues after the last sound it had
        sent, and the sound that it skips is lost too. Only the worker that says what was lost has
        counted that sound."""
        goes_on_at = -1 if opened.out_next is None else opened.out_next
        knows = worker == self._last_active and goes_on_at >= self.out.acknowledged
        if self._last_word() is not None:
            self._pass_over(goes_on_at, now)
        elif knows:
            self._lose_unplayed(opened.unplayed)
        else:
            broke = self._acknowledged_at
            if self._stall is None:  # after a stall the time of that acknowledgement is uncertain
                broke = max(broke, self._heard_at - self._longest_way)
            self._lose_unplayed(round((self._plays_until - broke) * WIRE_RATE))
            self._pass_over(max(goes_on_at, self._may_have_played(now)), now)
        self._plays_until = 0.0

    def _lose_unplayed(self, samples: int) -> None:
        if samples > 0:
            self.lost.add("outbound", samples, UNPLAYED)

    @property
    def _longest_way(self) -> float:
        """How long an acknowledgement, or sound, may take from the carrier's socket to here."""
        return ACKNOWLEDGED_WITHIN + (READ_EVERY if self.gathers else 0.0)

    def _may_have_played(self, now: float) -> int:
        """The furthest position that the carrier can have reached when acknowledgements ended."""
        # A worker that is stopped, or leaves, may have had the stream to its end.
        gone = [at for at in (self._worker_gone_at, self._stream_gone_at) if at is not None]
        until = min(gone, default=now) + self._longest_way
        most = MOST_IN_DOUBT
        filled_up = 0.0
        if self._stall is None:
            # If less than usual lay at the carrier, the worker may have filled it up in one go.
            lay_there = max(0.0, self._plays_until - self._acknowledged_at)
            filled_up = max(0.0, self._most_ahead - lay_there)
        elif self._worker_gone_at is not None:
            # The worker may have gone on while nothing was read here, and its messages are gone.
            most = max(most, until - self._stall[0])
        seconds = min(until - self._acknowledged_at + filled_up, most)
        first = max(self.out.acknowledged, self.out.floor)
        sent = self.out.next if self._stream_gone_at is None else self._sent_by_then
        return min(sent, first + -(-round(seconds * WIRE_RATE) // FRAME) * FRAME)

    def _pass_over(self, position: int, now: float) -> None:
        """Do not say sound below this position again: nobody knows whether it was played."""
        first = max(self.out.acknowledged, self.out.floor)
        if position > first:
            self.lost.add("outbound", position - first, IN_DOUBT)
            self._spoken(self.out.acknowledge(position, False, now))

    def unsent(self, message: m.ToWorker) -> None:
        """``message`` could not be sent. Sound in it is kept, and goes out at the next chance."""
        if isinstance(message, m.Speak):
            self.out.unsent(message.position)
            self._unsent = True

    # ------------------------------------------------------------------ the call's end, and time

    def hung_up(self, now: float) -> None:
        """The carrier has taken our hang-up. If the controller is killed right after that, the next
        controller has to find the call's end, which may take seconds."""
        self._hung_up_at = min(self._hung_up_at, now)

    def call_ended(self, reason: m.EndedReason, now: float, ago: float = 0.0) -> None:
        """The controller says that the call is over, since ``ago`` seconds."""
        if self._ended is not None:
            return
        self._ended = reason
        self._ended_at = min(now - ago, self._hung_up_at)
        self._drain_until = now + DRAIN_SECONDS
        self._spoken(self.out.end_all())
        self._interrupt_done(self.out.serial, None)
        for name in list(self._marks):
            del self._marks[name]
            self._instructions.append(MarkDone(name, False))
        if self.generation < 0:
            self._finish()
        else:
            self._finish_if_drained(now)

    def poll(self, now: float) -> None:
        """To be called every 50 to 100 ms: ends waits that took too long, sends what is unsent."""
        if self._interrupt_asked is not None and now - self._interrupt_asked >= INTERRUPTED_WITHIN:
            # The interrupt itself stays: a Resume repeats it. Only its senders wait no longer.
            self._interrupt_asked = None
            self._spoken(self.out.interrupted(self.out.serial))
            self._instructions.append(InterruptDone(self.out.serial))
        if self._drain_until is not None and now >= self._drain_until:
            self._finish()
        elif self._unsent:
            self._pump()

    # ------------------------------------------------------------------ inside

    def _current(self, worker: str, generation: int) -> bool:
        return worker == self.active and generation == self.generation and not self.finished

    def _send(self, message: m.ToWorker) -> None:
        assert self.active is not None
        self._instructions.append(Send(self.active, message))

    def _pump(self) -> None:
        if self.active is None or self._ended is not None:
            return
        self._unsent = False
        for position, pcm in self.out.pieces():
            if self.tape is not None:
                self.tape.spoken(position, pcm, begins=self.out.begins(position))
            self._send(m.Speak(self.call, self.generation, position, pcm))

    def _spoken(self, utterances: list[Utterance]) -> None:
        self._instructions.extend(Spoken(utterance) for utterance in utterances)

    def _send_mark(self, name: str) -> None:
        if self.active is not None:
            self._send(m.SetMark(self.call, self.generation, name, self._marks[name]))

    def _ask_interrupt(self, now: float) -> None:
        self._interrupt_asked = now
        for name in list(self._marks):
            del self._marks[name]
            self._instructions.append(MarkDone(name, False))
        if self.active is not None:
            self._send_interrupt()
        self._pump()

    def _send_gather(self) -> None:
        self._send(m.Gather(self.call, self.generation, self.gathers))

    def _send_interrupt(self) -> None:
        self._send(m.Interrupt(self.call, self.generation, self.out.serial, self.out.floor))

    def _cut_given_up(self, now: float) -> None:
        done = self.out.cut_given_up()
        if done is not None:
            self._spoken(done)
            self._ask_interrupt(now)

    def _interrupt_done(self, serial: int, sent_to: int | None) -> None:
        self._spoken(self.out.interrupted(serial, sent_to))
        if serial >= self.out.serial and self._interrupt_asked is not None:
            self._interrupt_asked = None
            self._instructions.append(InterruptDone(self.out.serial))

    def _finish_if_drained(self, now: float) -> None:
        if self._ended is not None and self._last_word() is not None:
            self._finish()

    def _last_word(self) -> m.StreamOver | None:
        """The StreamOver of the newest stream; None: it has not come."""
        over = self._over
        return over if over is not None and over.ordinal == self.generation >> 16 else None

    def _count_what_never_came(self) -> None:
        """The last stream broke before the call's end, or its gateway or worker stands still."""
        seconds = self._ended_at - self._heard_at
        if seconds > CUT_OFF_AT_THE_END:
            unread = 2 * READ_EVERY if self.gathers else READ_EVERY
            lost = round((seconds + unread) * WIRE_RATE)
            self.lost.add("inbound", lost, NEVER_ARRIVED)

    def _finish(self) -> None:
        if not self.finished:
            assert self._ended is not None
            over = self._last_word()
            if self.generation >= 0 and (over is None or over.reason != "stop"):
                self._count_what_never_came()
            self.finished = True
            self._drain_until = None
            self._instructions.append(Ended(self._ended))
