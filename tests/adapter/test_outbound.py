"""The sound to be said: an acknowledgement that is said to change nothing changes nothing."""

from __future__ import annotations

import random

import pytest

from trunkline.adapter.client.outbound import Outbound, Utterance
from trunkline.bus.sound import FRAME, POSITION_BYTES, WIRE_RATE


class Twins:
    """Two that are told the same. One takes each acknowledgement in the short way where it can."""

    def __init__(self) -> None:
        self.short, self.long = Outbound(), Outbound()
        self.utterances: list[tuple[Utterance, Utterance]] = []
        self.barriers: list[int] = []
        #: acknowledgements that were taken in the short way
        self.moved_on = 0

    def say(self, samples: int) -> None:
        pcm = bytes(2 * samples)
        self.utterances.append((self.short.say(pcm, 0.0), self.long.say(pcm, 0.0)))
        self.send()

    def send(self) -> None:
        assert self.short.pieces() == self.long.pieces()
        self.same()

    def acknowledge(self, position: int, *, idle: bool) -> None:
        done = [u.samples for u in self.long.acknowledge(position, idle, 0.0)]
        cut = self.long.cut_given_up()
        pieces = self.long.pieces()
        if self.short.moves_on(position, idle):
            assert (done, cut, pieces) == ([], None, [])
            self.moved_on += 1
        else:
            assert [u.samples for u in self.short.acknowledge(position, idle, 0.0)] == done
            assert (self.short.cut_given_up() is None) == (cut is None)
            assert self.short.pieces() == pieces
        self.same()

    def same(self) -> None:
        for name in ("acknowledged", "floor", "end", "next", "serial", "_window"):
            assert getattr(self.short, name) == getattr(self.long, name), name
        assert len(self.short.utterances) == len(self.long.utterances)

    def anything(self, rng: random.Random) -> None:
        """Do one of all that may be done."""
        what = rng.randrange(20)
        if what == 0:
            self.say(rng.choice([1, 480, 2_399, 24_000, 400_000]))
        elif what == 1 and self.utterances:
            ours, other = rng.choice(self.utterances)
            if ours in self.short.utterances:
                assert self.short.give_up(ours) == self.long.give_up(other)
                assert (self.short.cut_given_up() is None) == (self.long.cut_given_up() is None)
                self.send()
        elif what == 2:
            self.short.interrupt(), self.long.interrupt()
            self.send()
        elif what == 3:
            self.barriers.append(self.short.put_barrier())
            self.long.put_barrier()
        elif what == 4 and self.barriers:
            barrier = self.barriers.pop(rng.randrange(len(self.barriers)))
            self.short.take_barrier(barrier), self.long.take_barrier(barrier)
            self.send()
        elif what == 5:
            position = rng.randint(self.short.acknowledged, self.short.next)
            self.short.unsent(position), self.long.unsent(position)
        elif what == 6:
            out_next = rng.choice([None, rng.randint(0, self.short.next)])
            assert len(self.short.resume(out_next, 0.0)) == len(self.long.resume(out_next, 0.0))
            self.send()
        else:
            ahead = rng.choice([0, 1, FRAME, FRAME, FRAME, WIRE_RATE])
            position = min(self.short.acknowledged + ahead, self.short.next)
            self.acknowledge(position, idle=rng.randrange(10) == 0)


@pytest.mark.parametrize("seed", range(200))
def test_an_acknowledgement_that_moves_on_has_no_other_consequence(seed: int) -> None:
    rng, twins = random.Random(seed), Twins()
    for _ in range(300):
        twins.anything(rng)


def test_nearly_all_acknowledgements_of_a_long_talk_move_on() -> None:
    twins = Twins()
    twins.say(60 * 24_000)
    frames = 60 * WIRE_RATE // FRAME
    for n in range(1, frames + 1):
        twins.acknowledge(n * FRAME, idle=n == frames)
    assert not twins.short.utterances
    assert twins.moved_on > 0.9 * frames


def test_an_acknowledgement_that_lets_a_piece_be_sent_does_not_move_on() -> None:
    out = Outbound()
    out.say(bytes(POSITION_BYTES * 20 * WIRE_RATE), 0.0)
    sent = sum(len(pcm) for _, pcm in out.pieces())
    assert sent == WIRE_RATE * POSITION_BYTES
    assert out.moves_on(FRAME, False)
    assert not out.moves_on(WIRE_RATE, False), "half a second more is allowed by now"
    assert not out.moves_on(2 * FRAME, True), "a worker that is idle has less than a frame left"
