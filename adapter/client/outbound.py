"""The sound that one call is to say: positions, the window ahead, interrupts. No I/O.

Rules:

- An utterance is the sound of one ``send_audio``. Utterances are spoken in order. A position is
  three samples at 24 kHz (one at 8 kHz). One or two samples that fill no position are carried to
  the next utterance when that one comes within :data:`CARRY_SECONDS`.
- An utterance gets its positions when its first sound is sent. So an utterance that is given up
  before that leaves no gap. Sent sound is kept until it is acknowledged, and may be sent again.
- At most :data:`WINDOW` positions are sent ahead of the acknowledged position, and fewer at first.
  Otherwise many calls that begin to speak at one moment would fill the bus for seconds, and calls
  that speak already would have to wait behind them. A talk, and a resume, begins with
  :data:`FIRST` positions, and each position that is acknowledged lets :data:`GROWTH` more be sent
  ahead.
- Only whole pieces are sent: :data:`MESSAGE` positions, or all that is left of an utterance.
- An utterance is *done* when all of it was acknowledged, or the worker is idle with no more than
  one frame of it left; or when an interrupt (or the end of the call) took the rest away.
- After an interrupt the next sound begins at the *floor*: the position that followed all that had
  been sent. Nothing below the floor is sent again.
- Sound behind a *barrier* (digits are being sent) waits until the barrier is gone.
- Most acknowledgements end no utterance and let no piece be sent. :meth:`Outbound.moves_on` takes
  those, and looks at no utterance. How far they go is known since :meth:`Outbound.pieces` looked.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from trunkline.bus.sound import FRAME, POSITION_BYTES, WIRE_RATE

#: At most this many positions are sent ahead of the acknowledged position: 10 s.
WINDOW = 10 * WIRE_RATE
#: At the beginning of a talk at most this many are: 1 s.
FIRST = WIRE_RATE
#: Each position that is acknowledged lets this many more be sent ahead.
GROWTH = 2
#: One Speak has at most this many positions: 0.5 s.
MESSAGE = WIRE_RATE // 2
#: One or two left-over samples wait this long (seconds) for the sound that continues them.
CARRY_SECONDS = 0.25


@dataclass(eq=False)
class Utterance:
    """The sound of one ``send_audio``, until it is done and acknowledged."""

    #: PCM16 24 kHz, a whole number of positions; carried samples come first
    pcm: bytes = field(repr=False)
    #: samples that the caller gave
    samples: int
    #: samples at the beginning of ``pcm`` that belong to the utterance before
    carried: int = 0
    #: outbound position of the first sample; None until some of the utterance was sent
    start: int | None = None
    #: samples sent, once the utterance is done
    sent: int | None = None
    #: the sender is gone: the utterance is to be cut off as soon as its turn comes
    given_up: bool = False
    #: the newest barrier when the utterance was said; 0: there was no barrier
    barrier: int = 0

    @property
    def length(self) -> int:
        """How many positions the utterance takes."""
        return len(self.pcm) // POSITION_BYTES

    @property
    def stop(self) -> int:
        """The position that follows the utterance, which must have a start."""
        assert self.start is not None
        return self.start + self.length

    def sent_at(self, position: int) -> int:
        """Samples of the caller's that were sent when all below ``position`` was."""
        if self.start is None or position <= self.start:
            return 0
        if position >= self.stop:
            return self.samples
        return max(0, min(self.samples, (position - self.start) * 3 - self.carried))


