"""Refuses to build where the links from trunkline/ to the rooms were lost (a zip of it)."""

from pathlib import Path

from setuptools import setup

ROOMS = ("bus", "gateway", "codec_worker", "controller", "adapter", "carrier_sim", "ear")

missing = [
    r for r in ROOMS if not (Path(__file__).parent / "trunkline" / r / "__init__.py").is_file()
]
if missing:
    raise SystemExit(
        f"trunkline/{missing[0]} is not a link to the folder {missing[0]}/: the symbolic links of "
        "this checkout were lost (a zip download loses them). Clone with git, or unpack the sdist."
    )
setup()
