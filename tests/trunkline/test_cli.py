"""The command line: names, help, exit statuses, one line for each failure."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from trunkline.bus import wav
from trunkline.bus.errors import NumberNotFoundError
from trunkline.cli import call_and_answer, main, progress
from trunkline.doctor.finding import Finding, Known
from trunkline.load import command as load_command

COMMANDS = tuple(name for name, command in main.cli.commands.items() if not command.hidden)
#: Commands that print no results: processes, a script for a shell, a page that is opened, and a
#: command that prints what another one does. `keys` but for `keys show` prints one setting.
WITHOUT_JSON = {
    *("up", "gateway", "codec-worker", "controller", "carrier-sim", "completion"),
    *("console", "record", "keys"),
}


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
    shown = capsys.readouterr().out
    examples = re.split(r"Examples?:\n", shown)[1:]
    assert any(f"  trunkline {name}" in text or f"(trunkline {name}" in text for text in examples)


def test_no_command_shows_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    assert "trunkline demo  " in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in shown
    assert "with-parent" not in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_that_prints_results_prints_them_for_programs_too(name: str) -> None:
    options = {opt for param in main.cli.commands[name].params for opt in param.opts}
    assert ("--json" in options) != (name in WITHOUT_JSON)


def test_the_readme_and_the_list_of_commands_name_each_other() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    table = readme[readme.index("## Commands") : readme.index("## Settings")]
    for name in COMMANDS:
        assert f"trunkline {name}" in table or f"`{name}`" in table, name


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
        (("nonsense",), "No such command 'nonsense' (`trunkline --help` has examples)"),
        (
            ("call", "+14155557777"),
            "Missing option '--from' (`trunkline call --help` has examples)",
        ),
        (("restore", "--force"), "--force goes with --account (`trunkline restore --help` has"),
        (("call", "041555", "--from", "+14155551234"), "'TO': 041555 is not in E.164"),
        (("call", "+14155557777", "--from", "any"), "'--from': any is not in E.164"),
        (("answer", "+1 415 555 1234"), "'NUMBER': +1 415 555 1234 is not in E.164"),
        (("load", "+1", "--from", "any"), "'NUMBER': +1 is not in E.164"),
        (("doctor", "--live", "--number", "415"), "'--number': 415 is not in E.164"),
        (("doctor", "--live", "--from", "me"), "'--from': me is not in E.164"),
    ],
)
def test_wrong_usage_is_one_line_that_says_where_to_read_on(
    argv: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*argv)
    shown = capsys.readouterr().err
    assert shown.startswith("trunkline: ") and shown.count("\n") == 1
    assert said in shown


def test_a_file_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", str(tmp_path / "x" / ("y" * 300))) == 1
    assert "File name too long" in capsys.readouterr().err
    (tmp_path / "call.wav").write_bytes(b"")
    assert run("report", "call.wav") == 1
    assert "call.wav is no PCM WAV file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("up",), "TWILIO_ACCOUNT_SID is not set"),
        (("up",), "; `trunkline up --sim` needs no account\n"),
        (("restore", "--dry-run"), "`trunkline init` writes one)\n"),
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


def test_a_ready_file_takes_the_place_of_no_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("up", "--sim", "--ready-file", "/dev/null") == 1
    assert "something is there that is no file" in capsys.readouterr().err
    assert Path("/dev/null").exists()


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


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (("--dtmf", "12x"), "DTMF tones '12x' must match"),
        (("--record", "file/h.wav"), "file"),
        (("--record", ""), "Is a directory"),
    ],
)
def test_what_is_wrong_with_a_call_is_told_before_it_is_placed(
    wish: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a controller is looked for: there is none here."""
    Path("file").touch()
    assert run("call", "+14155557777", "--from", "+14155551234", *wish) == 1
    told = capsys.readouterr()
    assert said in told.err and told.err.count("\n") == 1 and told.out == ""


CLOSED = """
import os, socket, sys
for descriptor in (0, 1):
    os.close(descriptor)
sys.stdout = None
from trunkline.cli import main
main._open_standard_streams()
print(socket.socket().fileno(), sys.stdout.isatty(), file=sys.stderr)
"""


