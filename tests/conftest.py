"""For all tests: a home directory where the user has none, because langwatch-scenario does not
start without; and where CI is set, hypothesis draws the same examples each time.

A new counterexample should be found by whoever works on the code, not by a build of something else;
`pytest --hypothesis-seed=random` looks for new ones there too.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import settings

from trunkline.demo import surroundings

_home = surroundings.home()
_home.__enter__()


def pytest_unconfigure() -> None:
    _home.__exit__(None, None, None)


settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("unwritable", database=None)
if os.environ.get("CI"):
    settings.load_profile("ci")
elif not os.access(Path(__file__).parents[1], os.W_OK):
    settings.load_profile("unwritable")  # hypothesis warns where it cannot keep its examples
