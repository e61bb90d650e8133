"""Runs commands of the pages, in a run of pytest that test_pages.py starts in a reader's project.

``trunkline …`` is run in this process, because each start of Python takes half a second of a core.
What needs a shell gets one.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from trunkline.carrier_sim.client import SimClient
from trunkline.cli.main import main

_SHELL: Final = re.compile(r"[|&;<>$`~]")


def run(command: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """The exit status, and what was said on stdout and stderr."""
    if command.startswith("trunkline ") and not _SHELL.search(command):
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(command)[1:])
        status = ended.value.code
        assert isinstance(status, int)
    else:
        status = subprocess.run(["/bin/bash", "-c", command], check=False).returncode
    said, complained = capfd.readouterr()
    return status, said, complained


@contextlib.contextmanager
def prepared(command: str) -> Iterator[None]:
    """What the command expects: the stack of ``up.json``, a directory of one's own, recordings,
    somebody who calls."""
    stack = json.loads(Path("up.json").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_TWILIO_API_URL", stack["sim"])
        patch.setenv("TRUNKLINE_PUBLIC_URL", stack["public_url"])
        patch.setenv("TRUNKLINE_RECORDINGS_DIR", "recordings")
        if command.startswith("trunkline init"):
            Path("new").mkdir(exist_ok=True)
            patch.chdir("new")
        caller = None
        if command.startswith("trunkline answer"):
            caller = threading.Thread(target=_call, args=(stack["sim"], command.split()[2]))
            caller.start()
        yield
        if caller is not None:
            caller.join()


def _call(sim: str, number: str) -> None:
    """Somebody calls as soon as the number is ours, and hangs up after a second."""
    carrier = SimClient(sim)
    deadline = time.monotonic() + 20
    while not carrier.numbers()[number]["voice_url"].startswith("http://127"):
        assert time.monotonic() < deadline, f"nobody waits at {number}"
        time.sleep(0.02)
    carrier.place_call("+14155550000", number, "speech:austen-0880,hang_up_after=1")
