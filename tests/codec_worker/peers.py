"""Stand-ins for the peers of workers, in memory: one gateway that carries one call and moves it
between workers, and one adapter that speaks, listens and resumes. They keep to ``docs/bus.md``."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from trunkline.bus import messages as m
from trunkline.bus.sound import FRAME, TOGETHER
from trunkline.codec_worker import mulaw
from trunkline.codec_worker.calls import Calls
from trunkline.codec_worker.playout import SAMPLE_NS
from trunkline.codec_worker.resample import LOOKAHEAD, Downsampler, History, Upsampler

MS = 1_000_000
TICK = 20 * MS
CALL = "c" * 32
SECRET = "s" * 32
GENERATION = m.first_generation(1)
GATEWAY, ADAPTER = b"gateway", b"adapter"


class FakeGateway:
    """One call's gateway: writes what follows in position, acknowledges, keeps the ring."""

    def __init__(self) -> None:
        self.generation = GENERATION
        self.out_next: int | None = 0
        self.playback = 0
        self.written = bytearray()  # by position, from 0; clears leave zeros
        self.plays_until = 0  # ns; when the carrier will have played it
        self.deepest = 0  # ns; most that ever lay there
        self.frames: list[tuple[int, int]] = []  # (when, position), each of 20 ms or less
        self.texts: list[str] = []  # what the carrier got, in order
        self.dropped = 0
        self.refused: list[str] = []
        self.ring: deque[m.InFrame] = deque(maxlen=500)
        self.digits: list[m.DigitIn] = []
        self.one_way = False
        self.joins = False

    def open_call(self, now: int = 0) -> m.OpenCall:
        ordinal = self.generation >> 16
        ring = [f for f in self.ring if f.ordinal == ordinal]
        return m.OpenCall(
            CALL,
            self.generation,
            ordinal,
            SECRET,
            self.out_next,
            self.playback,
            ring,
            self.digits,
            60,
            {},
            max(0, (self.plays_until - now) // SAMPLE_NS) if now else 0,
            self.one_way,
            self.joins,
        )

    def take(self, message: object, now: int) -> m.ToWorker | None:
        if isinstance(message, m.Outbound):
            for frame in message.frames:
                if frame.generation != self.generation:
                    self.dropped += 1
                    continue
                if self.out_next is None:
                    self.out_next = frame.position
                if frame.position != self.out_next:
                    self.dropped += 1
                    continue
                self.written += bytes(frame.position - len(self.written))
                self.written += frame.payload
                self.out_next = len(self.written)
                length = len(frame.payload) * SAMPLE_NS
                self.plays_until = max(self.plays_until, now) + length
                self.deepest = max(self.deepest, self.plays_until - now)
                starts = range(frame.position, self.out_next, FRAME)
                self.frames += [(now, position) for position in starts]
                self.texts.append("media")
            if self.out_next is not None:
                return m.Inbound([], [m.WrittenTo(CALL, self.generation, self.out_next)])
        elif isinstance(message, m.Clear) and message.generation == self.generation:
            self.out_next = message.next_position
            self.playback = message.playback
            self.plays_until = now
            self.texts.append("clear")
        elif isinstance(message, m.Mark) and message.generation == self.generation:
            self.texts.append(f"mark {message.name}")
        elif isinstance(message, m.OpenRefused):
            self.refused.append(message.why)
        return None


class FakeAdapter:
    """One call's adapter: follows the newest generation, resends, takes what it has not heard."""

    def __init__(self) -> None:
        self.generation = -1
        self.said = bytearray()  # PCM by position
        self.floor = 0
        self.acknowledged = 0
        self.serial = 0
        self.heard = bytearray()  # PCM by call time; lost sound is zeros
        self.codes = b""  # the last of it as mu-law, without a gap
        self.heard_at: tuple[int, int] = (0, 0)  # ordinal, stream end
        self.last_heard = 0
        self.lost_in = 0
        self.lost_out = 0
        self.idle = False
        self.gathers = 0  # samples that are to come together
        self.sounds = 0  # how many Sounds came
        self.others: list[m.WorkerToAdapter] = []

    def speak(self, pcm: bytes) -> m.Speak:
        position = len(self.said) // 6
        self.said += pcm
        return m.Speak(CALL, self.generation, position, pcm)

    def interrupt(self) -> m.Interrupt:
        self.serial += 1
        self.floor = len(self.said) // 6
        return m.Interrupt(CALL, self.generation, self.serial, self.floor)

    def gather(self, samples: int) -> m.Gather:
        self.gathers = samples
        return m.Gather(CALL, self.generation, samples)

    def take(self, message: object, now: int) -> list[m.ToWorker]:
        if isinstance(message, m.Opened):
            return self._resume(message, now)
        if isinstance(message, m.Heard):
            for sound in message.sounds:
                if sound.generation == self.generation:
                    self.sounds += 1
                    assert sound.position * 6 - len(self.heard) == sound.lost * 6
                    self.heard += bytes(sound.lost * 6) + sound.pcm
                    self.codes = (b"" if sound.lost else self.codes[-4000:]) + sound.codes
                    self.heard_at = (sound.ordinal, sound.stream_end)
                    self.last_heard = now
                    self.lost_in += sound.lost
            for played in message.acknowledged:
                if played.generation == self.generation:
                    self.acknowledged = max(self.acknowledged, played.position)
                    self.idle = played.idle
        elif isinstance(message, m.Loss):
            self.lost_out += message.samples
        elif not isinstance(message, m.Tick):
            self.others.append(message)  # type: ignore[arg-type]  # all that is left
        return []

    def _resume(self, opened: m.Opened, now: int) -> list[m.ToWorker]:
        if opened.generation < self.generation:
            return []
        if opened.generation >> 16 > self.generation >> 16:
            self.lost_out += opened.unplayed
        self.generation = opened.generation
        if opened.out_next is not None:
            self.acknowledged = max(self.acknowledged, opened.out_next)
        ordinal, position = self.heard_at
        idle = (now - self.last_heard) / 1e9 if ordinal else 0.0
        out: list[m.ToWorker] = [
            m.Resume(
                CALL,
                self.generation,
                ordinal,
                position,
                len(self.heard) // 6,
                idle,
                self.acknowledged,
                self.floor,
                self.serial,
                self.codes,
            )
        ]
        if self.gathers:
            out.append(self.gather(self.gathers))
        start = max(self.acknowledged, self.floor)
        for begin in range(start, len(self.said) // 6, 4000):
            pcm = bytes(self.said[6 * begin : 6 * (begin + 4000)])
            out.append(m.Speak(CALL, self.generation, begin, pcm))
        return out


class Bench:
    """A gateway, an adapter and workers on one fake clock. ``run`` carries messages at once."""

    def __init__(self, workers: int = 1) -> None:
        self.now = 1_000_000 * MS
        self.gateway = FakeGateway()
        self.adapter = FakeAdapter()
        self.workers = [Calls(f"w{i}") for i in range(workers)]
        self.active = 0
        #: workers whose process does not run; messages wait
        self.stopped: dict[int, list[tuple[bytes, m.ToWorker]]] = {}
        #: messages that wait while the gateway's process does not run; None: it runs
        self.gateway_stopped: list[tuple[int, object]] | None = None
        for i in range(workers):
            self.attach(i)

    @property
    def worker(self) -> Calls:
        return self.workers[self.active]

    def attach(self, i: int) -> None:
        for peer, role in ((GATEWAY, "gateway"), (ADAPTER, "adapter")):
            self.send(i, peer, m.MediaHello(role, role))  # type: ignore[arg-type]  # two of the roles
        self.send(i, ADAPTER, m.Attach(CALL, SECRET))

    def replace(self, i: int) -> None:
        """Worker i was killed; another process takes its place."""
        self.stopped.pop(i, None)
        self.workers[i] = Calls(f"w{i}")
        self.attach(i)

    def send(self, i: int, peer: bytes, message: m.ToWorker) -> None:
        if i in self.stopped:
            self.stopped[i].append((peer, message))
        else:
            self.workers[i].receive(peer, message, self.now)

    def from_gateway(self, message: m.ToWorker) -> None:
        self.send(self.active, GATEWAY, message)

    def from_adapter(self, message: m.ToWorker) -> None:
        self.send(self.active, ADAPTER, message)

    def open(self, i: int | None = None) -> None:
        """The gateway gives the call to worker i under the gateway's generation."""
        self.active = self.active if i is None else i
        self.from_gateway(self.gateway.open_call(self.now))
        self.run()

    def move(self, i: int) -> None:
        """The gateway takes the call to worker i, and tells the former one."""
        former = self.active
        self.gateway.generation += 1
        self.open(i)
        if former != i:
            self.send(former, GATEWAY, m.CloseCall(CALL, self.gateway.generation))

    def new_stream(self, reason: m.StreamEndReason | None = "close") -> None:
        """The stream ends (None: it is cut off without a word) and a later one comes."""
        ordinal = self.gateway.generation >> 16
        if reason is not None:
            generation = self.gateway.generation
            self.from_gateway(m.StreamEnded(CALL, generation, ordinal, reason))
            self.run()
        self.gateway.generation = m.first_generation(ordinal + 1)
        self.gateway.out_next = None
        self.gateway.playback = 0
        self.gateway.plays_until = 0

    def speak(self, pcm: bytes) -> None:
        self.from_adapter(self.adapter.speak(pcm))
        self.run()

    def hear(self, position: int, payload: bytes) -> None:
        generation = self.gateway.generation
        frame = m.InFrame(CALL, generation, generation >> 16, position, payload)
        self.gateway.ring.append(frame)
        self.from_gateway(m.Inbound([frame]))

    def run(self) -> None:
        """Let the workers work, and carry messages until there are no more."""
        until = self.now + TICK
        busy = True
        while busy:
            busy = False
            for i, worker in enumerate(self.workers):
                if i in self.stopped:
                    continue
                worker.all_read(self.now)
                while worker.work(self.now, until):
                    pass
                for peer, message in worker.take_instructions():
                    busy = True
                    self._deliver(i, peer, message)

    def _deliver(self, i: int, peer: bytes, message: object) -> None:
        if peer == GATEWAY and self.gateway_stopped is not None:
            self.gateway_stopped.append((i, message))
        elif peer == GATEWAY:
            answer = self.gateway.take(message, self.now)
            if answer is not None:
                self.send(i, GATEWAY, answer)
        else:
            for told in self.adapter.take(message, self.now):
                self.send(i, ADAPTER, told)

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.now += TICK
            for i, worker in enumerate(self.workers):
                if i not in self.stopped:
                    tick(worker, self.now)
            self.run()

    def wake_gateway(self) -> None:
        """A stopped gateway goes on with what waited for it."""
        waiting, self.gateway_stopped = self.gateway_stopped, None
        for i, message in waiting or []:
            self._deliver(i, GATEWAY, message)
        self.run()

    def wake(self, i: int) -> None:
        """A stopped worker goes on with what waited for it."""
        waiting = self.stopped.pop(i)
        for peer, message in waiting:
            self.send(i, peer, message)
        tick(self.workers[i], self.now)
        self.run()


def tick(worker: Calls, now: int) -> None:
    """As a worker's process has them: each second one sends pairs."""
    worker.tick(now, now + TICK, TOGETHER if now // TICK % TOGETHER == 0 else 1)


# ------------------------------------------------------------------ sound

UP = Upsampler()
RNG = np.random.default_rng(7)
PCM = np.rint(8000 * np.sin(np.arange(24_000 * 12) * 0.11) * np.sin(np.arange(24_000 * 12) * 1e-4))
SPEECH = PCM.astype("<i2").tobytes()
CODES = mulaw.encode(np.rint(PCM[::3]).astype(np.int16)).tobytes()


def coded(pcm: bytes) -> npt.NDArray[np.int_]:
    down = Downsampler()
    history = down.history()
    return heard_codes(down.run([history], [pcm])[0] + down.flush([history])[0])


def heard_codes(codes: bytes | bytearray) -> npt.NDArray[np.int_]:
    return mulaw.decode(np.frombuffer(bytes(codes), np.uint8)).astype(int)


def held_back(histories: list[History]) -> list[bytes]:
    """What the filter still holds back, as if silence followed."""
    return UP.run(histories, [bytes([mulaw.SILENCE]) * LOOKAHEAD] * len(histories))


def decoded(codes: bytes) -> npt.NDArray[np.int_]:
    history = UP.history()
    pcm = UP.run([history], [codes])[0] + held_back([history])[0]
    return np.frombuffer(pcm, "<i2").astype(int)


def opened(workers: int = 1) -> Bench:
    bench = Bench(workers)
    bench.open()
    return bench


def speaking(length: float, workers: int = 1, ticks: int = 10) -> Bench:
    """A call that was given so many seconds to say, and has said some of them."""
    bench = opened(workers)
    bench.speak(SPEECH[: seconds(length)])
    bench.tick(ticks)
    return bench


def seconds(n: float) -> int:
    return round(n * 48_000)
