"""What another user of the machine has, or could replace, is refused by every command, by name.

The commands run as a user without an entry. ``/usr`` is another user's, and anybody may write to
the directory in which they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .surroundings import Surroundings, hostile

WITHIN = 30.0
THEIRS = Path("/usr")


@pytest.fixture(scope="module")
def around() -> Iterator[Surroundings]:
    credentials = {
        "TWILIO_ACCOUNT_SID": "AC" + "1" * 32,
        "TWILIO_AUTH_TOKEN": "5ecre7",
        "TRUNKLINE_PUBLIC_URL": "https://line.example.com",
        "TRUNKLINE_CONSOLE_PORT": "0",
        "TRUNKLINE_HTTP_PORT": "0",
    }
    with hostile(**credentials) as made:
        yield made


def refused(around: Surroundings, *argv: str, **environment: str) -> str:
    """The one line that the command ends with, and its status is 1."""
    others = Surroundings(around.prefix, around.environment | environment, around.where)
    ended = others.run("trunkline", *argv, within=WITHIN)
    assert ended.returncode == 1, ended.stdout
    (line,) = ended.stdout.splitlines()
    return line


@pytest.mark.parametrize(
    "argv", [("status",), ("call", "+14155557777", "--from", "+14155551234"), ("gateway",)]
)
def test_nobody_joins_a_bus_of_another_user(around: Surroundings, argv: tuple[str, ...]) -> None:
    line = refused(around, *argv, TRUNKLINE_BUS=f"ipc://{THEIRS}")
    assert f"TRUNKLINE_BUS='ipc://{THEIRS}': {THEIRS} belongs to another user (uid " in line
    assert "): name a directory of yours, or `chown " in line


@pytest.mark.parametrize("command", ["controller", "codec-worker", "gateway", "up"])
def test_no_stack_runs_where_anybody_could_replace_its_bus(
    around: Surroundings, command: str
) -> None:
    line = refused(around, command, TRUNKLINE_BUS=f"ipc://{around.where}/{command}/bus")
    assert (
        f"others may write to {around.where} (mode 0777), and so could put another directory into "
        f"the place of {around.where}/{command}/bus: `chmod go-w {around.where}`"
    ) in line


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("controller",), f"{THEIRS} belongs to another user (uid "),
        (("restore",), f"{THEIRS} belongs to another user (uid "),
    ],
)
def test_another_users_state_directory_is_refused(
    around: Surroundings, argv: tuple[str, ...], says: str, short: str
) -> None:
    line = refused(
        around, *argv, TRUNKLINE_STATE_DIR=str(THEIRS), TRUNKLINE_BUS=f"ipc://{short}/bus"
    )
    assert f"TRUNKLINE_STATE_DIR='{THEIRS}': {says}" in line


def test_a_state_directory_that_anybody_could_replace_is_refused(
    around: Surroundings, short: str
) -> None:
    state = around.where / "state"
    line = refused(
        around, "controller", TRUNKLINE_STATE_DIR=str(state), TRUNKLINE_BUS=f"ipc://{short}/bus"
    )
    assert f"TRUNKLINE_STATE_DIR='{state}': others may write to {around.where} (mode 0777)" in line


def test_a_lock_that_is_a_link_writes_over_no_file(around: Surroundings, short: str) -> None:
    """The state directory is ours, and the link was put there while it was open to others."""
    make = (
        "import os, pathlib; at = pathlib.Path({0!r}); (at / 'state').mkdir(0o700, parents=True); "
        "(at / 'precious').write_text('a file of ours'); "
        "(at / 'state' / 'lock').symlink_to(at / 'precious')"
    )
    read = "import pathlib; print((pathlib.Path({0!r}) / 'precious').read_text())"
    assert run_python(around, make.format(short)) == ""
    line = refused(
        around,
        "controller",
        TRUNKLINE_STATE_DIR=f"{short}/state",
        TRUNKLINE_BUS=f"ipc://{short}/bus",
    )
    assert f"{short}/state/lock is a link, not a file of ours: `rm {short}/state/lock`" in line
    assert run_python(around, read.format(short)) == "a file of ours\n"


@pytest.fixture
def short(around: Surroundings) -> Iterator[str]:
    """A directory of that user's alone, under /tmp."""
    path = run_python(around, "import tempfile; print(tempfile.mkdtemp(dir='/tmp'))").strip()
    yield path
    run_python(around, f"import shutil; shutil.rmtree({path!r})")


def run_python(around: Surroundings, code: str) -> str:
    """What the code says, as that user."""
    return around.python(code, within=WITHIN)
