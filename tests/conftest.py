"""For all tests: what they need of the user, what hypothesis draws, and who runs beside whom.

langwatch-scenario does not start without a home directory, so a user who has none gets one. When it
is imported it would also fetch a price list from the network, and is told not to.

Where CI is set, hypothesis draws the same examples each time: a new counterexample should be found
by whoever works on the code, not by a build of something else. `pytest --hypothesis-seed=random`
looks for new ones there too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from trunkline.demo import surroundings

#: Folders in which each test stands by itself, so that any worker of pytest-xdist may take it. In
#: the others a worker takes a whole file.
EACH_BY_ITSELF: Final = ("e2e", "survival", "trunkline")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

_home = surroundings.home()
_home.__enter__()


def pytest_unconfigure() -> None:
    _home.__exit__(None, None, None)


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests one worker takes together, and that what computes begins first: these lines are
    the longest, and what waits goes on beside them."""
    for item in items:
        path = item.path.relative_to(Path(__file__).parent)
        if (mark := item.get_closest_marker("computes")) is not None:
            item.add_marker(pytest.mark.xdist_group(f"computes {mark.args[0]}"))
        elif path.parts[0] not in EACH_BY_ITSELF:
            item.add_marker(pytest.mark.xdist_group(path.as_posix()))
    items.sort(key=lambda item: item.get_closest_marker("computes") is None)


settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("unwritable", database=None)
if os.environ.get("CI"):
    settings.load_profile("ci")
elif not os.access(Path(__file__).parents[1], os.W_OK):
    settings.load_profile("unwritable")  # hypothesis warns where it cannot keep its examples
