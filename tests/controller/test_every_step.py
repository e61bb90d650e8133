"""A kill at every single step of an override's life, or a dial's, and of what comes after it.

A step is one resumption of a task: each await of the path, pauses between tries included. What was
under way to Twilio then arrives, or does not, without us. Afterwards a start recovers, or a session
comes back and takes its override up; and that is killed at every step too.

Of a process that is killed nothing stays but what it has done outside of itself. So two kills leave
the same world where nothing outside has changed between them, and one of them is enough. Half of
the steps are of this kind: a process that goes on behind an await often awaits the next thing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from simulation.clock import Process

from trunkline.bus.errors import TrunklineError
from trunkline.controller import events as ev
from trunkline.controller import instructions as do
from trunkline.controller.rules.book.dial import new_dial, order
from trunkline.controller.twilio import operations
from trunkline.controller.twilio.apply_restore import apply, restore
from trunkline.controller.twilio.seal import Seal

from .bench import DIAL
from .clockwork import LATE, Clockwork, last_words_unheard
from .fake_carrier import OURS, row_for

Job = Callable[[Clockwork], Coroutine[Any, Any, None]]

#: Longer than anything here takes: late requests, and rows that are read again for 60 s.
AT_REST = 200.0
#: A step that no job comes to.
NEVER = 1_000_000
#: None: all goes well. Else what becomes of the first (second, …) request of this kind.
TROUBLE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("write", ()),
    ("write", ("429",)),
    ("write", ("timeout_before",)),
    ("write", ("timeout_after",)),
    ("write", ("late",)),
    ("write", ("ok", "late")),
    ("write", ("ok", "timeout_after")),
    ("write", ("500_after", "500", "timeout_after")),
    ("read", ("500",)),
    ("read", ("ok", "timeout_before")),
)


@pytest.fixture(autouse=True, scope="module")
def _unheard() -> Iterator[None]:
    with last_words_unheard():
        yield


async def life(world: Clockwork) -> None:
    """An override is put on, used for a second, and put back."""
    (sid,) = world.account.numbers
    ops = world.ops()
    row = await apply(ops, row_for(sid), world.loop.time() + 30)
    seal = Seal.read(world.account.numbers[sid].voice_url)
    assert seal is not None and seal.override == row.id
    await ops.pause(1.0)
    await restore(ops, row)


async def recovery(world: Clockwork) -> None:
    """What a start does with rows that nobody claims."""
    ops = world.ops()
    for row in await ops.journal.open_overrides():
        await restore(ops, row)


async def taking_up(world: Clockwork) -> None:
    """What a start does for a session that comes back, and later closes."""
    ops = world.ops()
    for row in await ops.journal.open_overrides():
        if row.state == "planned" and row.prior is not None:
            try:
                applied = await apply(ops, row, world.loop.time() + 30)
            except TrunklineError:
                left = await ops.journal.override(row.id)
                assert left is not None
                if left.open:
                    await restore(ops, left)
                continue
            await ops.pause(1.0)
            await restore(ops, applied)
        else:
            await restore(ops, row)


def killed(job: Job, world: Clockwork, step: int) -> bool:
    """Let the world's next process do ``job``, and kill it after ``step`` steps. False: it had
    come to its end."""
    process = world.process()
    world.loop.dies_at[process] = step
    task = world.loop.in_process(process, world.loop.create_task, job(world))
    # Whoever starts again does so while what was under way to Twilio still is.
    world.run(AT_REST, over=lambda: task.done() or not process.alive)
    if task.done():
        task.result()
    return not process.alive


def steps(job: Job, world: Clockwork) -> list[int]:
    """The steps of ``job`` at which a kill leaves a world that no earlier kill leaves; it runs to
    its end."""
    process = world.process()
    before: list[object] = []

    def look(acts: Process) -> None:
        if acts is process:
            before.append(world.outside)

    world.loop.before = look
    task = world.loop.in_process(process, world.loop.create_task, job(world))
    world.run(AT_REST, over=task.done)
    task.result()
    return [step for step, now in enumerate(before) if step == 0 or now != before[step - 1]]


def at_every_step(job: Job, world_before: Callable[[], Clockwork]) -> Iterator[Clockwork]:
    """Worlds in which ``job`` was killed at its first step, its second, …, and never."""
    for step in steps(job, world_before()):
        world = world_before()
        assert killed(job, world, step)
        yield world
    world = world_before()
    done(world, job)
    yield world


def fresh(operation: str, fates: tuple[str, ...]) -> Clockwork:
    world = Clockwork()
    world.account.add_number(OURS, voice_fallback_url="https://f.example.com")
    world.account.plans[operation].extend(fates)
    return world


def check_at_rest(world: Clockwork, job: Job) -> int:
    """Recover, once and for all: nothing is left, and what comes late does not undo the number's
    next override, nor do the rows that the first one left. Returns how often the recovery wrote."""
    world.account.plans.clear()
    before = len(world.account.writes)
    done(world, job)
    assert world.left == []
    written = len(world.account.writes) - before
    done(world, the_next_one)
    assert world.left == []
    return written


async def the_next_one(world: Clockwork) -> None:
    (sid,) = world.account.numbers
    ops = world.ops()
    row = await apply(ops, row_for(sid, "next"), world.loop.time() + 30)
    await ops.pause(LATE + 10.0)
    seal = Seal.read(world.account.numbers[sid].voice_url)
    assert seal is not None and seal.override == "next"
    await restore(ops, row)


def done(world: Clockwork, job: Job) -> None:
    process = world.process()
    task = world.loop.in_process(process, world.loop.create_task, job(world))
    world.run(AT_REST, over=task.done)
    task.result()


@pytest.mark.parametrize("after", [recovery, taking_up])
@pytest.mark.parametrize(("operation", "fates"), TROUBLE)
def test_killed_at_every_step(operation: str, fates: tuple[str, ...], after: Job) -> None:
    for world in at_every_step(life, lambda: fresh(operation, fates)):
        (sid,) = world.account.numbers
        quiet = not world.account.in_flight[sid]
        standing = world.account.numbers[sid] != world.account.expected[sid]
        written = check_at_rest(world, after)
        if after is recovery and quiet:
            assert written == standing


@pytest.mark.parametrize(("operation", "fates"), [TROUBLE[0], TROUBLE[3]])
@pytest.mark.parametrize("again", [recovery, taking_up])
def test_killed_at_every_step_and_again_at_every_step_of_what_comes_after(
    operation: str, fates: tuple[str, ...], again: Job
) -> None:
    for step in (*steps(life, fresh(operation, fates)), NEVER):

        def killed_once(step: int = step) -> Clockwork:
            world = fresh(operation, fates)
            assert killed(life, world, step) is (step != NEVER)
            return world

        for world in at_every_step(again, killed_once):
            check_at_rest(world, recovery)


def test_a_recovery_may_be_killed_any_number_of_times() -> None:
    """Each start gets a step further than the one before it."""
    world = fresh("write", ())
    world.account.plans["write"].extend(("ok", "429"))
    killed(life, world, 25)  # while it is used
    starts = [killed(recovery, world, step) for step in range(20)]
    assert starts.count(True) > 2 and world.left == []
    assert len(world.account.writes) <= 3


# --------------------------------------------------------------------------- dials


async def a_dial(world: Clockwork) -> None:
    """Twilio is asked for a call, which is looked for where it has not answered, and hung up."""
    ops = world.ops()
    row = replace(DIAL, asked=world.account.wall())
    dial = new_dial(row, world.loop.time(), "pace", [], "token", {})
    asked = do.Create(row, order(dial, ops.public_url, {}), world.loop.time() + 30)
    result: object = await operations.create(ops, asked, lambda: True, lambda told: None)
    if isinstance(result, ev.Unsure):
        result = await operations.settle(ops, row, lambda: True, lambda sid: False)
    if isinstance(result, ev.Taken):
        await operations.end(ops, row.call, (result.sid,), lambda failed: None)
        await ops.journal.dial_closed(row.request)


async def hanging_up(world: Clockwork) -> None:
    """What a start, and ``trunkline restore``, do with dials that nobody claims."""
    ops = world.ops()
    for row in await ops.journal.open_dials():
        await operations.hang_up_left(ops, row)


@pytest.mark.parametrize(
    ("operation", "fates"),
    [
        ("create", ()),
        ("create", ("429", "refused")),
        ("create", ("timeout_before",)),
        ("create", ("timeout_after",)),
        ("create", ("late",)),
        ("create", ("500_after",)),
        ("end", ("500", "timeout_after", "timeout_before")),
        ("list_calls", ("500",)),
    ],
)
def test_a_dial_killed_at_every_step(operation: str, fates: tuple[str, ...]) -> None:
    made = set()
    for world in at_every_step(a_dial, lambda: fresh(operation, fates)):
        world.account.plans.clear()
        for step in itertools.count():  # each start gets a step further
            if not killed(hanging_up, world, step):
                break
        world.run(LATE + 10.0)
        assert world.left == []
        made.add(len(world.account.calls))
    assert made <= {0, 1} and (1 in made or fates == ("timeout_before",))
