"""requirements.txt follows pyproject.toml: what is declared there is locked here, by hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[2]
LOCK: Final = (ROOT / "requirements.txt").read_text()


def declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    return [Requirement(line) for line in lines if not line.startswith("trunkline[")]


def test_each_dependency_is_locked_to_a_release_that_it_may_have() -> None:
    locked: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^ ;\\]+)", LOCK, re.MULTILINE):
        locked.setdefault(canonicalize_name(name), []).append(version)
    wrong = [
        str(wanted)
        for wanted in declared()
        if not any(map(wanted.specifier.contains, locked.get(canonicalize_name(wanted.name), [])))
    ]
    assert wrong == [], "write requirements.txt again, by the command in its first lines"


def test_each_release_has_its_hashes_and_names_no_index() -> None:
    releases = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in release for release in releases)
    assert "index-url" not in LOCK and "://" not in LOCK
