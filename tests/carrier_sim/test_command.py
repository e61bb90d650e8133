"""``trunkline carrier-sim``: its help and its examples."""

from __future__ import annotations

import re
import shlex
import wave
from pathlib import Path

import pytest
from click.testing import CliRunner

from trunkline.bus.settings import OF_STAND_IN
from trunkline.carrier_sim import command
from trunkline.carrier_sim.sim import CarrierSim
from trunkline.cli.main import cli

EXAMPLES = re.findall(r"^  trunkline carrier-sim (.*)$", command._EPILOG, re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_help_is_run(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bank.toml").write_text('[main]\nsay = ["music:1"]\n')
    with wave.open("hello.wav", "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes(bytes(800))
    served: list[str] = []

    async def serve(sim: CarrierSim, *_: object) -> None:
        async with sim:
            served.append(sim.base_url)

    monkeypatch.setattr(command, "_serve", serve)
    argv = ["carrier-sim", *shlex.split(example), "--port", "0"]
    result = CliRunner().invoke(cli, argv, catch_exceptions=False)
    assert result.exit_code == 0 and len(served) == 1, result.output


def test_the_settings_know_its_variables() -> None:
    """By them a slip in such a name is found, which would be ignored here."""
    options = [param.name or "" for param in command.command.params]
    assert sorted(OF_STAND_IN) == sorted(f"TRUNKLINE_SIM_{name.upper()}" for name in options)


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_it_helps_as_every_command_does(option: str) -> None:
    result = CliRunner().invoke(cli, ["carrier-sim", option], prog_name="trunkline")
    assert result.exit_code == 0
    assert result.output.startswith("Usage: trunkline carrier-sim [OPTIONS]\n")
    assert "-h, --help" in result.output and "TRUNKLINE_SIM_CALLEES" in result.output
