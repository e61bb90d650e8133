"""The wheel and the sdist, as somebody meets them who has nothing else.

Both are built from the files of the repository. The wheel is installed into an environment that has
its declared dependencies and no other package. These are linked from this environment, so that no
network is needed. There the README's first minutes are tried, in an empty directory and with an
empty home.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from email import message_from_bytes
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement

pytestmark = [pytest.mark.e2e]

ROOT: Final = Path(__file__).parents[2]
ROOMS: Final = ("bus", "gateway", "codec_worker", "controller", "adapter", "carrier_sim", "ear")
#: What somebody does who has not read about the extra.
TOUCHES_SCENARIO: Final = """
try:
    from trunkline import TwilioAgentAdapter
except ImportError as error:
    print(error)
"""
CACHES: Final = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist, and with the wheel that was built from it."""
    where = tmp_path_factory.mktemp("packages")
    source = where / "source"
    shutil.copytree(ROOT / "trunkline", source / "trunkline", symlinks=True, ignore=CACHES)
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=CACHES)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", ".env.example"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(where / "dist")]
    subprocess.run([*build, str(source)], check=True, capture_output=True)
    return where / "dist"


def ours() -> set[str]:
    """The files of the package, by their import names' paths."""
    found = {path.relative_to(ROOT) for path in (ROOT / "trunkline").rglob("*")}
    for room in ROOMS:
        found |= {"trunkline" / path.relative_to(ROOT) for path in (ROOT / room).rglob("*")}
    return {
        path.as_posix()
        for path in found
        if (ROOT / path).is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_has_every_file_of_the_rooms_and_no_other_package(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl"), "it takes no compiler"
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/"
    assert {name for name in names if not name.startswith(info)} == ours()


def test_the_sdist_has_them_too(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert ours() | {"pyproject.toml", "setup.py", "README.md", "LICENSE"} <= names


# --------------------------------------------------------------------------- a clean environment


def needed(lines: Iterable[str], extra: str = "") -> set[str]:
    """The names of all packages that these requirements of ours, with an extra, lead to."""
    found: set[str] = set()
    todo = [(Requirement(line), of) for line in lines for of in {"", extra}]
    while todo:
        wanted, of = todo.pop()
        applies = wanted.marker is None or wanted.marker.evaluate({"extra": of})
        if applies and wanted.name not in found:
            found.add(wanted.name)
            for line in distribution(wanted.name).requires or ():
                todo += [(Requirement(line), each) for each in {"", *wanted.extras}]
    return found


def declared(wheel: Path) -> list[str]:
    """The requirements that the wheel declares."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(file.read(name)).get_all("Requires-Dist") or []


class Clean:
    """An environment with nothing in it, an empty home, and an empty directory to work in."""

    def __init__(self, where: Path, declared: list[str]) -> None:
        self._declared = declared
        self.python = where / "venv/bin/python"
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(where / "venv")], check=True
        )
        (self.site,) = (where / "venv/lib").glob("python3*/site-packages")
        self.project = where / "project"
        self.home = where / "home"
        self.project.mkdir()
        self.home.mkdir()

    def link(self, extra: str = "") -> None:
        """The packages that ours declares, with this extra, are there as they are here."""
        for name in needed(self._declared, extra):
            files = distribution(name).files or []
            for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "bin")}:
                there = Path(str(distribution(name).locate_file(top)))
                if there.exists() and not (self.site / top).exists():
                    (self.site / top).symlink_to(there)

    def run(self, *argv: str, status: int = 0) -> str:
        """Run a program of the environment, and see that it ends so; all that it said."""
        ended = subprocess.run(
            [str(self.python.parent / argv[0]), *argv[1:]],
            cwd=self.project,
            env={"HOME": str(self.home), "PATH": f"{self.python.parent}:/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=170,
        )
        assert ended.returncode == status, ended.stdout
        assert "Traceback" not in ended.stdout
        return ended.stdout


@pytest.fixture
def clean(built: Path, short_directory: Path) -> Clean:
    """The wheel is installed there, and the dependencies that it declares."""
    (wheel,) = built.glob("*.whl")
    environment = Clean(short_directory, declared(wheel))
    environment.link()
    pip = [sys.executable, "-m", "pip", "--python", str(environment.python), "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", str(wheel)], check=True, env=dict(os.environ))
    return environment


@pytest.mark.timeout(240)
def test_the_first_minutes_with_the_wheel_alone(clean: Clean) -> None:
    said = clean.run("trunkline", "demo")
    assert said.count("as before") == 2
    assert "These calls were held by Line alone" in said
    assert "pip install 'trunkline[demo]'" in said
    page = (clean.project / "out/demo/report.html").read_text()
    assert page.count("<svg ") == 2

    assert "pip install 'trunkline[pytest]'" in clean.run("trunkline", "init")
    clean.link("pytest")
    said = clean.run("python", "-m", "pytest", "--phone-sim", "-q")
    assert "1 passed" in said
    said = clean.run("python", "-c", TOUCHES_SCENARIO)
    assert "pip install 'trunkline[scenario]'" in said
