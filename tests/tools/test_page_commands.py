"""Commands of the pages that no run of the pages runs: why not, and what holds all the same."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import tomllib
from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path

import click
import page_commands
import pytest
import yaml
from click.testing import CliRunner
from packaging.requirements import Requirement
from page_commands import ELSEWHERE, NOT_RUN, PAGES, ROOT, commands, in_console, named

from trunkline.cli.main import cli

TESTS = ROOT / "tests"
#: Stand for something else.
ELLIPSES = re.compile(r"[\[\]…|\\]")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader is, with the files that commands read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "question.wav").touch()
    (tmp_path / "prompts").mkdir()
    return tmp_path


def on_pages() -> set[str]:
    return {command for page in PAGES for command in commands(page)}


def parse(command: click.Command, argv: list[str]) -> None:
    """click takes all of these options, and their values."""
    while isinstance(command, click.Group):
        command = command.commands[argv.pop(0)]
    command.make_context(command.name, argv)


def not_run(why: str) -> list[str]:
    return [command for command, reason in NOT_RUN.items() if reason == why]


# --------------------------------------------------------------------------- the two lists


def test_commands_are_found() -> None:
    found = on_pages()
    assert len(found) > 100
    assert {"trunkline up --tunnel cloudflared", "make lint", "pytest -n 4 --phone-sim"} <= found
    assert sum(map(len, page_commands.to_run().values())) > 30


def test_a_command_in_a_sentence_may_go_on_in_the_next_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Say `python\nbenchmarks/run.py --quick` or `trunkline up\n--sim`, and `make\nlint`.\n\n"
        "- `trunkline doctor\n  --json` is in a list. `make` and\n`trunkline up` are names.\n"
    )
    assert commands(page) == [
        "python benchmarks/run.py --quick",
        "trunkline up --sim",
        "make lint",
        "trunkline doctor --json",
    ]


def test_each_exception_is_needed() -> None:
    assert ELSEWHERE.keys() <= on_pages()
    assert NOT_RUN.keys() <= on_pages()
    run = {command for page in PAGES for command in in_console(page)}
    assert not run & (ELSEWHERE.keys() | NOT_RUN.keys())
    assert not ELSEWHERE.keys() & NOT_RUN.keys()


@pytest.mark.parametrize("command", ELSEWHERE)
def test_what_is_run_elsewhere_has_its_test_and_is_right(command: str, project: Path) -> None:
    file, _, name = ELSEWHERE[command].partition("::")
    assert re.search(rf"^(async )?def {name}", (TESTS / file).read_text(), re.MULTILINE)
    words = shlex.split(command)
    if "trunkline" in words and "-m" not in words and not re.search(r"[$>]", command):
        parse(cli, words[words.index("trunkline") + 1 :])
    if words[0] == "honcho":
        check_honcho(words)


def check_honcho(words: list[str]) -> None:
    """The files are there, and so is each process whose number is given."""
    given = dict(pairwise(words))
    procfile = (ROOT / given.get("-f", "Procfile")).read_text()
    assert (ROOT / given.get("-e", "Procfile")).is_file()
    for count in given.get("-c", "").split(","):
        assert not count or re.search(rf"^{count.partition('=')[0]}: ", procfile, re.MULTILINE)


# --------------------------------------------------------------------------- instead of a run


@pytest.mark.parametrize("command", not_run(page_commands.INSTALLS))
def test_what_an_installation_names_is_there(command: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = command.partition("pip install ")[2]
    for word in shlex.split(wanted):
        if word[0] == "-":
            continue
        requirement = Requirement(f"trunkline{word[1:]}" if word[0] == "." else word)
        if requirement.name == "trunkline":
            assert requirement.extras <= project["optional-dependencies"].keys()
        elif requirement.name not in OF_OTHERS:
            assert distribution(requirement.name)


#: Packages that this environment does without.
OF_OTHERS = {"opentelemetry-distro", "opentelemetry-exporter-otlp"}


@pytest.mark.parametrize("command", not_run(page_commands.MAKES) + not_run(page_commands.BY_CI))
def test_make_finds_the_recipe(command: str) -> None:
    make, *words = shlex.split(command)
    subprocess.run([make, "--dry-run", *words], cwd=ROOT, check=True, capture_output=True)
    if NOT_RUN[command] == page_commands.BY_CI:
        (verbs,) = re.findall(r"^for verb in (.*); do$", (ROOT / ".ci/run").read_text(), re.M)
        assert words[0] in verbs.split()


@pytest.mark.parametrize("command", not_run(page_commands.MEASURES))
def test_what_measures_takes_its_options(
    command: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, script, *options = shlex.split(command)
    monkeypatch.syspath_prepend(ROOT)
    parse(runpy.run_path(str(ROOT / script))["main"], options)


@pytest.mark.parametrize("command", not_run(page_commands.DEPLOYS))
def test_what_a_machine_is_given_is_there(command: str) -> None:
    """`make lint` reads these files, by tools/check_deploy.py."""
    words = shlex.split(command)
    for word in words:
        if ("/" in word and not word.startswith("/") and ":" not in word) or word.endswith(".txt"):
            assert (ROOT / word).exists(), word
    units = {path.name for path in (ROOT / "deploy/systemd").iterdir()}
    if words[0] == "systemctl":
        for unit in words[words.index("--now") + 1 :]:
            name, template, _ = unit.partition("@")
            assert f"{name}{template}.service" in units
    if words[0] == "useradd":
        service = (ROOT / "deploy/systemd/trunkline.service").read_text()
        assert f"User={words[-1]}\n" in service
    if words[:2] == ["docker", "compose"]:
        services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"].values()
        profiles = {profile for each in services for profile in each.get("profiles", ())}
        assert {b for a, b in pairwise(words) if a == "--profile"} == profiles
    if words[0] == "kubectl" and words[-2] != "-k":
        rendered = (ROOT / "deploy/kubernetes/rendered.yaml").read_text()
        name = words[words.index("create") + (3 if "generic" in words else 2)]
        # The tests' own pods, which nobody renders, take this one.
        assert name == "load-tests" or re.search(rf"[nN]ame(space)?: {name}$", rendered, re.M)


def test_a_call_that_costs_is_read_from_the_environment() -> None:
    (command,) = [each for each in NOT_RUN if each.startswith("AGENT_NUMBER=")]
    (page,) = [page for page in PAGES if command in commands(page)]
    assert 'os.environ.get("AGENT_NUMBER"' in page.read_text()


def test_every_exception_says_what_holds_all_the_same() -> None:
    """Each reason has its test above."""
    kinds = {
        page_commands.INSTALLS,
        page_commands.MAKES,
        page_commands.BY_CI,
        page_commands.MEASURES,
        page_commands.DEPLOYS,
        page_commands.COSTS,
    }
    assert set(NOT_RUN.values()) == kinds


# --------------------------------------------------------------------------- names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_sentence_names_is_a_command(page: Path) -> None:
    """Also where a part of it stands for something else."""
    for code in named(page):
        _, name, *options = code.split()
        assert name in cli.commands, code
        if not ELLIPSES.search(code) and not cli.commands[name].context_settings:
            result = CliRunner().invoke(cli, [name, *options, "--help"])
            assert result.exit_code == 0, f"{code}: {result.output}"
