"""The command line: names, help, exit statuses, one line for each failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.cli import main

COMMANDS = (
    "up",
    "gateway",
    "codec-worker",
    "controller",
    "carrier-sim",
    "status",
    "restore",
    "call",
    "answer",
    "report",
    "calls",
    "show",
    "play",
    "init",
    "load",
    "menu",
    "doctor",
    "demo",
)


@pytest.fixture(autouse=True)
def empty_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the developer's own: an empty directory, no variables, a bus of one's own."""
    monkeypatch.chdir(tmp_path)
    for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TRUNKLINE_PUBLIC_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("TRUNKLINE_DEBUG", raising=False)
    monkeypatch.setenv("TRUNKLINE_BUS", f"ipc://{tmp_path}/bus")


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main.main(argv)
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_helps_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    assert f"trunkline {name}" in capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in shown
    assert "with-parent" not in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("trunkline, version ")


@pytest.mark.parametrize(
    "argv",
    [
        ("nonsense",),
        ("up", "--gateways", "0"),
        ("up", "--tunnel", "carrier-pigeon"),
        ("call", "+14155557777"),
        ("call", "+14155557777", "--from", "+14155551234", "--say", "missing.wav"),
        ("answer", "+14155551234", "--echo", "--say", "cli.wav"),
        ("restore", "--force"),
    ],
)
def test_wrong_usage_is_status_2(argv: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "cli.wav").touch()
    assert run(*argv) == 2


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("up",), "TWILIO_ACCOUNT_SID is not set"),
        (("up", "--http-port", "99999"), "TRUNKLINE_HTTP_PORT='99999'"),
        (("gateway", "--bus", "carrier-pigeon"), "TRUNKLINE_BUS='carrier-pigeon'"),
        (("up", "--public-url", "line.example.com"), "TRUNKLINE_PUBLIC_URL='line.example.com'"),
        (("controller", "--numbers", "+14155551234,12"), "'12' is no E.164 number"),
    ],
)
def test_a_wrong_setting_is_status_1_and_one_line_that_names_it(
    argv: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*argv) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert said in shown.err


def test_no_stack_is_status_1_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trunkline.cli.status.ANSWER_WITHIN", 0.05)
    assert run("status", "--json") == 1
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "no controller answers at ipc://" in shown.err


def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRUNKLINE_DEBUG", "1")
    assert run("up") == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_secret_is_never_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "do-not-show-me")
    assert run("up", "--http-port", "x") == 1
    assert "do-not-show-me" not in capsys.readouterr().err


def test_a_ready_file_needs_its_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("up", "--sim", "--ready-file", str(tmp_path / "none" / "up.json")) == 1
    said = capsys.readouterr().err
    assert said == f"trunkline: --ready-file {tmp_path}/none/up.json: there is no such directory\n"


@pytest.mark.parametrize("seconds", ["nan", "inf", "-inf", "-1", "1e9"])
@pytest.mark.parametrize("option", ["--timeout", "--listen"])
def test_a_time_that_is_none_is_wrong_usage(
    option: str, seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("answer", "+14155551234", f"{option}={seconds}") == 2
    assert option in capsys.readouterr().err


def test_what_an_error_quotes_commands_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRUNKLINE_BUS", "ipc://\x1b[2J\nall is well")
    assert run("status") == 1
    said = capsys.readouterr().err
    assert "\x1b" not in said and said.count("\n") == 1
