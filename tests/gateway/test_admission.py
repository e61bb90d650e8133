"""Who is let in: a socket's events on a clock that the test moves, and what is to be done."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.gateway import admission
from trunkline.gateway import instructions as do
from trunkline.gateway import media_streams as ms
from trunkline.gateway.admission import Admission, Applicant

from .model import INFO

START = ms.Start("CA1", "MZ1", {"nonce": "t1"})
ACCEPTED = m.StreamAccepted(info=INFO, first=True)
ONE_WAY = m.StreamAccepted(info=replace(INFO, ordinal=2), first=False, one_way=True)
OVERLAPS = m.StreamAccepted(info=replace(INFO, ordinal=3), first=False, overlaps=True)


def frame(n: int) -> ms.Media:
    return ms.Media(160 * n, b"\xff" * 160)


def closed(ordinal: int, reason: m.StreamEndReason) -> do.Notify:
    return do.Notify(m.StreamClosed(call="c1", ordinal=ordinal, reason=reason, gateway="g1"))


def pushed_out(number: int) -> do.RefuseSocket:
    return do.RefuseSocket(number, "socket pushed out", code=1013, at_once=True)


class Door:
    """An Admission, and the clock of its events."""

    def __init__(self) -> None:
        self.admission = Admission("g1")
        self.now = 100.0

    def knock(self, *expected: do.Instruction, owner: str | None = None) -> int:
        """A new socket, for which this has to be done."""
        applicant, room = self.admission.knock(self.now, owner)
        assert applicant is not None and room == list(expected)
        return applicant.number

    def hear(self, number: int, *events: ms.Event) -> list[do.Instruction]:
        return [do_ for e in events for do_ in self.admission.heard(number, e, self.now)]

    def asked(self) -> int:
        """A socket about which the controller is being asked."""
        number = self.knock()
        assert self.hear(number, START) == [do.AskController(number, START, "t1", 5.0)]
        return number

    def answer(self, number: int, answer: m.Message) -> list[do.Instruction]:
        return self.admission.answered(number, answer, self.now)

    def waiting(self) -> int:
        number = self.asked()
        assert self.answer(number, ONE_WAY) == [do.Believe(number)]
        return number

    def later(self, seconds: float) -> list[do.Instruction]:
        self.now += seconds
        return self.admission.check(self.now)

    def lose(self, number: int, reason: m.StreamEndReason = "error") -> list[do.Instruction]:
        """The connection is gone."""
        out = self.admission.ended(number, reason)
        self.admission.disconnected(number)
        return out

    @property
    def kept(self) -> int:
        return len(self.admission._applicants)


@pytest.fixture
def door() -> Door:
    return Door()


def test_what_comes_before_the_answer_is_handed_on_in_order(door: Door) -> None:
    number = door.asked()
    held = [frame(0), ms.Dtmf(1, "#"), frame(1), ms.MarkReturned("m")]
    assert door.hear(number, *held) == []
    believe, opened = door.answer(number, ACCEPTED)
    assert believe == do.Believe(number)
    assert isinstance(opened, do.OpenStream)
    assert (opened.socket, opened.accepted, opened.stream_sid) == (number, ACCEPTED, "MZ1")
    assert (list(opened.early), list(opened.held)) == ([], held)
    assert door.lose(number, "stop") == [do.EndStream(number, "stop")]
    assert door.kept == 0


def test_what_is_held_is_bounded(door: Door) -> None:
    number = door.asked()
    door.hear(number, *(frame(n) for n in range(admission.MAX_HELD + 3)))
    _, opened = door.answer(number, ACCEPTED)
    assert isinstance(opened, do.OpenStream)
    assert list(opened.held) == [frame(n) for n in range(admission.MAX_HELD)]
    assert door.admission.counts == {"held-too-long": 3}


def test_a_stranger_has_five_seconds(door: Door) -> None:
    number = door.knock()
    assert door.hear(number, ms.Connected()) == []
    assert door.later(4.9) == []
    assert door.later(0.1) == [do.RefuseSocket(number, "no start")]
    assert door.later(0.1) == []
    assert door.lose(number, "close") == []
    assert door.kept == 0


@pytest.mark.parametrize(("start_after", "within"), [(0.0, 5.0), (4.0, 1.0), (4.75, 0.5)])
def test_the_controller_has_the_rest_of_them(door: Door, start_after: float, within: float) -> None:
    number = door.knock()
    assert door.later(start_after) == []
    assert door.hear(number, START) == [do.AskController(number, START, "t1", within)]
    assert door.later(100.0) == []  # its request has a deadline of its own


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (ms.Start("CA1", "MZ1", {}), "its start has no token"),
        (ms.Start("CA1", "MZ1", {"nonce": ""}), "its start has no token"),
        (ms.Violation("too much"), "too much"),
    ],
)
def test_a_stranger_that_is_refused(door: Door, event: ms.Event, why: str) -> None:
    number = door.knock()
    assert door.hear(number, event) == [do.RefuseSocket(number, "bad start", why, 1008)]


def test_what_the_controller_refuses(door: Door) -> None:
    first, second, third = door.asked(), door.asked(), door.asked()
    refused = do.RefuseSocket(first, "wrong token", "used")
    assert door.answer(first, m.StreamRefused(why="used")) == [refused]
    refused = do.RefuseSocket(second, "wrong token", "Done")
    assert door.answer(second, m.Done()) == [refused]
    # Nobody said no: Twilio may come again.
    refused = do.RefuseSocket(third, "nobody to ask", "gone", 1013)
    assert door.admission.unanswered(third, "gone") == [refused]


def test_a_newcomer_has_the_place_of_the_oldest_that_is_not_let_in(door: Door) -> None:
    door.admission = Admission("g1", strangers=2)
    live, waits = door.asked(), door.waiting()
    door.answer(live, ACCEPTED)
    stranger, held = door.knock(), door.asked()
    third = door.knock(pushed_out(stranger))
    assert door.lose(stranger) == []
    # The controller may still let one in that was held: it is told that it is gone.
    fourth = door.knock(pushed_out(held))
    assert door.lose(held) == []
    assert door.answer(held, ACCEPTED) == [closed(1, "close")]
    # A socket that is being closed has its place until its connection is gone.
    door.hear(third, ms.Violation("too much"))
    fifth = door.knock(do.DropSocket(third))
    door.lose(fourth)
    sixth = door.knock()
    assert [x.number for x in door.admission._applicants.values() if x.connected] == [
        live,
        waits,
        third,
        fifth,
        sixth,
    ]


def test_an_address_has_a_share_of_its_own(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_OF_ONE", 2)
    door.admission = Admission("g1")
    other, first, _ = door.knock(owner="b"), door.knock(owner="a"), door.knock(owner="a")
    door.knock(pushed_out(first), owner="a")
    assert door.hear(other, START)


def test_a_stream_that_is_too_fast_ends(door: Door) -> None:
    number = door.asked()
    door.answer(number, ACCEPTED)
    cut_off = do.RefuseSocket(number, "too fast", at_once=True)
    assert door.admission.too_fast(number) == [do.EndStream(number, "too_fast"), cut_off]
    assert door.lose(number) == []
    # The controller hears the same of one that it let in later.
    held = door.asked()
    assert door.admission.too_fast(held) == [replace(cut_off, socket=held)]
    assert door.lose(held) == []
    assert door.answer(held, ACCEPTED) == [closed(1, "too_fast")]
    assert door.kept == 0


def test_nobody_is_let_in_by_a_gateway_that_ends(door: Door) -> None:
    door.admission.draining = True
    assert door.admission.knock(door.now) == (None, [])


@pytest.mark.parametrize("answer", [ACCEPTED, OVERLAPS, ONE_WAY])
@pytest.mark.parametrize("reason", ["stop", "error"])
def test_a_socket_that_left_before_the_answer_is_told(
    door: Door, answer: m.StreamAccepted, reason: m.StreamEndReason
) -> None:
    number = door.asked()
    if reason == "stop":
        assert door.hear(number, ms.Stop()) == [do.CloseSocket(number)]
        assert door.lose(number, "close") == []  # the first reason counts
    else:
        assert door.lose(number) == []
    assert door.answer(number, answer) == [closed(answer.info.ordinal, reason)]
    assert door.kept == 0
    assert door.admission.not_needed("c1") == []  # it does not wait


def test_nothing_is_kept_of_what_a_socket_said_that_left_before_the_answer(door: Door) -> None:
    """Whoever comes and goes again and again would fill the memory with it."""
    number = door.asked()
    door.hear(number, frame(0))
    door.lose(number)
    assert not door.admission._applicants[number].held


def test_a_socket_that_left_and_is_refused_owes_nothing(door: Door) -> None:
    number = door.asked()
    door.lose(number)
    (refused,) = door.answer(number, m.StreamRefused(why="used"))
    assert isinstance(refused, do.RefuseSocket)
    assert door.kept == 0


def test_a_stop_ends_an_open_stream(door: Door) -> None:
    number = door.asked()
    door.answer(number, ACCEPTED)
    assert door.hear(number, ms.Stop()) == [do.EndStream(number, "stop"), do.CloseSocket(number)]
    assert door.lose(number, "close") == []


# ---------------------------------------------------------------------- overlapping streams


def test_an_overlapping_stream_opens_once_it_has_brought_enough(door: Door) -> None:
    number = door.asked()
    assert door.hear(number, *map(frame, range(3))) == []
    assert door.answer(number, OVERLAPS) == [do.Believe(number)]
    assert door.hear(number, ms.Dtmf(1, "5"), *map(frame, range(3, 6))) == []
    (opened,) = door.hear(number, frame(6))
    assert isinstance(opened, do.OpenStream)
    assert (opened.early, list(opened.held)) == ([frame(n) for n in range(7)], [ms.Dtmf(1, "5")])
    assert door.later(10.0) == []


def test_one_that_had_enough_before_the_answer_opens_at_once(door: Door) -> None:
    number = door.asked()
    door.hear(number, *map(frame, range(admission.OVERLAP_FRAMES)))
    _, opened = door.answer(number, OVERLAPS)
    assert isinstance(opened, do.OpenStream)
    assert len(opened.early) == admission.OVERLAP_FRAMES


def test_one_that_brings_too_little_opens_half_a_second_later(door: Door) -> None:
    number = door.asked()
    door.answer(number, OVERLAPS)
    assert door.later(0.4) == []
    (opened,) = door.later(0.1)
    assert isinstance(opened, do.OpenStream)
    assert (opened.early, list(opened.held)) == ([], [])


def test_one_that_ends_before_it_overlaps_is_told_at_once(door: Door) -> None:
    listener = door.waiting()
    number = door.asked()
    door.answer(number, OVERLAPS)
    assert door.hear(number, ms.Stop()) == [closed(3, "stop"), do.CloseSocket(number)]
    assert door.later(admission.OVERLAP_WITHIN) == []
    assert door.lose(number, "close") == []
    # It takes nothing from the call's other socket.
    assert door.admission.not_needed("c1") == [do.CloseSocket(listener)]


# ---------------------------------------------------------------------- one-way streams


def test_a_one_way_stream_waits_and_keeps_its_newest_two_seconds(door: Door) -> None:
    number = door.asked()
    door.hear(number, *map(frame, range(admission.MAX_HELD)))
    assert door.answer(number, ONE_WAY) == [do.Believe(number)]
    assert door.hear(number, frame(admission.MAX_HELD)) == []
    info = replace(INFO, ordinal=5)
    (opened,) = door.admission.turn(info)
    assert isinstance(opened, do.OpenStream)
    assert opened.accepted == replace(ONE_WAY, info=info)
    kept = range(admission.MAX_HELD + 1 - admission.MAX_WAITING, admission.MAX_HELD + 1)
    assert opened.early == [frame(n) for n in kept]


def test_a_turn_of_one_that_is_gone_is_answered(door: Door) -> None:
    assert door.admission.turn(ONE_WAY.info) == [closed(2, "close")]
    number = door.waiting()
    door.lose(number)
    assert door.kept == 1
    assert door.admission.turn(ONE_WAY.info) == [closed(2, "error")]
    assert door.kept == 0


def test_a_newer_one_takes_its_place_and_none_waits_for_ever(door: Door) -> None:
    older = door.waiting()
    newer = door.asked()
    assert door.answer(newer, ONE_WAY) == [do.Believe(newer), do.CloseSocket(older)]
    assert door.lose(older, "close") == []
    assert door.later(19.9) == []
    assert door.later(0.1) == [do.CloseSocket(newer)]
    assert door.lose(newer, "close") == []
    assert door.kept == 0
    # One that has left is forgotten then too.
    door.lose(door.waiting())
    door.later(20.0)
    assert door.kept == 0


# ---------------------------------------------------------------------- the table


@pytest.mark.parametrize(
    ("state", "happening"),
    [
        ("stranger", "let in"),  # nobody has asked for it
        ("live", "refused"),  # what is open ends, it is not refused
        ("over", "turn"),
        ("held", "turn"),  # the controller's answer comes first
    ],
)
def test_what_cannot_happen_is_named(
    state: admission.State, happening: admission.Happening
) -> None:
    applicant = Applicant(7, 0.0, state)
    with pytest.raises(AssertionError, match=f"socket 7 is {state}, and has no '{happening}'"):
        applicant.step(happening)
    assert applicant.state == state


def test_every_socket_ends_and_none_comes_back() -> None:
    """From each state the end is in reach; from the end nothing else is."""
    for state, row in admission.TABLE.items():
        assert "ended" in row, state
    assert set(admission.TABLE["over"].values()) == {"over"}
    assert set(admission.TABLE["left"].values()) == {"left", "over"}
