"""A shell as bare and as hostile as a CI runner's: no home, no user, no environment, a dead proxy.

The user is a number without an entry. Root becomes one by setpriv; where Python or the checkout are
open to root alone, it keeps the right to read them. Others get one in a namespace of their own, and
where neither can be had, processes are told that there is no entry (no_home/).
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

UID: Final = 54321
#: Nobody listens on the discard port.
DEAD_PROXY: Final = "http://127.0.0.1:9"
_SETPRIV: Final = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
_AS_NOBODY: Final[tuple[tuple[str, ...], ...]] = (
    _SETPRIV,
    (*_SETPRIV, "--inh-caps=+dac_override", "--ambient-caps=+dac_override"),
    ("unshare", "--user", f"--map-user={UID}"),
    (),
)
_PROBE: Final = """
import os, pwd, subprocess, sys, trunkline.bus.settings
subprocess.run([sys.executable, "-c", ""], check=True)  # setpriv's own rights end with its child
try:
    pwd.getpwuid(os.getuid())
except KeyError:
    sys.exit(0)
sys.exit("there is an entry")
"""


@dataclass(frozen=True)
class Surroundings:
    """How a command is run in them. ``where``: a directory that anybody may write to."""

    prefix: tuple[str, ...]
    environment: dict[str, str]
    where: Path

    def run(self, *argv: str, within: float) -> subprocess.CompletedProcess[str]:
        """Run ``python -P -m ARGV`` to its end; what it says on both of its outputs is joined."""
        return self._run("-m", *argv, within=within)

    def python(self, code: str, within: float) -> str:
        """Run ``python -P -c CODE`` to its good end; what it says."""
        ended = self._run("-c", code, within=within)
        assert ended.returncode == 0, ended.stdout
        return ended.stdout

    def _run(self, *argv: str, within: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix, sys.executable, "-P", *argv],
            env=self.environment,
            cwd=self.where,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within,
        )


def _environment(prefix: tuple[str, ...]) -> dict[str, str]:
    """PATH, proxies where nobody listens, and nothing else."""
    found = {"PATH": os.environ["PATH"]}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        found |= {name: DEAD_PROXY, name.lower(): DEAD_PROXY}
    if not prefix:
        found["PYTHONPATH"] = str(Path(__file__).parent / "no_home")
    return found


@functools.cache
def _as_nobody() -> tuple[str, ...]:
    """The first of the ways that works on this machine."""
    said = []
    for prefix in _AS_NOBODY:
        if prefix and shutil.which(prefix[0]) is None:
            continue
        argv = [*prefix, sys.executable, "-P", "-c", _PROBE]
        ended = subprocess.run(
            argv, env=_environment(prefix), cwd="/", capture_output=True, text=True, timeout=30
        )
        if ended.returncode == 0:
            return prefix
        said.append(f"{prefix}: {ended.stderr}")
    raise AssertionError("no way to be a user without an entry:\n" + "\n".join(said))


@contextlib.contextmanager
def hostile(**environment: str) -> Iterator[Surroundings]:
    """The surroundings, with ``environment`` besides; the directory is removed afterwards."""
    prefix = _as_nobody()
    where = Path(tempfile.mkdtemp(prefix="tl-hostile-", dir="/tmp"))
    where.chmod(0o777)
    try:
        yield Surroundings(prefix, _environment(prefix) | environment, where)
    finally:
        shutil.rmtree(where)
