"""What the pages tell users to write works as it stands there, and every error is explained."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

import numpy as np
import page_commands
import pytest
from page_commands import PAGES, ROOT, blocks
from talk import assert_ended, clip

from trunkline import errors
from trunkline.bus import wav
from trunkline.carrier_sim.wav import SPEECH_DIR

pytest_plugins = ["pytester"]

#: Runs a page's script as `python SCRIPT` does.
SCRIPT = """
import runpy

def test_it():
    runpy.run_path({path!r}, run_name="__main__")
"""


#: A test that knows nothing of trunkline's pytest plugin, and joins the simulated stack.
STRANGER = """
import contextlib
import os
from trunkline import TwilioAgentAdapter

agent = TwilioAgentAdapter(
    account_sid=os.environ["TWILIO_ACCOUNT_SID"],
    auth_token=os.environ["TWILIO_AUTH_TOKEN"],
    phone_number="+14155551234",
    allowed_callees=["+14155557777"],
)

async def test_it():
    async with agent:
        await agent.place_call("+14155557777", attach_stream="a-leg")
"""
#: As much of jq as a script needs, where there is none: jq -r .NAME FILE
JQ = """#!{python}
import json, sys
print(json.load(open(sys.argv[3]))[sys.argv[2][1:]])
"""
#: Notes where the run's stack is.
NOTES = """
import contextlib
import os

def test_it():
    with open("bus", "w") as file:
        file.write(os.environ["TRUNKLINE_BUS"])
"""
#: Examples of these pages judge calls. The one that wants a line without a fault comes last, when
#: all others have started what they need.
_JUDGING_PAGES = ("ear", "gates", "listening", "load", "replay", "choppy")
JUDGED = tuple(f"test_{page}_" for page in _JUDGING_PAGES)
#: Runs the commands of a page's console block, and compares what they say.
CONSOLE = """
import re
from run_commands import run

def test_it(capfd, monkeypatch):
    monkeypatch.chdir({cwd!r})
    for command, pattern in {commands!r}:
        status, said, complained = run(command, capfd)
        assert (status, complained) == (0, ""), command
        assert re.fullmatch(pattern, said.strip()), said
"""
#: Runs the other commands of the pages.
COMMANDS = """
import pytest
from run_commands import prepared, run

@pytest.mark.parametrize("command", {commands!r})
def test_it(command, capfd):
    with prepared(command):
        status, said, complained = run(command, capfd)
    assert status == 0, said + complained
"""
#: Runs commands of the pages that are runs of pytest themselves, without any call.
RUNS_OF_PYTEST = """
import shlex
import pytest

@pytest.mark.parametrize("command", {commands!r})
def test_it(command, pytester):
    pytester.makepyfile("def test_nobody_calls(): pass")
    _, *options = shlex.split(command)
    pytester.runpytest_inprocess(*options).assert_outcomes(passed=1)
"""
#: The page for those who work on trunkline: its commands run in a checkout.
IN_A_CHECKOUT = {"CONTRIBUTING.md"}
#: The test that `trunkline init` writes.
STARTER = ROOT / "trunkline" / "starter" / "first_call.txt"


def commands(block: str) -> list[tuple[str, str]]:
    """The commands of a console block (``$ trunkline status``), each with a pattern of the lines
    that stand below it. There ``…`` stands for whatever it says."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(re.escape(line).replace("…", ".*"))
    return [(command, "(?s:" + "\n".join(lines) + ")") for command, lines in found]


