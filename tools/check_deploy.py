"""Checks the files of deploy/ as far as that goes without an engine and without systemd running.

``make lint`` runs it. hadolint reads the container file, the compose file fits the schema of the
compose specification, and ``systemd-analyze verify`` reads the units. Units name the command where
an installation has it; here they are read with this environment's. The example for Kubernetes is
rendered, compared, and held against the API's schemas; ``--write`` writes what is rendered.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DEPLOY = Path(__file__).parents[1] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
BIN = Path(sys.executable).parent
#: The oldest version of Kubernetes that the manifests are for, and the newest that is known.
API_VERSIONS = ("1.29", "1.37")
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
    """What kubectl makes of the example is what is written beside it, and the API knows all of
    it."""
    example, rendered = KUBERNETES / "example", KUBERNETES / "rendered.yaml"
    done = subprocess.run(
        [BIN / "kubectl", "kustomize", example], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        print(f"kubectl kustomize: {done.stderr.strip()}", file=sys.stderr)
    elif write:
        rendered.write_text(done.stdout)
    elif done.stdout != rendered.read_text():
        print(f"{rendered} is out of date: {Path(__file__).name} --write", file=sys.stderr)
        return False
    return done.returncode == 0 and all(
        run(BIN / "kubernetes-validate", "--strict", "--quiet", "-k", version, rendered)
        for version in API_VERSIONS
    )


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
