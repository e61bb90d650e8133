"""The commands that stand on the pages, and what is done with each of them.

A command is a line of a code block without a language or in ``sh``, unless the block is a drawing;
a ``run:`` of a workflow; an example in the help of a command; or code in a sentence that has
options or arguments. A block that leaves something running (``&``) is one command. What only says
how a command looks, such as ``trunkline show SID``, is none.

``console`` blocks are run as they stand, with what they print. All other commands are run beside
them (tests/dropin/test_pages.py), but for those of these two lists. Both are literal. What stands
on no page any more, or is run, may not stay in them (tests/tools/test_page_commands.py).

- :data:`ELSEWHERE` names the test that runs it, because it lasts until somebody ends it, or takes
  long.
- :data:`NOT_RUN` says why it cannot be run, and what is looked at in its place.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

_UP: Final = "trunkline/test_up.py::test_the_ready_line_and_the_status_tell_what_runs"
_UP_SIM: Final = "trunkline/test_up_sim.py::test_without_any_setting_it_can_be_used_at_once"
_TUNNEL: Final = "trunkline/test_tunnel.py::test_the_url_is_found_and_the_program_ended"
_SCALES: Final = "survival/test_scaling.py::test_a_worker_that_is_added_takes_new_calls"
_HONCHO: Final = "e2e/test_honcho.py::test_a_call_through_honchos_stack_to_another_process"
_HONCHO_SIM: Final = "e2e/test_honcho.py::test_the_stack_beside_the_stand_in_puts_its_numbers_back"
_FLEET: Final = "survival/test_fleet.py::test_a_host_dies_for_ever_while_its_calls_talk"
_KEEPER: Final = "trunkline/test_keep_alive.py::test_a_keeper_ends_with_its_child"
_LIVE: Final = "trunkline/live/test_command.py::test_all_holds"
_LOAD: Final = "e2e/test_load.py::test_the_latency_of_a_bot_by_calls_at_a_time"
_RECORD: Final = "trunkline/test_record.py::test_record_runs_a_command_whose_stacks_keep_cassettes"
_FIRST: Final = "tools/test_packages.py::test_the_first_minutes_with_the_wheel_alone"
_WORKERS: Final = "dropin/test_pytest_plugin.py::test_all_workers_share_one_stack"
_SHELLS: Final = "trunkline/test_cli.py::test_each_shell_gets_its_script"
_STREET: Final = "trunkline/test_phone_line.py::test_far_ends_are_put_on_the_line"
_WATCHES: Final = "e2e/test_prometheus.py::test_every_panel_and_every_alert_has_data"
_TRACED: Final = "dropin/test_own_stack.py::test_all_processes_join_the_trace"
_FAR_ENDS: Final = "trunkline/test_up_sim.py::test_the_user_names_numbers_and_far_ends"
_CARRIER: Final = "carrier_sim/test_command.py::test_an_example_of_the_help_is_run"
_OTLP: Final = "controller/test_process.py::test_metrics_go_to_a_collector_where_the_environment"

#: A command, and the beginning of the name of the test that runs it: with these options, or with
#: others where the page's are too many calls or processes for a test.
ELSEWHERE: Final[dict[str, str]] = {
    "trunkline up": _UP,
    "trunkline up --sim": _UP_SIM,
    "trunkline up --sim --ready-file up.json": _UP_SIM,
    "TRUNKLINE_SIM_NUMBERS=+14155551234 "
    'TRUNKLINE_SIM_CALLEES="+14155557785=menu:bank.toml +14155557786=voicemail" '
    "trunkline up --sim": _FAR_ENDS,
    "trunkline carrier-sim --number +14155551234=https://old.example/voice "
    "--callee +14155557777=echo": _CARRIER,
    "trunkline carrier-sim --port 9081 "
    "--callee '+14155557777=wav:hello.wav,when_silent=0.7,repeat'": _CARRIER,
    "trunkline carrier-sim --callee +14155550001=busy --callee +14155550002=no-answer": _CARRIER,
    "trunkline carrier-sim --callee +14155550003=menu:bank.toml "
    "--callee +14155550004=voicemail": _CARRIER,
    "trunkline carrier-sim --line mobile-bad --callee +14155557777=echo": _CARRIER,
    "trunkline carrier-sim --callee +14155557777=speech:austen-0880,repeat@train": _CARRIER,
    "trunkline up --tunnel cloudflared": _TUNNEL,
    "trunkline up --tunnel ngrok": _TUNNEL,
    "trunkline up --gateways 4 --codec-workers 6": _SCALES,
    "trunkline up --public-url https://line.example.com --gateways 2 --codec-workers 4": _SCALES,
    "TRUNKLINE_DATABASE_URL=postgresql://line:secret@db.example.com:5432/lines"
    "?sslmode=verify-full trunkline up": "survival/test_database.py::test_the_database_dies_and",
    "OTEL_METRICS_EXPORTER=otlp OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 "
    "trunkline up": _OTLP,
    "opentelemetry-instrument trunkline up": _TRACED,
    "trunkline gateway --keep-alive": _KEEPER,
    "trunkline gateway --http-port 9000": _KEEPER,
    "trunkline codec-worker --keep-alive": _KEEPER,
    "trunkline controller --keep-alive": _KEEPER,
    "TRUNKLINE_BUS=tcp://10.0.0.1:7000 trunkline up": _FLEET,
    "TRUNKLINE_BUS=tcp://10.0.0.2:7000 trunkline up": _FLEET,
    "TRUNKLINE_BUS=tcp://10.0.0.10:7000 trunkline controller --keep-alive": _KEEPER,
    "TRUNKLINE_BUS=tcp://10.0.0.10:7000 TRUNKLINE_HTTP_HOST=0.0.0.0 trunkline gateway "
    "--keep-alive": _KEEPER,
    "TRUNKLINE_BUS=tcp://10.0.0.10:7000 trunkline codec-worker --keep-alive": _KEEPER,
    "honcho start": _HONCHO,
    "honcho start -c codec_worker=4,gateway=2": _HONCHO,
    "honcho start -c gateway=4,codec_worker=6": _HONCHO,
    "honcho -e .env.sim -f Procfile.sim start": _HONCHO_SIM,
    "trunkline demo": _FIRST,
    "trunkline demo --json --out demo": "e2e/test_surroundings.py::test_the_demo_runs_without_home",
    "trunkline doctor --live --number +14155551234": _LIVE,
    "trunkline doctor --live --number +14155551234 --tunnel cloudflared --yes --json": _LIVE,
    "trunkline load +14155557778 --from +14155551234 --calls 50 --say question.wav": _LOAD,
    "trunkline load +14155557778 --from +14155551234 --calls 20 --say question.wav "
    "--questions 3 --limits latency_p95=1.5,failures=0 --json": _LOAD,
    "trunkline record pytest --phone-sim tests/": _RECORD,
    "trunkline record --no-sound trunkline up": _RECORD,
    "trunkline record --dir cassettes --no-sound trunkline up": _RECORD,
    "pytest -n 4": _WORKERS,
    "pytest -n 4 --phone-sim": _WORKERS,
    "pytest -n 8": _WORKERS,
    "pytest --phone-sim": _FIRST,
    "pytest --phone-sim --phone-line street": _STREET,
    "python -m pytest --phone-sim": _FIRST,
    "cd line-tests && pytest --phone-sim": _FIRST,
    "python -m benchmarks.lines": "benchmarks/test_lines.py::test_a_line_does_what_it_claims",
    "trunkline doctor --live": _LIVE,
    "prometheus --config.file=deploy/prometheus/prometheus.yml": _WATCHES,
    "python -m trunkline": "trunkline/test_cli.py::test_no_command_shows_them_all",
    'eval "$(trunkline completion bash)"': "trunkline/test_cli.py::test_bash_takes_the_script",
    'eval "$(trunkline completion zsh)"': _SHELLS,
    "trunkline completion fish > ~/.config/fish/completions/trunkline.fish": _SHELLS,
    "trunkline completion bash": _SHELLS,
}

INSTALLS: Final = "it would fetch packages: those that it names are there, with these extras"
MAKES: Final = "it lasts, or changes the checkout: make finds its recipe"
BY_CI: Final = "CI runs it: .ci/run names it"
MEASURES: Final = "it measures for minutes: it takes these options"
COSTS: Final = "it costs a call: the test on its page reads AGENT_NUMBER"
DEPLOYS: Final = "it changes a machine: the files, users and units that it names are there"

#: A command, and why it is not run: what is looked at in its place.
NOT_RUN: Final[dict[str, str]] = {
    "pip install .": INSTALLS,
    "pip install '.[scenario]'": INSTALLS,
    "pip install '.[pytest]'": INSTALLS,
    "pip install trunkline": INSTALLS,
    "pip install 'trunkline[demo]'": INSTALLS,
    "pip install 'trunkline[pytest]'": INSTALLS,
    "pip install 'trunkline[scenario]'": INSTALLS,
    "pip install 'trunkline[postgres]'": INSTALLS,
    "pip install 'trunkline[otlp]'": INSTALLS,
    "pip install --ignore-requires-python -e '.[scenario]'": INSTALLS,
    "pip install 'trunkline[scenario]' pytest pytest-asyncio pytest-xdist": INSTALLS,
    "pip install opentelemetry-distro opentelemetry-exporter-otlp": INSTALLS,
    "python3 -m venv .venv && . .venv/bin/activate": INSTALLS,
    "python3 -m venv /opt/trunkline && /opt/trunkline/bin/pip install trunkline": INSTALLS,
    "pip-audit --strict --disable-pip --require-hashes -r requirements.txt": DEPLOYS,
    "make lint": BY_CI,
    "make test": BY_CI,
    "make simulate": BY_CI,
    "make fuzz": BY_CI,
    "make chaos": BY_CI,
    "make hostile": BY_CI,
    "make hosts": MAKES,
    "make test-units": MAKES,
    "make test PYTHON=python3.13 VENV=.venv-3.13": MAKES,
    'make simulate SIMULATE="--seeds 20000 --first 1500"': MAKES,
    "make demo": MAKES,
    "make bench": MAKES,
    "make bench-capacity": MAKES,
    "make docs": MAKES,
    "make site": MAKES,
    "make clean": MAKES,
    "make clean VENV=.venv-3.13": MAKES,
    "python benchmarks/console.py": MEASURES,
    "python benchmarks/control_plane.py": MEASURES,
    "python benchmarks/ear.py": MEASURES,
    "python benchmarks/ear.py --recordings prompts/ --first 10000 --calls 40": MEASURES,
    "python benchmarks/ear_bots.py": MEASURES,
    "python benchmarks/growth.py": MEASURES,
    "python benchmarks/parallel.py": MEASURES,
    "AGENT_NUMBER=+14155550123 pytest": COSTS,
    "ulimit -n 65536": DEPLOYS,
    "ssh -L 8766:127.0.0.1:8766 host": DEPLOYS,
    "useradd --system trunkline": DEPLOYS,
    "install -m 0600 .env /etc/trunkline.env": DEPLOYS,
    "install -m 0644 deploy/systemd/trunkline.service /etc/systemd/system/": DEPLOYS,
    "systemctl enable --now trunkline": DEPLOYS,
    "sudo -u trunkline TRUNKLINE_BUS=ipc:///run/trunkline/bus /opt/trunkline/bin/trunkline "
    "status": DEPLOYS,
    "systemctl enable --now trunkline-controller trunkline-gateway@{1,2} "
    "trunkline-codec-worker@{1..4}": DEPLOYS,
    "docker build -f deploy/Containerfile -t trunkline .": DEPLOYS,
    "docker run --init --env-file .env -p 8765:8765 -v trunkline-state:/var/lib/trunkline "
    "trunkline": DEPLOYS,
    "kubectl create namespace trunkline": DEPLOYS,
    "kubectl -n trunkline create secret generic trunkline --from-env-file=secrets.env": DEPLOYS,
    "kubectl apply -k deploy/kubernetes/example": DEPLOYS,
    "kubectl -n trunkline create secret generic trunkline-bus-clients "
    "--from-file=bus-clients": DEPLOYS,
    "kubectl -n trunkline create secret generic load-tests --from-env-file=load-tests.env": DEPLOYS,
    "docker compose -f deploy/compose.yaml --profile tunnel --profile watch up --build": DEPLOYS,
}

#: A code block: what it is indented by, its language, and its lines.
_BLOCK: Final = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
#: Only drawings have these.
_DRAWN: Final = re.compile("[│─►◄✗‖]")
#: Code in a sentence is a command where it begins with a program, and says more than its name. A
#: line may end in the middle of it.
_IN_A_SENTENCE: Final = re.compile(
    r"`((?:[A-Z_]+=\S+ )*"
    r"(?:trunkline|pytest|make|honcho|python|pip|pip-audit|docker compose|systemctl|prometheus"
    r"|openssl|ssh|ulimit)[ \n][^`\n]+(?:\n[^`\n]+)?)`"
)
#: A part that stands for something else: SID, NAME, [--json], CA0123…, bash|zsh.
_STANDS_FOR: Final = re.compile(r"…|(?<![\w.])\[|\w\\?\|\w|(?<![\w$/.-])[A-Z]+(?![\w=])")
_RUN: Final = re.compile(r"^ *- run: (.*)$", re.MULTILINE)
_EXAMPLES: Final = re.compile(r"^ +Examples?:\n((?:    .*\n)+)", re.MULTILINE)
#: Behind a # or two blanks stands what a command is for.
_REMARK: Final = re.compile(r"(?:(?:^|\s+)#|(?<=\S)  ).*")


def _lines(block: str) -> list[str]:
    """The commands of a block, each on one line and without its remark."""
    if re.search(r"&$", block, re.MULTILINE):
        return [block]
    joined = re.sub(r"\\\n *", "", block)
    return [found for line in joined.splitlines() if (found := _REMARK.sub("", line).strip())]


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in this language, also those in its lists."""
    found = _BLOCK.findall(page.read_text())
    return [re.sub(rf"^{i}", "", text, flags=re.M) for i, kind, text in found if kind == language]


