"""Playout against a simulated carrier: for any speech, ticks and faults, the rules hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trunkline.bus.sound import FRAME
from trunkline.codec_worker.playout import SAMPLE_NS, FlushTail, Frame, Playout, SendMark

from .carrier import MS, Carrier, Pump, sound

T0 = 1_000_000 * MS
LEADS = st.sampled_from([20, 40, 60, 100])


@given(
    lead=LEADS,
    phase=st.integers(0, 20 * MS - 1),
    late=st.lists(st.floats(0, 0.999), min_size=5, max_size=80),
    rest=st.integers(0, FRAME - 1),
    together=st.integers(1, 3),
)
def test_no_gap_while_ticks_are_late_by_less_than_the_lead(
    lead: int, phase: int, late: list[float], rest: int, together: int
) -> None:
    playout, carrier = Playout(lead_ns=lead * MS), Carrier()
    pump = Pump(playout, carrier, together=together)
    length = (len(late) + 10) * FRAME + rest
    pump.speak(sound(length))
    pump.tick(T0, T0 + phase)
    now = T0
    for n, share in enumerate(late):
        now = max(now, T0 + phase + n * 20 * MS + int(share * lead * MS))
        pump.tick(now, T0 + phase + (n + 1) * 20 * MS)
    for _ in range(20):  # the end of an utterance needs ticks less than 20 ms late
        now += 20 * MS
        pump.tick(now, now + 20 * MS)
    assert carrier.gaps == [(0, T0)]
    assert playout.underruns == 0
    assert carrier.sound == sound(length)
    assert carrier.starts == {p: T0 + p * SAMPLE_NS for p in carrier.starts}
    assert carrier.deepest <= (lead + 20 + 20 * together) * MS


@given(
    lead=LEADS,
    stalls=st.lists(st.integers(0, 400 * MS), min_size=3, max_size=40),
)
def test_each_underrun_moves_the_line_by_just_its_length(lead: int, stalls: list[int]) -> None:
    playout, carrier = Playout(lead_ns=lead * MS), Carrier()
    pump = Pump(playout, carrier)
    pump.speak(sound(FRAME * 25 * (len(stalls) + 1)))
    now = T0
    pump.tick(now)
    for stall in stalls:
        now += 20 * MS + stall
        pump.tick(now)
    gaps = [length for _, length in carrier.gaps[1:]]
    assert playout.underruns == len(gaps)
    assert playout.underrun_ns == sum(gaps)
    assert carrier.sound == sound(len(carrier.sound))
    assert carrier.deepest <= (lead + 20) * MS  # no burst ever leaves more behind
    shift = 0
    at = dict(carrier.gaps[1:])
    for position, start in carrier.starts.items():
        shift += at.get(position, 0)
        assert start == T0 + position * SAMPLE_NS + shift


@given(
    ways=st.lists(
        st.tuples(st.integers(0, 50 * MS), st.integers(0, 25 * MS)), min_size=1, max_size=30
    ),
    died=st.integers(0, 20 * MS),
)
def test_a_dead_gateway_leaves_no_loss_untold(ways: list[tuple[int, int]], died: int) -> None:
    """Each tick's frames take some time until they are written, and the word of it takes some time
    until it leaves. A worker that knows neither tells all that is lost. It tells more than that by
    the time that the gateway's words took, at most."""
    playout, carrier = Playout(), Carrier()
    playout.speak(0, sound((len(ways) + 5) * FRAME))
    last_tick = T0 + (len(ways) - 1) * 20 * MS
    died += last_tick
    words: list[tuple[int, int, int]] = []  # when it leaves, position, when that was written
    written = heard = before = T0
    longest = 0
    for n, (to_carrier, to_word) in enumerate(ways):
        now = T0 + n * 20 * MS
        while words and words[0][0] <= now:
            _, position, wrote = words.pop(0)
            playout.acknowledge(position, now, before)
            heard = before
            longest = max(longest, now - wrote)
        frames = [f for f in playout.due(now, now + 20 * MS) if isinstance(f, Frame)]
        written = max(written, now + to_carrier)
        if frames and written <= died:
            carrier.take([*frames], written)
            leaves = max(written + to_word, words[-1][0] if words else 0)
            if leaves <= died:
                words.append((leaves, frames[-1].position + FRAME, written))
        before = now
    there = carrier.frames[-1].position + FRAME if carrier.frames else 0
    played = there - max(0, carrier.ends - died) // SAMPLE_NS
    told = playout.freeze(heard, told=False).samples + playout.open()
    lost = playout.position - played
    assert lost <= told <= lost + (longest + died - heard) // SAMPLE_NS + 1


