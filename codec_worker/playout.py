"""One call's outbound sound: when each frame is due, what an interrupt drops, what is lost. No I/O.

Positions are samples at 8 kHz, absolute over the whole call. Times are integer nanoseconds of one
monotonic clock and come in as ``now``. Methods return the instructions, or the losses to report.

The rules:

1. **Deadlines are absolute.** An utterance that begins at position p with ``t0`` has sample q
   played at ``t0 + (q - p) · 125 µs``. Nothing but rule 3 moves that timeline. A frame (20 ms) is
   sent ``lead`` before its playback time, so at the start of an utterance the lead goes out at
   once, and afterwards the carrier's buffer never holds less than the lead. If the caller asks for
   it (``together``), a frame that is due takes the next whole ones with it, in one message, because
   a message costs as much as the sound in it. Then the buffer holds that much more than the lead.
   While a mark waits, frames go singly, so that the mark comes no later than its place.
2. **A start waits a little for a live source.** When less than the lead is in hand, and nothing
   plays at the carrier, the start waits for more, but no longer than the lead. Otherwise a live
   source would run dry at every frame.
3. **Model of the carrier's buffer.** All sound that was sent has been played at the playback time
   of the next position. A tick that is late by less than the lead sends the frames that are due and
   keeps the timeline. If it is later than that, the buffer has run dry: the timeline moves by just
   that underrun, which is counted. The same holds for a gateway that is late. With each
   acknowledgement it says how much sound lies unplayed at the carrier. If that shows the carrier
   more than :data:`ACK_NS` behind the timeline, the buffer has run dry. A gateway that does not say
   how much may still acknowledge sound more than :data:`ACK_NS` after that sound should have been
   played. Then the buffer was dry when the sound was written. And no more than the lead and
   :data:`AHEAD_NS` is sent without being acknowledged. Otherwise a gateway that stood still would
   write all of it at once. The buffer would be that much deeper, and a broken stream or an
   interrupt would lose that much more.

   The gateway's clock may show when an acknowledgement was sent. If so, the timeline follows every
   acknowledgement that shows it to be too early or too late by more than :data:`WAY_NS`. A timeline
   that has settled is too early only if the buffer was dry for as long. Such short holes are
   counted together.

   Without that clock we know only that the acknowledgement was sent after our last empty look at
   the socket. Its time is uncertain by that interval, and the first acknowledgement after an
   underrun may have been on its way for longest. So acknowledgements of an uncertain time correct
   the timeline only for :data:`SETTLES_NS` after a start or an underrun.
4. **Starvation.** When less than a full frame is in hand at its send time, playout waits until
   20 ms before the buffer runs dry, so that the next chunk joins without a seam. Then it asks for
   the resampler's tail (:class:`FlushTail`) and sends the short rest. Speech that comes before the
   buffer is dry still joins; later speech begins a new timeline, and that is no underrun.
5. **Interrupt.** Unsent sound is dropped, sound that lies at the carrier is cleared, and the
   playback generation counts up: marks of an older one were not played. The next speech begins at
   ``resume_at``; only then may positions jump.
6. **No stream, no playout.** ``freeze`` reports the sound that lay unplayed at the carrier as lost.
   The gateway says how much that was, because it knows when it wrote. If it says nothing, use the
   acknowledgements. A frame is written at some time between its sending and the reading of its
   acknowledgement. The timeline of rule 1 counts from the sending, so it is up to :data:`ACK_NS`
   and a tick of the worker ahead of the carrier, and would count too little. So the loss is counted
   from the reading. ``open`` goes on from the last acknowledged position, because a gateway
   acknowledges all that it wrote before it says that a stream is over. A gateway that died has said
   neither. It may have written sound that it did not acknowledge, and the carrier may have played
   it. Playout skips that sound and counts it as lost, so that no sound is heard twice.
7. **Bounds.** At most :data:`CAPACITY` samples are held. Those beyond are lost: ``speak`` returns
   how many they are, and silence is played in their place, so that positions stay without holes.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from trunkline.bus.sound import FRAME, MOST_KEPT, WIRE_RATE

from .held import HeldSpeech
from .mulaw import SILENCE

SAMPLE_NS: Final = 125_000
FRAME_NS: Final = FRAME * SAMPLE_NS
DEFAULT_LEAD_NS: Final = 60_000_000
#: An acknowledgement takes at most this long from the carrier's socket to here, on a machine that
#: keeps up.
ACK_NS: Final = 20_000_000
#: A frame takes at most this long from here to the carrier's socket. A timeline that is in error by
#: less stays where it is. Otherwise a frame that fell due just behind a tick would go out a tick
#: earlier.
WAY_NS: Final = 5_000_000
#: Acknowledgements of an uncertain time may correct a timeline for this long after a start or
#: an underrun.
SETTLES_NS: Final = 200_000_000
#: This much sound beyond the lead may be on its way to a gateway.
AHEAD_NS: Final = 100_000_000
#: Most sound held for one call.
CAPACITY: Final = MOST_KEPT * WIRE_RATE


class PlayoutError(ValueError):
    """A peer asked for something that the rules forbid. The message names it. Nothing changed."""


class Frame(NamedTuple):
    """Send these bytes of mu-law now, in one message; they begin at ``position``. They are one
    frame, a part of a frame, or as many whole frames as the caller wants together."""

    position: int
    payload: bytes


class SendMark(NamedTuple):
    """Send a mark of this name now, after what was sent before."""

    name: str


class FlushTail(NamedTuple):
    """Give :meth:`Playout.flushed` what the resampler still holds, then ask ``due`` again."""


Instruction = Frame | SendMark | FlushTail


class Range(NamedTuple):
    """Positions ``start`` up to and without ``end``."""

    start: int
    end: int

    @property
    def samples(self) -> int:
        return self.end - self.start


class Interruption(NamedTuple):
    """The effect of an interrupt: tell the carrier ``clear``; ``next_position`` comes next.

    ``sent_to``: sound before it had been sent. ``cleared`` was sent but, by the model, not played
    yet; ``dropped`` was never sent. ``unplayed_marks``: marks set that will not be played.
    """

    serial: int
    sent_to: int
    cleared: Range
    dropped: Range
    next_position: int
    playback: int
    unplayed_marks: tuple[str, ...]


class Playout:
    """The outbound sound of one call, from ``next_position`` on.

    ``lead_ns``: how long before its playback a frame is sent, at least one frame. A start
    waits no longer than this for the lead to be in hand.
    ``playback``: the carrier's playback generation (clears sent so far).
    """

    # Without slots an object with more than 30 attributes keeps them in a dict of its own. That
    # costs 1 to 2 µs for each frame, because the caches are cold.
    __slots__ = (
        "_doubtful", "_frozen_at", "_gather_until", "_held", "_in_underrun", "_last", "_marks",
        "_may_jump", "_origin", "_over", "_plays_until", "_reached", "_sent_marks",
        "_settles_until", "_short_ns", "_window", "acknowledged", "end", "frames_out", "frozen",
        "lead_ns", "lost", "playback", "position", "serial", "tail", "underrun_ns", "underruns",
    )  # fmt: skip

    def __init__(
        self,
        next_position: int = 0,
        *,
        lead_ns: int = DEFAULT_LEAD_NS,
        playback: int = 0,
    ) -> None:
        if lead_ns < FRAME_NS:
            raise ValueError(f"a lead of {lead_ns} ns is less than a frame ({FRAME_NS} ns)")
        self.lead_ns = lead_ns
        self._window = (lead_ns + AHEAD_NS) // SAMPLE_NS
        #: the next position to send; acknowledged <= position <= end
        self.position = next_position
        #: everything before it was written to the carrier's socket; held sound begins here
        self.acknowledged = next_position
        #: the position that follows the last one spoken (held or lost)
        self.end = next_position
        #: samples that the resampler holds back beyond ``end``
        self.tail = 0
        self.playback = playback
        #: serial of the newest interrupt
        self.serial = 0
        self.frozen = False
        #: counters: frames sent; how often the buffer ran dry (short holes are counted together),
        #: and for how many nanoseconds in all; samples lost
        self.frames_out = 0
        self.underruns = 0
        self.underrun_ns = 0
        self.lost = 0
        self._held = HeldSpeech()
        self._may_jump = False  # an interrupt came and nothing was spoken since
        #: the timeline: when position 0 would be played; None: no utterance has begun
        self._origin: int | None = None
        #: until this time acknowledgements of an uncertain time may correct the timeline, too
        self._settles_until = 0
        #: that time follows an underrun, so a correction changes the underrun's length
        self._in_underrun = False
        self._short_ns = 0  # sum of the holes that were each too short to be an underrun
        self._over = True  # all that was spoken has been sent, so running dry is no underrun
        self._plays_until = 0  # when the carrier has played all that was acknowledged
        self._gather_until: int | None = None  # a start waits until this time for more sound
        self._frozen_at: int | None = None  # the acknowledged position when the stream was lost
        #: sound before this position may have been heard, though some of it was not acknowledged
        self._doubtful = 0
        self._marks: list[tuple[int, str]] = []  # set, not sent, by position
        #: marks sent in this playback generation and not returned, each with the position up to
        #: which sound had been sent before it
        self._sent_marks: dict[str, int] = {}
        self._reached = 0  # a returned mark shows that sound before this position was played
        self._last: Interruption | None = None

    # ------------------------------------------------------------------ speech in

    def speak(self, position: int, payload: bytes, tail: int = 0) -> int:
        """Append mu-law that begins at ``position``; returns the samples lost to the bound.

        Speech may be repeated: samples that are held already are ignored. ``tail``: the samples
        that the resampler holds back after ``payload``. Raises PlayoutError for a gap, which only
        an interrupt allows.
        """
        if position > self.end:
            if not self._may_jump:
                raise PlayoutError(f"speech at {position} leaves a gap: {self.end} is next")
            self._restart(position)
        skip = self.end - position
        if skip > len(payload) or (skip == len(payload) and payload):
            return 0
        self._may_jump = False
        self.tail = tail
        return self._append(payload[skip:] if skip else payload)

    def flushed(self, payload: bytes) -> int:
        """The resampler's tail, as FlushTail asked for; returns the samples lost to the bound."""
        self.tail = 0
        return self._append(payload)

    def _append(self, payload: bytes) -> int:
        kept = max(0, min(len(payload), CAPACITY - self._held.samples))
        if kept:
            self._held.append(self.end, payload if kept == len(payload) else payload[:kept])
        self.end += len(payload)
        self.lost += len(payload) - kept
        return len(payload) - kept

    @property
    def unsent(self) -> int:
        """Samples in hand that were not sent yet, without the resampler's tail."""
        return self.end - self.position

    def joins(self, now: int) -> bool:
        """Whether speech that comes now follows what the carrier plays without a pause."""
        return self._origin is not None and now <= self._origin + self.position * SAMPLE_NS

    # ------------------------------------------------------------------ sound out

    def due(self, now: int, until: int | None = None, together: int = 1) -> list[Instruction]:
        """The instructions for now, in order.

        ``until``: when the caller comes next. Frames that fall due before that are sent now, so
        that none waits for a tick of another phase. ``together``: how many frames may go in one
        message, of which only the first has to be due.
        """
        out: list[Instruction] = []
        if self.frozen:
            return out
        horizon = now if until is None or until <= now else until - 1
        if self._marks:
            self._send_marks(out)
        if not self.unsent + self.tail or not self._begin(now, horizon):
            return out
        assert self._origin is not None
        while ((unsent := self.end - self.position) or self.tail) and self._may_send:
            plays = self._origin + self.position * SAMPLE_NS
            if unsent >= FRAME:
                if plays - self.lead_ns > horizon:
                    break
            elif plays - FRAME_NS > horizon:
                break
            elif self.tail:
                out.append(FlushTail())
                break
            if now > plays:
                self._dry(now - plays, now)
            out.append(self._take(1 if self._marks else together))
            if self._marks:
                self._send_marks(out)
        self._over = not (self.unsent or self.tail)
        return out

    def one_message(self, now: int, until: int, together: int) -> bytes | None:
        """The usual tick of a call that speaks, in short. Either nothing is due before ``until``,
        which returns b"". Or one message of ``together`` frames is due, with more speech behind
        it: its payload is returned, and counts as sent. None: this is another case, so ask
        :meth:`due`, which knows all cases and would do the same in these two."""
        origin, position = self._origin, self.position
        following = position + together * FRAME
        if (
            origin is None
            or self._over
            or self.frozen
            or self._marks
            or following - self.acknowledged > self._window
        ):
            return None
        plays = origin + position * SAMPLE_NS
        due_at = plays - self.lead_ns
        until = max(until, now + 1)
        if due_at >= until:
            return b""
        if now > plays or until > due_at + together * FRAME_NS or following + FRAME > self.end:
            return None
        payload = self._held.sound(position, following)
        if len(payload) < together * FRAME:
            return None  # some of it was lost
        self.position = following
        self.frames_out += together
        return payload

    def next_due(self) -> int | None:
        """When ``due`` has something to do next, in ns; 0: at once; None: not before more sound,
        an acknowledgement or a stream comes."""
        if self.frozen:
            return None
        if self._marks and self._marks[0][0] <= self.position:
            return 0
        if not self.unsent + self.tail or not self._may_send:
            return None
        if self._gather_until is not None:
            return self._gather_until
        if self._origin is None or self._over:
            return 0
        plays = self._origin + self.position * SAMPLE_NS
        return plays - (self.lead_ns if self.unsent >= FRAME else FRAME_NS)

    @property
    def _may_send(self) -> bool:
        """The gateway keeps up with what is sent."""
        return self.position - self.acknowledged < self._window

    def _begin(self, now: int, horizon: int) -> bool:
        """Whether there is a timeline to play on; makes one at the start of an utterance."""
        if self._origin is not None and (
            not self._over or now <= self._origin + self.position * SAMPLE_NS
        ):
            return True
        if (self.unsent + self.tail) * SAMPLE_NS < self.lead_ns:
            if self._gather_until is None:
                self._gather_until = now + self.lead_ns
            if horizon < self._gather_until:
                return False
        self._gather_until = None
        self._origin = now - self.position * SAMPLE_NS
        self._settles_until, self._in_underrun = now + SETTLES_NS, False
        self._over = False
        return True

    def _take(self, together: int) -> Frame:
        """The next message. It is short at the end of the sound in hand, and silent where sound was
        lost."""
        position = self.position
        room = self.acknowledged + self._window - position
        frames = max(1, min(together, self.unsent // FRAME, room // FRAME))
        until = min(self.end, position + frames * FRAME)
        payload = self._held.sound(position, until)
        if not payload:
            until = self._held.begins_behind(position, until)
            payload = bytes([SILENCE]) * (until - position)
        self.position += len(payload)
        self.frames_out += -(-len(payload) // FRAME)
        return Frame(position, payload)

    def acknowledge(
        self, position: int, now: int, since: int | None = None, ahead: int | None = None
    ) -> bool:
        """The gateway wrote everything before ``position``; True when that is news.

        The acknowledgement was sent between ``since`` and ``now``; ``since`` None: at ``now``.
        ``ahead``: samples that lay unplayed at the carrier when it was sent; None: nobody knows.

        Raises PlayoutError for a position that was never sent.
        """
        if position > self.position:
            raise PlayoutError(f"{position} acknowledged, but sent only up to {self.position}")
        if position <= self.acknowledged:
            return False
        if not self.frozen:
            if self._origin is not None:
                unsure = 0 if since is None else now - since
                late = now - unsure - self._origin
                played = self.acknowledged  # where nobody knows more: all acknowledged before
                if ahead is not None:
                    # The unplayed sound ends at ``position``, and is no more than the window.
                    played = position - min(ahead, self._window)
                late -= played * SAMPLE_NS
                if late > ACK_NS:
                    self._dry(late, now)
                elif ahead is not None and (not unsure or now < self._settles_until):
                    self._correct(late, late + unsure, now)
            written = (position - self.acknowledged) * SAMPLE_NS
            self._plays_until = max(self._plays_until, now) + written
        self._forget(position)
        return True

    def _dry(self, late: int, now: int) -> None:
        """The carrier's buffer had been dry for ``late`` ns when the next sound reached it."""
        assert self._origin is not None
        self.underruns += 1
        self.underrun_ns += late
        self._origin += late
        self._settles_until, self._in_underrun = now + SETTLES_NS, True

    def _correct(self, least: int, most: int, now: int) -> None:
        """The carrier plays later than the timeline by ``least`` to ``most`` ns. Move the timeline
        to the nearer of the two, unless it lies between them or at most :data:`WAY_NS` beyond. A
        settled timeline moves to a later time only because of a hole, which is counted."""
        assert self._origin is not None
        by = max(least, 0) or min(most, 0)
        if abs(by) <= WAY_NS:
            return
        self._origin += by
        if now < self._settles_until:
            if self._in_underrun:
                self.underrun_ns = max(0, self.underrun_ns + by)
        elif by > 0:
            self._hole(by)

    def _hole(self, length: int) -> None:
        """The buffer was dry for less than :data:`ACK_NS`. As many such holes as make up that
        length count as one underrun."""
        self.underrun_ns += length
        self._short_ns += length
        if self._short_ns >= ACK_NS:
            self._short_ns -= ACK_NS
            self.underruns += 1

    def _forget(self, position: int) -> None:
        """Everything before the position was written, and need not be held any more."""
        self.acknowledged = position
        self._held.forget(position)

    # ------------------------------------------------------------------ interrupt

    def interrupt(self, serial: int, resume_at: int, now: int) -> Interruption | None:
        """Drop what is unsent and clear the carrier's buffer; None for a serial seen before.

        Raises PlayoutError when ``resume_at`` lies before what was spoken.
        """
        if serial <= self.serial:
            return None
        if resume_at < self.end:
            raise PlayoutError(f"interrupt {serial} resumes at {resume_at}, spoken to {self.end}")
        self.serial = serial
        cleared = Range(min(self.played(now), self.position), self.position)
        dropped = Range(self.position, self.end)
        unplayed = (*self._sent_marks, *(name for _, name in self._marks))
        self.playback += 1
        self._sent_marks.clear()
        self._marks.clear()
        self._restart(resume_at)
        self._plays_until = 0
        self._may_jump = True
        self._last = Interruption(
            serial, cleared.end, cleared, dropped, resume_at, self.playback, unplayed
        )
        return self._last

    @property
    def last_interruption(self) -> Interruption | None:
        """The effect of the newest interrupt, for a client that has to be told again."""
        return self._last

    def _restart(self, position: int) -> None:
        """Drop all sound that is held and go on at ``position``, on a new timeline."""
        self._held.clear()
        self.tail = 0
        self.position = self.acknowledged = self.end = position
        if self._frozen_at is not None:
            self._frozen_at = position  # what an interrupt dropped is not lost
        self._origin = None
        self._over = True
        self._gather_until = None

    # ------------------------------------------------------------------ marks

    def mark(self, name: str, position: int) -> None:
        """Send a mark once everything before ``position`` was sent. If it already was, the next
        ``due`` sends the mark. If a mark of this name waits already, it moves to ``position``."""
        self._marks = [mark for mark in self._marks if mark[1] != name]
        self._marks.append((position, name))
        self._marks.sort(key=lambda mark: mark[0])

    def mark_returned(self, name: str) -> bool:
        """The carrier gave a mark back: the sound before it was played. False: nobody waits for
        this mark, perhaps because a clear threw it out."""
        position = self._sent_marks.pop(name, None)
        if position is None:
            return False
        self._reached = max(self._reached, position)
        return True

    def _send_marks(self, out: list[Instruction]) -> None:
        while self._marks and self._marks[0][0] <= self.position:
            _, name = self._marks.pop(0)
            self._sent_marks[name] = self.position
            out.append(SendMark(name))

    # ------------------------------------------------------------------ stream lost and found

    def played(self, now: int) -> int:
        """The position that the carrier has reached at least. The acknowledgements show it (rule
        6), or a mark that came back."""
        unplayed = max(0, -((now - self._plays_until) // SAMPLE_NS))
        return min(max(self.acknowledged - unplayed, self._reached), self.acknowledged)

    def freeze(self, now: int, unplayed: int | None = None, *, told: bool = True) -> Range:
        """The stream is gone; returns the lead that lay unplayed at the carrier, which is lost.

        ``told``: its gateway said so, and had acknowledged all that it wrote. ``unplayed``: the
        lead in samples, as the gateway says; None: the acknowledgements decide (rule 6).
        """
        if self.frozen:
            return Range(self.acknowledged, self.acknowledged)
        # The carrier holds no more than may be sent ahead, however late the loss is noticed.
        played = max(self.played(now), self.acknowledged - self._window)
        if unplayed is not None:
            # Sound that an interrupt took back before the gateway knew of it is not lost.
            taken_back = 0 if self._last is None else self._last.next_position
            played = max(self.acknowledged - unplayed, self._reached, taken_back)
            played = min(played, self.acknowledged)
        lost = Range(played, self.acknowledged)
        self.lost += lost.samples
        self.frozen = True
        self._frozen_at = self.acknowledged
        self._plays_until = 0
        self._gather_until = None
        if not told:
            self._doubtful = self.position
        return lost

    def open(self, next_position: int | None = None, playback: int | None = None) -> int:
        """A stream is there (again): go on, on a new timeline.

        ``next_position``: the gateway says that it wrote everything before it. None: go on behind
        the last sound that was acknowledged here or may have been heard. If sound of that position
        is not held, all that is held is dropped, and speech has to begin there. Returns the samples
        that were written to the lost stream after it broke, or may have been; they are lost too.
        Marks must be set again.
        """
        resume = next_position
        if resume is None:
            resume = max(self.acknowledged, self._doubtful)
        elif self._last is not None and resume < self._last.next_position:
            # The gateway has not seen the clear of the last interrupt. Forget the interrupt's
            # serial, so that the interrupt is carried out again.
            self.serial = min(self.serial, self._last.serial - 1)
        late = 0
        if self._frozen_at is not None:
            late = max(0, min(self.position, max(resume, self.acknowledged)) - self._frozen_at)
            self.lost += late
        self._frozen_at = None
        self._doubtful = 0
        self.frozen = False
        if playback is not None:
            self.playback = playback
        self._marks.clear()
        self._sent_marks.clear()
        if not self.acknowledged <= resume <= self.end:
            self._restart(resume)
            return late
        self._forget(resume)
        self.position = resume
        self._origin = None
        self._over = True
        self._gather_until = None
        return late

    def plays_on(self, until: int) -> None:
        """Until ``until`` the carrier plays sound that another worker sent. Ours follows it without
        a pause."""
        self._origin = until - self.position * SAMPLE_NS
        self._settles_until, self._in_underrun = until + SETTLES_NS, False
        self._plays_until = until
