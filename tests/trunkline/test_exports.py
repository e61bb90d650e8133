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
