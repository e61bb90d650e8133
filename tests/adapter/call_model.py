"""A gateway and two workers in memory, as far as a call's sound meets them.

Every message waits in a queue until the test delivers it, so that a test can move the call to the
other worker between any two of them. What reached the carrier stands in ``carrier``; what the far
end said comes in with ``say_inbound``.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from trunkline.adapter.client.call_audio import CallAudio
from trunkline.adapter.client.call_instructions import HeardDigit, Instruction, Send, Spoken
from trunkline.bus import messages as m

CALL = "c" * 32
FRAME = 160
#: When the call began, by the monotonic clock.
BEGAN = 100.0


@dataclass
class Worker:
    """One codec worker's state of the call."""

    name: str
    generation: int = -1
    ordinal: int = 0
    resumed: bool = False
    out_next: int | None = None
    next: int = 0
    serial: int = 0
    sound: dict[int, bytes] = field(default_factory=dict)
    heard_to: int = 0
    to_adapter: deque[object] = field(default_factory=deque)
    from_adapter: deque[m.ToWorker] = field(default_factory=deque)


class CallModel:
    def __init__(self) -> None:
        self.now = BEGAN
        self.audio = CallAudio(CALL, self.now)
        self.workers = {"a": Worker("a"), "b": Worker("b")}
        self.active = "a"
        self.generation = m.first_generation(1)
        #: position -> six bytes of PCM that the carrier got
        self.carrier: dict[int, bytes] = {}
        self.written = 0
        #: all sound of the far end, six bytes for each position
        self.inbound = b""
        self.heard = b""
        self.digits = ""
        self.spoken: list[tuple[object, int]] = []
        self.other: list[Instruction] = []
        self._open()

    # ------------------------------------------------------------------ the gateway's doings

    def _open(self, out_next: int | None = 0) -> None:
        worker = self.workers[self.active]
        worker.generation = self.generation
        worker.ordinal = self.generation >> 16
        worker.resumed = False
        worker.out_next = out_next
        worker.sound.clear()
        worker.serial = 0
        worker.to_adapter.append(m.Opened(CALL, self.generation, worker.ordinal, out_next))

    def move(self) -> None:
        """The gateway moves the call to the other worker; what the old one said is still there."""
        self.active = "b" if self.active == "a" else "a"
        self.generation += 1
        self._open(self.written)

    def say_inbound(self, positions: int) -> None:
        begin = len(self.inbound) // 6
        said = np.ones(positions, "<u4, <u2")
        said["f0"] = np.arange(begin, begin + positions)
        self.inbound += said.tobytes()

    # ------------------------------------------------------------------ delivery

    def act(self) -> None:
        for instruction in self.audio.take_instructions():
            if isinstance(instruction, Send):
                self.workers[instruction.worker].from_adapter.append(instruction.message)
            elif isinstance(instruction, HeardDigit):
                self.digits += instruction.digit
            elif isinstance(instruction, Spoken):
                assert instruction.utterance.sent is not None
                self.spoken.append((instruction.utterance, instruction.utterance.sent))
            else:
                self.other.append(instruction)

    def up(self, name: str) -> bool:
        """The worker reads one message of the adapter's."""
        worker = self.workers[name]
        if not worker.from_adapter:
            return False
        message = worker.from_adapter.popleft()
        if getattr(message, "generation", worker.generation) != worker.generation:
            return True
        if isinstance(message, m.Resume):
            worker.resumed = True
            worker.heard_to = message.position
            start = message.acknowledged if worker.out_next is None else worker.out_next
            worker.next = max(start, message.floor)
            self._skip_to_floor(worker, message.floor)
            worker.serial = message.interrupt
        elif isinstance(message, m.Speak):
            for i in range(len(message.pcm) // 6):
                position = message.position + i
                assert position not in worker.sound, "a worker was given sound twice"
                worker.sound[position] = message.pcm[6 * i : 6 * i + 6]
        elif isinstance(message, m.Interrupt):
            sent_to = worker.next
            worker.sound = {p: s for p, s in worker.sound.items() if p >= message.resume_at}
            worker.next = max(worker.next, message.resume_at)
            self._skip_to_floor(worker, message.resume_at)
            worker.serial = message.serial
            worker.to_adapter.append(
                m.Interrupted(CALL, worker.generation, message.serial, sent_to)
            )
        return True

    def _skip_to_floor(self, worker: Worker, floor: int) -> None:
        if worker.generation == self.generation:
            self.written = max(self.written, floor)

    def down(self, name: str) -> bool:
        """The adapter reads one message of the worker's."""
        worker = self.workers[name]
        if not worker.to_adapter:
            return False
        message = worker.to_adapter.popleft()
        if isinstance(message, m.Opened):
            self.audio.opened(name, message, self.now)
        elif isinstance(message, m.Sound):
            self.heard += self.audio.heard(name, message, self.now)
        elif isinstance(message, m.AcknowledgedTo):
            self.audio.acknowledge(name, message, self.now)
        elif isinstance(message, m.Interrupted):
            self.audio.interrupted(name, message, self.now)
        elif isinstance(message, m.DigitHeard):
            self.audio.digit_heard(name, message)
        else:
            raise AssertionError(message)
        self.act()
        return True

    def tick(self) -> None:
        """20 ms at the active worker: send a frame, hand out what was heard."""
        self.now += 0.02
        worker = self.workers[self.active]
        if not worker.resumed:
            return
        count = 0
        while count < FRAME and worker.next in worker.sound:
            assert worker.next == self.written, "the gateway is given a frame out of order"
            assert self.written not in self.carrier, "spoken twice"
            self.carrier[self.written] = worker.sound.pop(worker.next)
            worker.next += 1
            self.written = worker.next
            count += 1
        if count:
            idle = len(worker.sound) < FRAME
            worker.to_adapter.append(m.AcknowledgedTo(CALL, worker.generation, worker.next, idle))
        stop = min(len(self.inbound) // 6, worker.heard_to + 3 * FRAME)
        if stop > worker.heard_to:
            worker.to_adapter.append(
                m.Sound(
                    CALL,
                    worker.generation,
                    worker.heard_to,
                    worker.ordinal,
                    stop,
                    0,
                    self.inbound[6 * worker.heard_to : 6 * stop],
                )
            )
            worker.heard_to = stop

    def settle(self, ticks: int = 5000) -> None:
        """Deliver everything, until nothing moves any more."""
        for _ in range(ticks):
            moved = False
            for name in self.workers:
                while self.up(name) or self.down(name):
                    moved = True
            before = (len(self.carrier), self.written)
            self.tick()
            self.audio.poll(self.now)
            self.act()
            queued = any(w.to_adapter or w.from_adapter for w in self.workers.values())
            if not moved and not queued and before == (len(self.carrier), self.written):
                return
        raise AssertionError("it does not settle")


class Talker:
    """Makes sound whose every sample tells its number."""

    def __init__(self, model: CallModel) -> None:
        self.model = model
        self.samples = 0
        self.said: list[tuple[object, bytes]] = []

    def say(self, samples: int) -> None:
        pcm = np.arange(self.samples, self.samples + samples).astype("<u2").tobytes()
        self.samples += samples
        utterance = self.model.audio.say(pcm, self.model.now)
        self.said.append((utterance, pcm))
        self.model.act()

    @property
    def all_pcm(self) -> bytes:
        return b"".join(pcm for _, pcm in self.said)


def sends(model: CallModel) -> list[m.ToWorker]:
    return [e.message for e in model.audio.take_instructions() if isinstance(e, Send)]
