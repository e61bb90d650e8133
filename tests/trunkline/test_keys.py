"""``trunkline keys``: who may join a tcp bus with a key of his own."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trunkline.bus import client_keys
from trunkline.bus.curve import ClientCurve, CurveKeys, shown
from trunkline.cli.main import cli

PUBLIC = CurveKeys("the bus's").server_public


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRUNKLINE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TRUNKLINE_BUS_KEY", "the bus's")
    return tmp_path / "state" / "bus-clients"


def run(*argv: str) -> Result:
    return CliRunner().invoke(cli, ["keys", *argv])


def test_a_key_is_made_shown_and_removed(file: Path) -> None:
    made = run("make", "ci-runners")
    assert made.exit_code == 0
    name, _, text = made.output.strip().partition("=")
    key = ClientCurve.read(text)
    assert name == "TRUNKLINE_CLIENT_KEY" and key.server_public == PUBLIC
    assert client_keys.read(file) == {"ci-runners": key.public}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert text not in file.read_text() and key.text[4:68] not in file.read_text()
    lines = run("show").output.splitlines()
    assert lines == [f"{shown(PUBLIC)}  (the bus itself)", f"{shown(key.public)}  ci-runners"]
    told = json.loads(run("show", "--json").output)
    assert told == {"bus": shown(PUBLIC), "clients": {"ci-runners": shown(key.public)}}
    again = run("make", "ci-runners")
    assert again.exit_code == 2 and "has a key already" in again.output
    gone = run("remove", "ci-runners")
    assert gone.exit_code == 0 and "gets no new one" in gone.output
    assert client_keys.read(file) == {}
    assert run("remove", "ci-runners").exit_code == 2


def test_a_key_that_is_made_elsewhere_never_leaves_its_machine(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRUNKLINE_BUS_KEY")  # that machine has no key of the bus
    made = run("make", "laptop", "--server", shown(PUBLIC))
    assert made.exit_code == 0 and not file.exists()
    text, command = made.output.splitlines()
    key = ClientCurve.read(text.partition("=")[2])
    assert key.server_public == PUBLIC
    argv = re.search(r"trunkline keys (.*)", command)
    assert argv is not None and run(*argv[1].split()).exit_code == 0
    assert client_keys.read(file) == {"laptop": key.public}


@pytest.mark.parametrize(
    "argv",
    [
        ("make", "two words"),
        ("add", "it", "0" * 63),
        ("add", "it", "Z" * 64),
        ("make", "it", "--server", "short"),
    ],
)
def test_what_is_no_name_and_no_key_is_refused(file: Path, argv: tuple[str, ...]) -> None:
    assert run(*argv).exit_code == 2 and not file.exists()
