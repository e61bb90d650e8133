"""Who is told of which voice webhooks: those that came for a session, and those refused."""

from __future__ import annotations

from trunkline.bus import messages as m
from trunkline.controller import events as ev
from trunkline.controller import instructions as do

from .fake_carrier import OURS, SECOND, THEIRS
from .stage import Stage, token_of

OTHER = "+14155550999"


def counted(stage: Stage, info: m.SessionInfo, peer: str = "a1") -> tuple[int, int]:
    told = [e for e in stage.events(peer, m.WebhooksCounted) if e.session == info.session]
    return sum(e.received for e in told), sum(e.rejected for e in told)


def test_each_caller_counts_once_whatever_the_redirects() -> None:
    stage = Stage()
    info = stage.armed(allowed_callers=[THEIRS])
    answer = stage.webhook("CA1")
    stage.webhook("CA1")
    stage.start(stage.webhook("CA1").token, "CA1")
    assert answer.kind == "stream"
    assert counted(stage, info) == (1, 0)
    assert stage.webhook("CA2").kind == "busy"
    assert counted(stage, info) == (2, 1)
    assert stage.webhook("CA3", caller=OTHER).kind == "reject"
    assert counted(stage, info) == (3, 2)


def test_a_caller_of_one_session_is_none_of_the_others() -> None:
    stage = Stage()
    mine = stage.armed(allowed_callers=[THEIRS])
    others = stage.armed(allowed_callers=[OTHER])
    stage.webhook("CA1", caller=OTHER)
    assert (counted(stage, mine), counted(stage, others)) == ((0, 0), (1, 0))
    # Nobody's caller is refused by both.
    stage.webhook("CA2", caller="+14155550998")
    assert (counted(stage, mine), counted(stage, others)) == ((1, 1), (2, 1))


def test_refused_signatures_are_told_to_who_holds_the_number() -> None:
    stage = Stage()
    info = stage.armed()
    stage.feed(
        m.WebhooksRefused(gateway="g1", kind="wrong signature", numbers={OURS: 3, SECOND: 1})
    )
    assert counted(stage, info) == (3, 3)


def test_a_b_leg_call_counts_the_callees_webhook() -> None:
    stage = Stage()
    info = stage.open()
    request, _ = stage.dial(info, to=SECOND, mode="b-leg")
    stage.look_up()
    stage.apply()
    stage.feed(ev.Taken(request, "CA1", "queued"))
    assert stage.webhook("CA2", caller=OURS, to=SECOND).kind == "stream"
    assert counted(stage, info) == (1, 0)


def test_an_a_leg_call_has_no_webhook() -> None:
    stage = Stage()
    info = stage.open(allowed_callees=[THEIRS])
    request, _ = stage.dial(info)
    create = stage.take(do.Create)
    stage.feed(ev.Taken(request, "CA1", "queued"))
    stage.start(token_of(create), "CA1")
    stage.webhook("CA1", d=request)
    assert counted(stage, info) == (0, 0)
