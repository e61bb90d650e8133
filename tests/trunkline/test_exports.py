"""The names of ``import trunkline``, with and without langwatch-scenario."""

from __future__ import annotations

import subprocess
import sys


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_without_scenario_the_adapter_says_what_to_install() -> None:
    seen = python(
        "import sys; sys.modules['scenario'] = None\n"
        "import trunkline\n"
        "try: trunkline.TwilioAgentAdapter\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    assert seen == (
        "TwilioAgentAdapter needs langwatch-scenario: pip install 'trunkline[scenario]'\n"
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert "no attribute 'Lines'" in python("import trunkline; trunkline.Lines")


def test_a_process_of_the_stack_imports_nothing_that_takes_long_and_that_it_may_not_need() -> None:
    """One after the other in one process, so that each line has those before it, too."""
    seen = python(
        "import sys, trunkline.cli.main\n"
        "long = ('numpy', 'scenario', 'opentelemetry', 'dotenv', 'platformdirs', 'rich', 'xml.sax',"
        " 'phonenumbers', 'requests', 'cryptography', 'prometheus_client', 'psycopg',"
        " 'starlette')\n"
        "def loaded(): return ' '.join(name for name in long if name in sys.modules)\n"
        "print('command:', loaded())\n"
        "import trunkline.calls.known\n"
        "print('calls:', loaded())\n"
        "import trunkline.gateway.process\n"
        "print('gateway:', loaded())\n"
        "import trunkline.controller.process\n"
        "print('controller:', loaded())\n"
        "import trunkline.codec_worker.process\n"
        "print('codec worker:', loaded())\n"
    )
    assert seen.splitlines() == [
        "command: ",
        "calls: ",
        "gateway: starlette",
        "controller: requests cryptography starlette",
        "codec worker: numpy requests cryptography starlette",
    ]
