"""One operation at a time goes to each number: what comes late of one does not undo the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from trunkline.bus import messages as m
from trunkline.controller.rules.book.tokens import digest
from trunkline.controller.twilio.apply_restore import apply
from trunkline.controller.twilio.seal import Seal

from .clockwork import Clockwork, Controller, last_words_unheard
from .fake_carrier import OURS, row_for


@pytest.fixture(autouse=True)
def _unheard() -> Iterator[None]:
    with last_words_unheard():
        yield


def test_a_session_is_armed_again_behind_what_is_being_put_back_there() -> None:
    """A journal with two open overrides of one number; one is claimed, the other stands there."""
    world = Clockwork()
    sid = world.account.add_number(OURS)
    before = world.account.numbers[sid].fields
    info = m.SessionInfo(session="1" * 32, secret="2" * 32, number=OURS, mode="answer", armed=True)

    async def two_rows() -> None:
        ops = world.ops()
        holders = {info.session: digest(info.secret)}
        claimed = replace(row_for(sid, "claimed"), session=info.session, holders=holders)
        await ops.journal.plan(claimed, 0.0)
        url = ops.keys.voice_url(ops.public_url, "claimed", ops.stack, OURS, before)
        await ops.journal.intend("claimed", before, {"voice_url": url}, 0.0)
        await apply(ops, row_for(sid, "standing"), world.loop.time() + 30)

    task = world.loop.create_task(two_rows())
    world.run(2.0)
    task.result()
    world.account.plans["write"].append("late")  # of the one that is put back
    controller = Controller(world)
    world.run(0.05)
    controller.feed(m.Hello(role="adapter", peer="a1", pid=1, sessions=[info]))
    beat = m.Beat(peer="a1", sessions=[info.session])
    for _ in range(160):
        world.run(0.5)
        controller.feed(beat)
        seal = Seal.read(world.account.numbers[sid].voice_url)
        if seal is not None and seal.override == "claimed":
            break
    else:
        raise AssertionError("it was not armed again")
    for _ in range(140):
        world.run(0.5)
        controller.feed(beat)
    seal = Seal.read(world.account.numbers[sid].voice_url)
    assert seal is not None and seal.override == "claimed"
    assert [row.id for row in world.journal.overrides.values() if row.open] == ["claimed"]