@given(
    chunks=st.lists(
        st.tuples(st.integers(1, 4000), st.integers(0, 300 * MS)), min_size=1, max_size=25
    ),
    together=st.integers(1, 3),
)
def test_whatever_the_source_does_all_of_it_is_played_in_order(
    chunks: list[tuple[int, int]], together: int
) -> None:
    playout, carrier = Playout(), Carrier()
    pump = Pump(playout, carrier, together=together)
    now, spoken, next_tick = T0, 0, T0
    for length, pause in chunks:
        pump.speak(sound(length, spoken))
        spoken += length
        pump.tick(now, next_tick)
        now += pause
        while next_tick <= now:
            pump.tick(next_tick, next_tick + 20 * MS)
            next_tick += 20 * MS
    while playout.next_due() is not None:
        pump.tick(next_tick, next_tick + 20 * MS)
        next_tick += 20 * MS
        assert next_tick < now + 60_000 * MS
    assert carrier.sound == sound(spoken)
    assert playout.underruns == 0  # a source that is late is no late tick
    assert playout.lost == 0
    assert playout.position == playout.end == spoken
    # A seam between frames of one utterance is never a gap: gaps come after a flush only.
    assert {p for p, _ in carrier.gaps[1:]} <= {p + pump.held for p in pump.flushes} | {
        f.position for f in carrier.frames if f.position in _after_short(carrier)
    }


def _after_short(carrier: Carrier) -> set[int]:
    return {f.position + len(f.payload) for f in carrier.frames if len(f.payload) < FRAME}


class WorkerMoves(RuleBasedStateMachine):
    """A call whose playout is interrupted, loses its stream and moves to fresh playouts, with an
    adapter that resends and a gateway that writes what follows what it wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.now = T0
        self.playout = Playout()
        self.said = bytearray()  # by position; what an interrupt skipped stays unsaid
        self.written = 0  # the gateway's next position
        self.heard: dict[int, int] = {}  # position -> byte, as the gateway wrote it
        self.unwritten: list[Frame] = []  # sent by the worker, on its way
        self.serial = 0
        self.playback = 0
        self.marks: dict[str, int] = {}

    @rule(length=st.integers(1, 3000))
    def speak(self, length: int) -> None:
        data = sound(length, len(self.said))
        self.playout.speak(len(self.said), data)
        self.said += data

    @rule(back=st.integers(0, 500))
    def repeat(self, back: int) -> None:
        begin = max(self.playout.acknowledged, len(self.said) - back)
        self.playout.speak(begin, bytes(self.said[begin:]))

    @rule(ms=st.integers(0, 150), together=st.integers(1, 2))
    def pass_time(self, ms: int, together: int = 1) -> None:
        self.now += ms * MS
        for instruction in self.playout.due(self.now, together=together):
            assert not isinstance(instruction, FlushTail)
            if isinstance(instruction, Frame):
                self.unwritten.append(instruction)
            else:
                assert isinstance(instruction, SendMark)
                assert self.marks[instruction.name] <= self.playout.position

    @rule(count=st.integers(1, 10))
    def write(self, count: int) -> None:
        for frame in self.unwritten[:count]:
            assert frame.position == self.written, "a frame doubled or missing"
            assert not self.playout.frozen
            for i, byte in enumerate(frame.payload):
                assert frame.position + i not in self.heard
                self.heard[frame.position + i] = byte
            self.written += len(frame.payload)
        del self.unwritten[:count]
        self.playout.acknowledge(self.written, self.now)

    @rule(jump=st.integers(0, 300))
    def interrupt(self, jump: int) -> None:
        self.serial += 1
        resume_at = len(self.said) + jump
        done = self.playout.interrupt(self.serial, resume_at, self.now)
        assert done is not None
        self.playback += 1
        assert done.playback == self.playback
        self.said += bytes(jump)
        self.unwritten.clear()
        self.written = resume_at
        self.marks.clear()

    @rule(name=st.sampled_from("abc"))
    def mark(self, name: str) -> None:
        self.marks[name] = len(self.said)
        self.playout.mark(name, len(self.said))

    @precondition(lambda self: not self.playout.frozen)
    @rule()
    def lose_the_stream(self) -> None:
        lost = self.playout.freeze(self.now)
        assert lost.end == self.playout.acknowledged
        assert lost.samples <= 1280 + 2 * FRAME  # the lead, and what may be sent ahead of it
        self.unwritten.clear()

    @rule(by_gateway=st.booleans())
    def reopen(self, by_gateway: bool) -> None:
        sent, lost = self.playout.position, self.playout.lost
        self.unwritten.clear()
        self.playout.open(self.written if by_gateway else None)
        if not by_gateway and self.playout.position > self.written:
            # It may have been written, and heard: it is not sent again, and told as lost.
            assert self.playout.position <= sent
            assert self.playout.lost - lost == self.playout.position - self.written
            self.written = self.playout.position
        assert self.playout.position == self.written
        self.marks.clear()

    @rule()
    def move_to_a_fresh_worker(self) -> None:
        self.unwritten.clear()
        self.playout = Playout(self.written, playback=self.playback)
        self.playout.serial = self.serial
        self.playout.speak(self.written, bytes(self.said[self.written :]))
        self.marks.clear()

    @invariant()
    def positions_are_in_order(self) -> None:
        p = self.playout
        assert p.acknowledged <= p.position <= p.end == len(self.said)

    def teardown(self) -> None:
        if self.playout.frozen:
            self.reopen(True)
        self.pass_time(0)
        self.write(10**6)
        while self.playout.next_due() is not None:
            self.pass_time(20)
            self.write(10**6)
        for position, byte in self.heard.items():
            assert byte == self.said[position]
        assert self.written == len(self.said)
        assert self.playout.lost <= 640 * 1000


TestWorkerMoves = WorkerMoves.TestCase
