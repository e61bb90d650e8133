"""The far end speaks first: its greeting is kept whole, and what follows begins right behind it."""

from __future__ import annotations

import asyncio
import logging

import numpy as np
import pytest
from fake_call import FakeCall
from line_sound import NAMES, RATE, Samples, noise, pcm, power, silence, with_noise, words

from trunkline.adapter.turns.greeting import check_greeting, hear_greeting
from trunkline.adapter.turns.turns import Heard

log = logging.getLogger("trunkline.adapter")


def hello() -> Samples:
    """The far end's greeting."""
    return words(NAMES[1])


def more() -> Samples:
    """What it says later."""
    return words(NAMES[4])


def hearing(sound: Samples | bytes) -> tuple[FakeCall, Heard]:
    call = FakeCall(sound if isinstance(sound, bytes) else pcm(sound))
    return call, Heard(call)  # type: ignore[arg-type]  # all that it needs


async def greeting_of(heard: Heard, timeout: float = 5.0, longest: float = 30.0) -> bytes | None:
    async with asyncio.timeout(10):
        return await hear_greeting(heard, timeout=timeout, age=0.0, log=log, longest=longest)


@pytest.mark.parametrize(("kind", "snr"), [("clean", 0.0), ("line", 20.0), ("white", 15.0)])
@pytest.mark.parametrize("lead", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("name", NAMES)
async def test_it_is_whole_and_what_follows_begins_behind_its_last_sample(
    name: str, lead: float, kind: str, snr: float
) -> None:
    said = words(name)
    clean = np.concatenate([silence(lead), said, silence(1.5), more(), silence(1.5)])
    line = pcm(with_noise(clean, kind, snr, seed=5, power=power(said)))
    call, heard = hearing(line)
    greeting = await greeting_of(heard)
    assert greeting is not None
    rest = heard.rest() + call.sound.take_all()
    assert line.endswith(greeting + rest), "nothing is lost, nothing comes twice"
    first = (len(line) - len(greeting) - len(rest)) // 2
    last = first + len(greeting) // 2
    cut = (said[: max(0, first - round(lead * RATE))] ** 2).sum()
    assert cut < 0.001 * (said**2).sum(), "of its first words"
    end = lead * RATE + len(said)
    assert end - 0.25 * RATE < last < end + 0.7 * RATE, "it ends behind its last word"


async def test_a_pause_inside_it_does_not_end_it() -> None:
    line = np.concatenate([silence(0.5), hello(), silence(0.9), more(), silence(1.5)])
    _, heard = hearing(line)
    greeting = await greeting_of(heard)
    assert greeting is not None
    assert len(greeting) / 2 > len(hello()) + 0.9 * RATE + len(more()) * 0.95


async def test_words_that_begin_just_in_time_are_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The last frames before the timeout are loud, too few yet to open the gate."""
    hiss = noise("line", RATE, seed=1) * 30
    loud = hello() + noise("line", len(hello()), seed=2) * 30
    call, heard = hearing(np.concatenate([hiss, loud[:960]]))
    rest = pcm(np.concatenate([loud[960:], hiss, hiss]))
    asyncio.get_running_loop().call_later(0.1, call.sound.put, rest)
    greeting = await greeting_of(heard, timeout=0.001)
    assert greeting is not None and pcm(loud)[4800:-14400] in greeting
    assert not caplog.records


async def test_the_call_ends_before_anybody_spoke(caplog: pytest.LogCaptureFixture) -> None:
    call, heard = hearing(silence(0.5))
    call.end()
    assert await greeting_of(heard) is None
    (record,) = caplog.records
    assert "the call ended before anybody spoke" in record.message


async def test_on_a_line_that_carries_no_silence_it_ends_by_the_clock() -> None:
    """Nothing is believed of a carrier's silence: where it does not come, the turn ends as well."""
    call, heard = hearing(hello())
    greeting = await greeting_of(heard)
    assert greeting is not None and len(greeting) > 2 * (len(hello()) - 0.4 * RATE)
    call.sound.put(pcm(more()))
    answer = await heard.next_chunk(0.6, most_silence=30.0, first=False)
    with pytest.raises(TimeoutError):
        while True:
            answer += await heard.next_chunk(0.6, most_silence=30.0, first=False)
    assert len(answer) > 0.9 * 2 * len(more())


@pytest.mark.parametrize(
    "wrong", [0, -1, True, "10", None, float("nan"), float("inf"), 1e300, 10**400]
)
def test_a_timeout_that_is_none(wrong: float) -> None:
    with pytest.raises(ValueError, match="greeting_timeout must be a positive number"):
        check_greeting(wrong)
