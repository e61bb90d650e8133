"""A live run beside a carrier that contradicts one belief names exactly that one.

All runs go on at the same time, in one loop: a carrier, a listener and five calls for each belief.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import uvloop

from trunkline.live.run import Outcome
from trunkline.live.verdicts import LIVE

from .bench import NUMBER, carrier, live

pytestmark = pytest.mark.e2e

#: A belief -> the beliefs that rest on it, and cannot be told where it does not hold.
RESTS_ON: dict[str, set[str]] = {
    "webhooks-are-signed": {"fragment-is-not-signed", "signed-url-is-the-given-one"},
    "the-auth-token-signs": {"fragment-is-not-signed", "signed-url-is-the-given-one"},
    "numbers-read-as-written": {"urls-are-kept-verbatim"},
    "reject-does-not-answer": {"reject-is-busy", "callbacks-name-the-cause"},
    "pause-keeps-ringing": {"completed-ends-ringing"},
    "fallback-is-asked": {"next-verb-after-refusal"},
    "marks-wait-for-playback": {"clear-empties-buffer", "clear-returns-marks"},
    "next-verb-after-close": {"next-verb-after-break", "stop-before-close"},
    "next-verb-after-break": {"stop-before-close"},
}
#: At once, which is two rounds of all. More would wait for one another on two cores.
AT_ONCE = 17


class Run:
    """One run, and how the number stood before and after it."""

    def __init__(self, outcome: Outcome, before: dict[str, object], after: dict[str, object]):
        self.outcome = outcome
        self.before, self.after = before, after


async def _one(directory: Path, names: tuple[str, ...], turns: asyncio.Semaphore) -> Run:
    async with turns, carrier(*names) as sim:
        number = sim.numbers[NUMBER]
        before = number.resource("AC") | {"date_updated": None}
        outcome = await live(directory, sim)
        assert all(not call.live for call in sim.calls.values())
        return Run(outcome, before, number.resource("AC") | {"date_updated": None})


async def _all(directory: Path) -> dict[str, Run]:
    turns = asyncio.Semaphore(AT_ONCE)
    runs = await asyncio.gather(
        _one(directory / "nothing", (), turns),
        *(_one(directory / name, (name,), turns) for name in LIVE),
    )
    return dict(zip(["", *LIVE], runs, strict=True))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    began = time.monotonic()
    # On asyncio's own loop (Python 3.11) a server that is closed forgets to close a connection that
    # it accepted in its last turn.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_all(tmp_path_factory.mktemp("live")))
    print(f"{len(found)} runs took {time.monotonic() - began:.1f} s")
    return found


def seen(run: Run) -> str:
    return "\n".join(f"{name}: {verdict}" for name, verdict in run.outcome.verdicts.all.items())


def test_beside_a_carrier_that_contradicts_nothing_all_holds(runs: dict[str, Run]) -> None:
    run = runs[""]
    assert run.outcome.verdicts.named("holds") == list(LIVE), seen(run)
    assert run.outcome.error is None


@pytest.mark.parametrize("name", LIVE)
def test_exactly_the_contradicted_belief_is_named(name: str, runs: dict[str, Run]) -> None:
    run = runs[name]
    assert run.outcome.verdicts.named("contradicted") == [name], seen(run)
    assert set(run.outcome.verdicts.named("unknown")) == RESTS_ON.get(name, set()), seen(run)
    assert run.outcome.error is None


@pytest.mark.parametrize("name", ["", *LIVE])
def test_the_number_is_put_back(name: str, runs: dict[str, Run]) -> None:
    run = runs[name]
    assert run.outcome.back
    assert run.after == run.before
