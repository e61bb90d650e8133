"""A worker's settings. Hypothesis without deadlines: how long an example takes says nothing on a
busy machine."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

from trunkline.bus.settings import Settings, load

hypothesis.settings.register_profile("codec_worker", deadline=None, print_blob=True)
hypothesis.settings.load_profile("codec_worker")


@pytest.fixture
def settings(short_directory: Path) -> Settings:
    bus = f"ipc://{short_directory}/bus"
    made = load(env_file=None, bus=bus, state_dir=str(short_directory))
    made.address.make_directory()
    return made