def in_console(page: Path) -> list[str]:
    """The commands of a page's ``console`` blocks."""
    lines = "\n".join(blocks(page, "console")).splitlines()
    return [line[2:] for line in lines if line.startswith("$ ")]


def commands(page: Path) -> list[str]:
    """The commands of a page that stand elsewhere, in order."""
    shown = [text for language in ("", "sh") for text in blocks(page, language)]
    found = [line for text in shown if not _DRAWN.search(text) for line in _lines(text)]
    for text in blocks(page, "yaml"):
        found += _RUN.findall(text)
    for text in blocks(page, "text"):
        found += [line for part in _EXAMPLES.findall(text) for line in _lines(part)]
    for code in _IN_A_SENTENCE.findall(_BLOCK.sub("", page.read_text())):
        code = re.sub(r"\n *", " ", code)
        if len(code.split()) > 2 or not code.startswith("trunkline "):
            found.append(code)
    return [
        command
        for command in dict.fromkeys(found)
        if "\n" in command or not _STANDS_FOR.search(command)
    ]


def named(page: Path) -> list[str]:
    """What a page's sentences say of commands: commands, names, and how they look."""
    return re.findall(r"`(trunkline [a-z][^`\n]*)`", _BLOCK.sub("", page.read_text()))


def to_run() -> dict[Path, list[str]]:
    """What is to be run beside the ``console`` blocks: each command once, by its first page."""
    done = {*ELSEWHERE, *NOT_RUN, *(command for page in PAGES for command in in_console(page))}
    found: dict[Path, list[str]] = {}
    for page in PAGES:
        found[page] = [command for command in commands(page) if command not in done]
        done.update(found[page])
    return found