def test_where_standard_streams_are_closed_no_socket_takes_their_numbers() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CLOSED], capture_output=True, text=True, check=True
    )
    number, terminal = ended.stderr.split()
    assert int(number) > 2 and terminal == "False"


def test_whoever_reads_no_further_is_no_failure_that_is_told(tmp_path: Path) -> None:
    program = f"{sys.executable} -m trunkline"
    code = f"{program} --help | true; {program} init --json | head -c 1; true"
    ended = subprocess.run(
        ["/bin/bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ended.stderr == ""


# --------------------------------------------------------------------------- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("completion", shell) == 0
    said = capsys.readouterr()
    assert f"_TRUNKLINE_COMPLETE={shell}_complete" in said.out and "trunkline" in said.out
    assert said.err == ""


def test_what_the_script_of_bash_asks_for_is_answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_TRUNKLINE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "trunkline sta")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert run() == 0
    assert capsys.readouterr().out == "plain,status\n"
    monkeypatch.setenv("COMP_WORDS", "trunkline play --side ")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert run() == 0
    assert capsys.readouterr().out.split() == ["plain,both", "plain,ours", "plain,theirs"]


def test_bash_takes_the_script() -> None:
    """The function is there once bash has read it."""
    code = f'eval "$({sys.executable} -m trunkline completion bash)"; complete -p trunkline'
    ended = subprocess.run(["/bin/bash", "-c", code], capture_output=True, text=True, check=True)
    assert "_trunkline_completion" in ended.stdout


# --------------------------------------------------------------------------- for programs


def test_a_callers_text_commands_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class ALine(AsyncExitStack):
        number, pending_restores = "+14155551234", ()

        async def wait_for_call(self, timeout: float) -> object:
            return SimpleNamespace(caller="\x1b[2J", sid="CA1")

    async def talk(*of: object) -> bool:
        return True

    monkeypatch.setattr(call_and_answer, "Line", lambda number, **options: ALine())
    monkeypatch.setattr(call_and_answer, "_talk", talk)
    assert run("answer", "+14155551234") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "\\x1b[2J calls: CA1"


@pytest.mark.parametrize(
    ("argv", "missing", "said"),
    [
        (("call", "+14155557777", "--from", "+14155559999"), "+14155559999", "--from +14155559999"),
        (("answer", "+14155559999"), "+14155559999", "NUMBER +14155559999"),
        (
            ("call", "+14155557777", "--from", "+14155551234", "--attach", "b-leg"),
            "+14155557777",
            "--attach b-leg calls no other: use --attach a-leg",
        ),
        (("load", "+14155557777", "--from", "any"), "any", "attach_stream"),
        (("load", "+14155557777", "--from", "+14155559999"), "+14155559999", "--from +14155559999"),
    ],
)
def test_a_number_that_is_not_the_accounts_is_named_as_it_was_typed(
    argv: tuple[str, ...],
    missing: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(work: object) -> int:
        raise NumberNotFoundError('is called with attach_stream="a-leg"', number=missing)

    monkeypatch.setattr(call_and_answer, "run", fails)
    monkeypatch.setattr(load_command, "run", fails)
    if argv[0] == "load":
        wav.write(Path("q.wav"), np.zeros(240, np.int16))
        argv += ("--calls", "1", "--say", "q.wav")
    assert run(*argv) == 1
    told = capsys.readouterr().err
    assert said in told and ("attach_stream" in told) == (missing == "any")


def test_a_greeting_is_part_of_the_calls_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class ALine(AsyncExitStack):
        number, pending_restores = "+14155551234", ()

        async def place_call(self, to: str, **options: object) -> object:
            return SimpleNamespace(
                greeting=bytes(4 * 48_000),
                age=15.0,
                sid="CA1",
                direction="outbound",
                caller=self.number,
                callee=to,
                ended_reason="hang_up",
                hang_up=nothing,
            )

    async def nothing(*of: object, **options: object) -> None: ...

    monkeypatch.setattr(call_and_answer, "Line", lambda number, **options: ALine())
    for name in ("_hear", "_tell_digits", "_speak"):
        monkeypatch.setattr(call_and_answer, name, nothing)
    assert run("call", "+14155557777", "--from", ALine.number, "--callee-speaks-first") == 0
    said = capsys.readouterr().out
    assert "greeted for 4.0 s" in said and "ended (hang_up) after 15.0 s; heard 4.0 s" in said


def test_the_doctors_findings_are_one_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def clock(known: Known) -> list[Finding]:
        return [Finding("clock", "ok", "right"), Finding("bus", "fail", "gone", "start it")]

    monkeypatch.setattr("trunkline.doctor.run.CHECKS", (clock,))
    assert run("doctor", "--json") == 1
    said = capsys.readouterr()
    assert json.loads(said.out) == {
        "findings": [
            {"name": "clock", "state": "ok", "text": "right", "hint": ""},
            {"name": "bus", "state": "fail", "text": "gone", "hint": "start it"},
        ]
    }
    assert said.err == "trunkline doctor: bus: gone\n"


@pytest.mark.parametrize("outcome", [0, 3])
def test_a_restore_is_one_object(
    outcome: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def restored(*_: object, **__: object) -> tuple[int, list[str]]:
        return outcome, ["+14155551234 is as before"]

    monkeypatch.setattr("trunkline.controller.restore_command.restore_command", restored)
    assert run("restore", "--json") == outcome
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "done": outcome == 0,
        "dry_run": False,
        "lines": ["+14155551234 is as before"],
    }


def test_progress_is_for_terminals_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.working("asking [Twilio]"):
        pass
    assert list(progress.each([1, 2], "listening")) == [1, 2]
    said = capsys.readouterr()
    assert said.out == said.err == ""


def test_progress_on_a_terminal_is_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress.working("asking [Twilio]"):
        pass
    said = capsys.readouterr()
    assert "asking [Twilio]" in said.err and said.out == ""


# --------------------------------------------------------------------------- encodings


def _sound(path: Path) -> Path:
    wav.write(path, wav.from_bytes(bytes(16_000)), wav.from_bytes(bytes(16_000)), rate=8_000)
    return path


#: Names of files are bytes.
ANY_NAME = os.fsdecode(b"caf\xe9.wav")


@pytest.mark.parametrize(
    "argv",
    [
        ("report", "--json"),
        ("report", "--html", "page.html"),
        ("show",),
        ("show", "--json"),
        ("show", "--svg", "call.svg"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_file_may_have_any_name_and_a_terminal_any_encoding(
    argv: tuple[str, ...],
    encoding: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Waveforms are drawn with characters that few encodings have."""
    _sound(tmp_path / ANY_NAME)
    terminal = io.TextIOWrapper(io.BytesIO(), encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert run(argv[0], ANY_NAME, *argv[1:]) == 0
    terminal.flush()
    assert capsys.readouterr().err == ""
    terminal.seek(0)
    if "--json" in argv:
        assert json.loads(terminal.read())


@pytest.mark.parametrize(
    ("encoding", "argv"),
    [
        ("utf-8:strict", ("report", ANY_NAME, "--html", "page.html")),
        ("ascii:strict", ("report", ANY_NAME, "--html", "page.html")),
        ("ascii:strict", ("show", ANY_NAME, "--svg", "call.svg")),
    ],
)
def test_a_process_takes_any_name_and_the_encoding_of_its_environment(
    encoding: str, argv: tuple[str, ...], tmp_path: Path
) -> None:
    """Python makes its streams and arguments, and it imports what its command needs."""
    _sound(tmp_path / ANY_NAME)
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "trunkline", *argv]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_page_is_utf_8_as_it_says_in_every_locale(tmp_path: Path) -> None:
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    code = (
        "from pathlib import Path; from trunkline.reports import files; "
        r"files.write(Path('page.html'), '\xfc\udce9')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "ü\\udce9"
