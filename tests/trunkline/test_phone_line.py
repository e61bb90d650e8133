"""``pytest --phone-line``: the stand-in's far ends of this run are on that line."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from trunkline.carrier_sim.sim import CarrierSim
from trunkline.pytest_plugin import fixtures, stack
from trunkline.pytest_plugin.fixtures import seconds


class Config:
    """A run with these options, and nothing in its ini file."""

    def __init__(self, line: str | None, ini: str = "") -> None:
        self._line = line
        self._ini = ini

    def getoption(self, name: str) -> Any:
        return self._line if name == "--phone-line" else None

    def getini(self, name: str) -> Any:
        return self._ini if name == "phone_line" else ""


async def found(
    monkeypatch: pytest.MonkeyPatch, sim: CarrierSim | None, line: str | None, ini: str = ""
) -> None:
    """The run's stack is looked for."""
    url = None if sim is None else sim.base_url
    there = stack.PhoneStack("ipc:///b", "AC1", "t", "http://h", url)
    monkeypatch.setattr(stack, "_find_stack", lambda run, config, simulated: there)
    config: Any = Config(line, ini)
    run: Any = None  # nobody asks it for the report of its calls
    assert await asyncio.to_thread(stack.find, run, config, simulated=True) is there


@pytest.mark.parametrize(
    ("line", "ini", "then"), [("street", "", "street"), (None, "train", "train")]
)
async def test_far_ends_are_put_on_the_line(
    monkeypatch: pytest.MonkeyPatch, line: str | None, ini: str, then: str
) -> None:
    async with CarrierSim() as sim:
        await found(monkeypatch, sim, line, ini)
        assert sim.exchange.line == then


async def test_who_asks_for_none_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with CarrierSim(line="office") as sim:
        await found(monkeypatch, sim, None)
        assert sim.exchange.line == "office"


async def test_a_line_that_there_is_not_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async with CarrierSim() as sim:
        with pytest.raises(pytest.UsageError, match=r"--phone-line: .*no line 'moon'"):
            await found(monkeypatch, sim, "moon")


async def test_a_real_carrier_has_no_such_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pytest.UsageError, match="--phone-line goes with the stand-in carrier"):
        await found(monkeypatch, None, "street")


def test_numbers_with_a_voice_url_are_no_part_of_the_pool() -> None:
    ours, agent, url = "+14155551234", "+14155550100", "http://127.0.0.1:9333/voice?a=b"
    assert stack._numbers([f"{agent}={url}", ours]) == (
        {agent: url, ours: stack.SIM_VOICE_URL},
        [ours],
    )
    numbers, pool = stack._numbers([f"{agent}={url}"])
    assert numbers[agent] == url and pool == [n for n in stack.SIM_NUMBERS if n != agent]


@pytest.mark.parametrize("item", ["14155551234", "http://127.0.0.1:9333/voice", "=http://h/v"])
def test_what_is_no_number_is_told_by_the_name_in_the_ini(item: str) -> None:
    with pytest.raises(pytest.UsageError, match=r"^phone_sim_numbers: '.*' is not in E\.164"):
        stack._numbers([item])


@pytest.mark.parametrize("text", ["abc", "nan", "-1", ""])
def test_a_wait_that_is_no_time_is_wrong_usage(text: str) -> None:
    with pytest.raises(pytest.UsageError, match=f"phone_wait = {text!r}: expected seconds"):
        seconds(text)
    assert seconds("300") == 300.0


def test_an_argument_that_the_marker_does_not_have_is_named_beside_those_it_has() -> None:
    def opened(number: str | None = None, allowed_callers: object = None) -> Any:
        return number

    marked = pytest.mark.phone_line
    assert fixtures._as_marked(opened, marked(number="+14155551234").mark) == "+14155551234"
    said = "phone_line takes number, allowed_callers: got an unexpected keyword argument 'line'"
    with pytest.raises(pytest.fail.Exception, match=said):
        fixtures._as_marked(opened, marked(line="x").mark)
