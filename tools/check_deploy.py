"""Checks the files of deploy/ as far as that goes without an engine and without systemd running.

``make lint`` runs it. hadolint reads the container file, the compose file fits the schema of the
compose specification, and ``systemd-analyze verify`` reads the units. Units name the command where
an installation has it; here they are read with this environment's. The example for Kubernetes is
rendered and compared, where kubectl is installed; ``--write`` writes what it renders.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DEPLOY = Path(__file__).parents[1] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
BIN = Path(sys.executable).parent
INSTALLED = "/opt/trunkline/bin/"


def run(*argv: str | Path, silent: bool = False) -> bool:
    """Whether the program finds nothing. What it says is shown where it does. ``silent``: one that
    finds nothing says nothing, and its exit status does not tell."""
    done = subprocess.run([str(each) for each in argv], capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).strip()
    fine = done.returncode == 0 and not (silent and said)
    if not fine:
        print(f"{argv[0]}: {said}", file=sys.stderr)
    return fine


def check_units() -> bool:
    """systemd's own reading of all units at once, because they name one another."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        print("systemd-analyze is not here: the units were not read", file=sys.stderr)
        return sys.platform != "linux"
    with tempfile.TemporaryDirectory() as name:
        copies = []
        for unit in sorted((DEPLOY / "systemd").iterdir()):
            text = unit.read_text()
            assert INSTALLED in text, f"{unit.name} starts nothing"
            copy = Path(name) / unit.name
            copy.write_text(text.replace(INSTALLED, f"{BIN}/"))
            copies.append(copy)
        # --man=no: it has no pages to look for.
        return run(analyze, "verify", "--man=no", *copies, silent=True)


def check_kubernetes(*, write: bool = False) -> bool:
    """What kubectl makes of the example is what is written beside it."""
    kubectl = shutil.which("kubectl", path=f"{BIN}:{os.environ.get('PATH', os.defpath)}")
    if kubectl is None:
        print("kubectl is not here: deploy/kubernetes was not rendered", file=sys.stderr)
        return True
    example, rendered = KUBERNETES / "example", KUBERNETES / "rendered.yaml"
    done = subprocess.run(
        [kubectl, "kustomize", str(example)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        print(f"kubectl kustomize: {done.stderr.strip()}", file=sys.stderr)
    elif write:
        rendered.write_text(done.stdout)
    elif done.stdout != rendered.read_text():
        print(f"{rendered} is out of date: {Path(__file__).name} --write", file=sys.stderr)
        return False
    return done.returncode == 0


def main() -> int:
    """The exit status: 0 where nothing was found."""
    found = [
        run(BIN / "hadolint", "--no-color", DEPLOY / "Containerfile"),
        run(
            BIN / "check-jsonschema",
            "--builtin-schema",
            "vendor.compose-spec",
            DEPLOY / "compose.yaml",
        ),
        check_units(),
        check_kubernetes(write="--write" in sys.argv[1:]),
    ]
    return 0 if all(found) else 1


if __name__ == "__main__":
    sys.exit(main())
