"""``trunkline menu``: what it says of a menu's file, of one that is none, and of a call's way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from trunkline.carrier_sim.client import SimClient
from trunkline.carrier_sim.sim import CarrierSim
from trunkline.cli import main

MENU = '[main]\nsay = "beep:0.5"\ndigits = { 1 = "main" }\n'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRUNKLINE_TWILIO_API_URL", raising=False)
    (tmp_path / "bank.toml").write_text(MENU)
    return tmp_path / "bank.toml"


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main.main(("menu", *argv))
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_it_shows_and_draws_a_menu(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bank.toml", "--svg", "bank.svg") == 0
    assert capsys.readouterr().out.splitlines() == [
        "bank.toml: 1 steps, begins at main",
        "  main: 0.5 s: beep:0.5; waits 5 s for keys, 2 times",
        "    1 -> main",
    ]
    assert (file.parent / "bank.svg").read_text().startswith("<svg ")


def test_json_has_the_steps_and_where_they_lead(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bank.toml", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "bank.toml",
        "start": "main",
        "steps": {
            "main": {
                "said": ["beep:0.5"],
                "seconds": 0.5,
                "leads_to": [{"by": "1", "step": "main"}],
            }
        },
        "way": [],
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[main]\nsay = 'x'\n", "trunkline: bank.toml: main.say: 'x' is no sound: "),
        (None, "trunkline: bank.toml: No such file or directory; name a menu's TOML file"),
    ],
)
def test_a_mistake_is_one_line(
    file: Path, text: str | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.unlink() if text is None else file.write_text(text)
    assert run("bank.toml") == 1
    said = capsys.readouterr().err
    assert said.startswith(told) and said.count("\n") == 1, said


def test_a_calls_way_needs_to_know_whom_to_ask(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bank.toml", "--call", "CA1") == 1
    assert "--twilio-api-url" in capsys.readouterr().err


async def test_it_shows_the_way_of_a_call(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with CarrierSim() as sim:
        sim.add_number("+14155551234", voice_url="http://127.0.0.1:9/voice")
        with SimClient(sim.base_url) as client:
            bot = f"menu:{file}"
            sid = (await asyncio.to_thread(client.place_call, "+1415", "+14155551234", bot))["sid"]
        await asyncio.to_thread(
            run, "bank.toml", "--call", sid, "--twilio-api-url", sim.base_url, "--svg", "c.svg"
        )
    assert "    0.00 s  main" in capsys.readouterr().out
    assert "0.0 s" in (file.parent / "c.svg").read_text()


def test_a_picture_that_cannot_be_written_is_named(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bank.toml", "--svg", "/dev/full") == 1
    assert "/dev/full: No space left on device" in capsys.readouterr().err