@pytest.fixture
def reader(another_run: None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's project: the recordings that the pages speak of, and nothing of this run."""
    programs = [str(pytester.path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(programs))
    monkeypatch.setenv("COLUMNS", "100")
    (pytester.path / "tests").mkdir()
    for name in ("question", "hello"):
        clip(pytester.path / "tests" / f"{name}.wav", 0.8, "austen-0930")
    for name in ("greeting", "answer"):
        clip(pytester.path / "tests" / f"{name}.wav", 1.0)
    clip(pytester.path / "tests" / "interruption.wav", 1.3, "austen-0930")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("BROWSER", "true %s")
    # The file that leads the browser to the console is left there.
    monkeypatch.setattr(tempfile, "tempdir", str(pytester.path))
    player = pytester.mkdir("bin") / "afplay"
    player.write_text("#!/bin/sh\n")
    player.chmod(0o700)
    (pytester.path / "recordings").mkdir()
    recorded_call(pytester.path / "recordings" / "20260101T120000-CA0123.wav")
    for name in ("question", "hello"):
        shutil.copy(pytester.path / "tests" / f"{name}.wav", pytester.path)
    recorded_call(pytester.path / "call.wav")
    shutil.copy(ROOT / "tests" / "trunkline" / "inbound.cassette", pytester.path / "call.cassette")
    (pytester.path / "bank.toml").write_text(blocks(ROOT / "docs" / "far-end.md", "toml")[0])
    return pytester.path


def recorded_call(path: Path) -> None:
    """A call as the stack records it: the far end left, what it was played right."""
    said, answered = (wav.read(SPEECH_DIR / f"austen-{n}.wav", 8_000) for n in ("0880", "0930"))
    wav.write(path, np.concatenate([np.zeros(4 * 8_000, np.int16), answered]), said, rate=8_000)


def examples(reader: Path) -> dict[str, str]:
    """The pages' examples as files of tests."""
    found = {"test_stranger.py": STRANGER}
    for page in PAGES:
        # The test of the first minutes is the one that `trunkline init` writes, and the page's own
        # commands run it.
        shown = [] if page.name == "start.md" else blocks(page, "python")
        for n, text in enumerate(shown):
            name = f"{page.stem.lower()}_{n}.py"
            if "def test_" in text:
                found[f"test_{name}"] = text
            else:
                (reader / "tests" / name).write_text(text)
                found[f"test_{name}"] = SCRIPT.format(path=str(reader / "tests" / name))
        for n, text in enumerate(blocks(page, "console")):
            cwd = ROOT if page.name in IN_A_CHECKOUT else reader
            test = CONSOLE.format(commands=commands(text), cwd=str(cwd))
            found[f"test_{page.stem.lower()}_console_{n}.py"] = test
    return found


def imports_scenario(reader: Path, name: str, test: str) -> bool:
    """langwatch-scenario takes seconds to import: its examples run in one process, which pays."""
    script = reader / "tests" / name.removeprefix("test_")
    text = test + (script.read_text() if script.exists() else "")
    return "import scenario" in text or "TwilioAgentAdapter" in text


@pytest.mark.e2e
@pytest.mark.timeout(240)
@pytest.mark.parametrize("with_scenario", [True, False])
def test_every_example_runs_as_it_stands(
    reader: Path, pytester: pytest.Pytester, with_scenario: bool
) -> None:
    found = {
        name: text
        for name, text in examples(reader).items()
        if not name.startswith(JUDGED)
        if imports_scenario(reader, name, text) == with_scenario
    }
    # One after the other: `trunkline status` stands on a page with nobody else's call.
    run_examples(found, reader, pytester)


@pytest.mark.e2e
@pytest.mark.timeout(240)
@pytest.mark.measures
@pytest.mark.alone
def test_every_example_that_judges_calls_runs(reader: Path, pytester: pytest.Pytester) -> None:
    """A call that has holes, because the machine is busy, is not judged. So no more than two run at
    once, and nothing beside them."""
    every = examples(reader).items()
    found = {name: text for page in JUDGED for name, text in every if name.startswith(page)}
    run_examples(found, reader, pytester, "-n", "2")


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_every_other_command_of_the_pages_runs(reader: Path, pytester: pytest.Pytester) -> None:
    """The script of docs/ci.md as it stands. It starts a stack, runs the tests of the project, and
    ends the stack. The tests are all other commands of the pages."""
    found = [command for each in page_commands.to_run().values() for command in each]
    (script,) = [command for command in found if "\n" in command]
    found.remove(script)
    runs_of_pytest = [command for command in found if command.startswith("pytest")]
    others = [command for command in found if not command.startswith("pytest")]
    pytester.makepyfile(
        test_commands=COMMANDS.format(commands=others),
        # These come last: modules that such a run imports are thrown out behind it.
        test_runs_of_pytest=RUNS_OF_PYTEST.format(commands=runs_of_pytest),
    )
    pytester.makeini("[pytest]\naddopts = -p pytester\n")
    if shutil.which("jq") is None:
        program = reader / "bin" / "jq"
        program.write_text(JQ.format(python=sys.executable))
        program.chmod(0o700)
    # It is over once the stack, which has the same stdout, has ended. A command that fails ends the
    # script before the script has ended the stack.
    ends_all = "trap '[ $? = 0 ] || kill 0' EXIT\n"
    bash = subprocess.Popen(
        ["/bin/bash", "-ec", ends_all + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=reader,
        start_new_session=True,
    )
    try:
        said, errors = bash.communicate(timeout=200)
    finally:
        with contextlib.suppress(ProcessLookupError):  # all of it has ended, as it should
            os.killpg(bash.pid, signal.SIGTERM)
    assert bash.returncode == 0, said + errors
    assert f"{len(found)} passed" in said
    assert "ended with status 0" in errors


def run_examples(
    found: dict[str, str], reader: Path, pytester: pytest.Pytester, *options: str
) -> None:
    (ini,) = blocks(ROOT / "docs" / "ci.md", "ini")
    pytester.makeini(
        ini + "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
        "filterwarnings = ignore\n"
    )
    files = {"test_bus.py": NOTES} | found
    for name, text in files.items():
        (reader / "tests" / name).write_text(text)
    count = sum(text.count("def test_") for text in files.values())
    inputs = [f"tests/{name}" for name in files]
    result = pytester.runpytest_subprocess("--phone-sim", "-q", *options, *inputs, timeout=200)
    result.assert_outcomes(passed=count)
    assert count >= 4
    assert_ended((reader / "bus").read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_has_an_example_that_runs(page: Path) -> None:
    assert blocks(page, "python") or blocks(page, "console")


def test_every_ini_example_has_only_settings_that_there_are(request: pytest.FixtureRequest) -> None:
    examples = [text for page in PAGES for text in blocks(page, "ini")]
    assert len(examples) >= 2
    for text in examples:
        parser = ConfigParser()
        parser.read_string(text)
        assert parser.sections() == ["pytest"]
        for name in parser["pytest"]:
            request.config.getini(name)  # ValueError where no plugin knows it


def errors_of_the_page() -> str:
    """The table of errors in docs/migration.md."""
    page = (ROOT / "docs" / "migration.md").read_text()
    return page[page.index("## What each error means") : page.index("## Traces")]


def test_every_error_is_on_the_page_of_migration_with_what_to_do() -> None:
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \| ([^|]*) \|$", errors_of_the_page(), re.M)
    named = {name for error, _, _ in rows for name in re.findall(r"`(\w+)`", error)}
    assert set(errors.__all__) <= named
    assert {"TunnelNotReadyError", "FirstChunkTimeoutError"} <= named
    for error, when, todo in rows:
        assert when.strip() and todo.strip(), f"{error} is not explained"


def test_words_that_an_error_is_known_by_are_those_that_the_code_says() -> None:
    names = re.findall(r"^\| (`[^|]+)\|", errors_of_the_page(), re.M)
    quoted = re.findall(r'"([^"|]+)"', "".join(names))
    assert len(quoted) > 5
    files = sorted((ROOT / "adapter").rglob("*.py"))
    files += [ROOT / "bus" / name for name in ("errors.py", "redact.py")]
    code = "".join(path.read_text() for path in files)
    code = re.sub(r'"\n\s+f?"', "", code).replace("{mode!r}", "'answer'")
    for words in quoted:
        assert words in code, f"no error says {words!r}"


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)#]+\.md)\)", (ROOT / "README.md").read_text()))
    pages = [*PAGES[1:], *ROOT.glob("[a-z]*/README.md")]
    assert {str(page.relative_to(ROOT)) for page in pages} <= linked


def test_links_between_the_pages_lead_somewhere() -> None:
    found = 0
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
                found += 1
    assert found > 10


def test_the_page_of_the_first_minutes_shows_the_test_that_init_writes() -> None:
    (shown,) = blocks(ROOT / "docs" / "start.md", "python")
    code = STARTER.read_text().split('"""\n\n', 1)[1]
    assert shown == re.sub(r"^#:.*\n", "", code, flags=re.MULTILINE)