class Outbound:
    """All utterances of one call. Methods return the utterances that they made done."""

    def __init__(self) -> None:
        #: utterances that are not yet acknowledged, in order; those with a start come first
        self.utterances: deque[Utterance] = deque()
        #: everything below this position was sent to the carrier
        self.acknowledged = 0
        #: sound below this position was interrupted, and is never sent (again)
        self.floor = 0
        #: the position that the next new sound gets
        self.end = 0
        #: the position to send next to the active worker
        self.next = 0
        #: interrupts so far
        self.serial = 0
        #: barriers that stand, oldest first
        self._barriers: list[int] = []
        self._last_barrier = 0
        #: positions that may be sent ahead now
        self._window = FIRST
        self._cut: dict[int, list[Utterance]] = {}
        #: acknowledgements below this position, of a worker that is not idle, have no consequences
        self._quiet_to = 0
        self._carry = b""
        self._carry_until = 0.0

    def say(self, pcm: bytes, now: float) -> Utterance:
        """Queue ``pcm`` (an even number of bytes). If it fills no position it is done at once, and
        its samples are carried to the next utterance."""
        self._quiet_to = 0
        carried = self._carry if now < self._carry_until else b""
        whole = carried + pcm if carried else pcm
        rest = len(whole) % POSITION_BYTES
        self._carry = whole[len(whole) - rest :]
        self._carry_until = float("inf") if rest else 0.0
        utterance = Utterance(
            whole[: len(whole) - rest] if rest else whole,
            len(pcm) // 2,
            len(carried) // 2,
            barrier=self._barriers[-1] if self._barriers else 0,
        )
        if not self.utterances:
            self._window = FIRST
        if utterance.length == 0:
            utterance.sent = utterance.samples
            self._keep_carry(now)
        else:
            self.utterances.append(utterance)
        return utterance

    def put_barrier(self) -> int:
        """Sound that is queued from now on waits until ``take_barrier`` gets the returned
        number."""
        self._last_barrier += 1
        self._barriers.append(self._last_barrier)
        return self._last_barrier

    def take_barrier(self, barrier: int) -> None:
        self._barriers.remove(barrier)
        self._quiet_to = 0

    def waits(self, utterance: Utterance) -> bool:
        """The utterance stands behind a barrier."""
        return utterance.barrier in self._barriers

    def _keep_carry(self, now: float) -> None:
        """All is said: the carried samples wait for :data:`CARRY_SECONDS` from now on."""
        if self._carry and not any(u.sent is None for u in self.utterances):
            self._carry_until = now + CARRY_SECONDS

    def pieces(self) -> list[tuple[int, bytes]]:
        """(position, pcm) to send now, as far as the window allows; each counts as sent."""
        pieces: list[tuple[int, bytes]] = []
        held_back = self._send_on(pieces)
        self._quiet_to = self._next_consequence(held_back)
        return pieces

    def _send_on(self, pieces: list[tuple[int, bytes]]) -> int:
        """Add all that may be sent. Returns the end of the piece that the window holds back. If it
        holds none back, returns the end of the last piece."""
        limit = max(self.acknowledged, self.floor) + self._window
        for utterance in self.utterances:
            if utterance.given_up or self.waits(utterance):
                break
            start = self.end if utterance.start is None else utterance.start
            while start <= self.next < start + utterance.length:
                position = self.next
                stop = min(start + utterance.length, position + MESSAGE)
                if stop > limit:
                    return stop
                utterance.start = start
                begin = (position - start) * POSITION_BYTES
                pieces.append((position, utterance.pcm[begin : (stop - start) * POSITION_BYTES]))
                self.next = stop
                self.end = max(self.end, stop)
            if self.next < start + utterance.length:
                break
        return self.next

    def _next_consequence(self, held_back: int) -> int:
        """The first position whose acknowledgement may end an utterance, or let the piece be sent
        that ends at ``held_back``."""
        head = self.utterances[0] if self.utterances else None
        if head is None or head.start is None or head.sent is not None or head.given_up:
            return 0
        waits_for = held_back - max(self.acknowledged, self.floor) - self._window
        if waits_for <= 0:
            return head.stop
        # The window grows with each position that is acknowledged.
        growth = 1 if self._window == WINDOW else 1 + GROWTH
        return min(head.stop, self.acknowledged - (-waits_for // growth))

    def begins(self, position: int) -> bool:
        """An utterance begins at ``position``, which was sent."""
        return any(utterance.start == position for utterance in self.utterances)

    def unsent(self, position: int) -> None:
        """The piece at ``position`` could not be sent, so it is next again."""
        self._quiet_to = 0
        self.next = min(self.next, position)

    def resume(self, out_next: int | None, now: float) -> list[Utterance]:
        """A worker asks for sound from ``out_next`` on (None: the acknowledged position)."""
        done = self.acknowledge(self.acknowledged if out_next is None else out_next, False, now)
        self._window = FIRST
        self.end = max(self.end, self.acknowledged)
        start = max(self.acknowledged, self.floor)
        head = next((u for u in self.utterances if u.start is not None), None)
        if head is not None:
            assert head.start is not None
            start = max(start, head.start)
        self.next = min(start, self.end) if head is not None else self.end
        return done

    def moves_on(self, position: int, idle: bool) -> bool:
        """Take this acknowledgement if nothing follows from it. False: nothing was done, and
        :meth:`acknowledge` has to take it."""
        if idle or position >= self._quiet_to:
            return False
        self._acknowledged(position)
        return True

    def _acknowledged(self, position: int) -> None:
        if position > self.acknowledged:
            grown = self._window + GROWTH * (position - self.acknowledged)
            self._window = min(WINDOW, grown)
            self.acknowledged = position

    def acknowledge(self, position: int, idle: bool, now: float) -> list[Utterance]:
        """Everything below ``position`` was sent to the carrier. ``idle``: the worker has less
        than one frame left."""
        self._quiet_to = 0
        self._acknowledged(position)
        done = []
        for utterance in self.utterances:
            if utterance.start is None:
                break
            left = utterance.stop - self.acknowledged
            if utterance.sent is None and (left <= 0 or (idle and left <= FRAME)):
                utterance.sent = utterance.samples
                done.append(utterance)
        self._forget()
        self._keep_carry(now)
        return done

    def _forget(self) -> None:
        while self.utterances:
            head = self.utterances[0]
            if head.start is None or head.stop > self.acknowledged:
                return
            self.utterances.popleft()

    def interrupt(self) -> list[Utterance]:
        """Drop all that is queued; a worker is to be told (``serial``, ``floor``).
        Sound that no worker has yet is done at once, the rest by :meth:`interrupted`."""
        return self._cut_off([u for u in self.utterances])

    def _cut_off(self, dropped: list[Utterance]) -> list[Utterance]:
        self._quiet_to = 0
        self.serial += 1
        self.floor = self.end
        self.next = self.end
        self._carry = b""
        done: list[Utterance] = []
        waiting = self._cut.setdefault(self.serial, [])
        kept: list[Utterance] = []
        for utterance in self.utterances:
            if utterance not in dropped and not utterance.given_up:
                utterance.start = None
                kept.append(utterance)
            elif utterance.sent is None:
                if utterance.start is None:
                    utterance.sent = 0
                    done.append(utterance)
                else:
                    waiting.append(utterance)  # the worker's answer says how much was sent
        self.utterances = deque(kept)
        return done

    def interrupted(self, serial: int, sent_to: int | None = None) -> list[Utterance]:
        """Interrupts up to ``serial`` are done; sound up to ``sent_to`` had been sent (None: as
        far as it was acknowledged)."""
        sent_to = self.acknowledged if sent_to is None else sent_to
        done = []
        for known in sorted(self._cut):
            if known > serial:
                break
            for utterance in self._cut.pop(known):
                utterance.sent = utterance.sent_at(sent_to)
                done.append(utterance)
        return done

    def give_up(self, utterance: Utterance) -> bool:
        """The sender of ``utterance`` was cancelled: drop it. True: a worker has some of it, so
        :meth:`cut_given_up` has to interrupt once the utterances before it are done."""
        if utterance.sent is not None or utterance not in self.utterances:
            return False
        if utterance.start is None:
            self.utterances.remove(utterance)
            utterance.sent = 0
            return False
        utterance.given_up = True
        self._quiet_to = 0
        return True

    def cut_given_up(self) -> list[Utterance] | None:
        """Interrupt where a given-up utterance is the one being spoken (None: it is not). The
        utterances behind it follow from new positions."""
        head = next((u for u in self.utterances if u.sent is None), None)
        if head is None or not head.given_up or head.start is None:
            return None
        # Before it may stand an utterance that is done, but for less than a frame that is not yet
        # acknowledged. That one is dropped, too.
        return self._cut_off([u for u in self.utterances if u is head or u.sent is not None])

    def end_all(self) -> list[Utterance]:
        """The call is over: everything is done, as far as it was acknowledged."""
        self._quiet_to = 0
        done = self.interrupted(self.serial)
        for utterance in self.utterances:
            if utterance.sent is None:
                utterance.sent = utterance.sent_at(self.acknowledged)
                done.append(utterance)
        self.utterances.clear()
        self._carry = b""
        return done
