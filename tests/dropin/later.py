"""langwatch-scenario, which takes seconds to import: only where one of these tests runs.

A test file says ``from later import scenario`` at its top. The package is imported when a test
first asks for something in it, or has a ``Scene``. So a worker of pytest-xdist that collects these
tests, and runs none of them, does not pay for it.
"""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any, Final


def imported() -> ModuleType:
    """The package, with the warnings of its own imports left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import scenario.voice.testing
    return scenario


class _Later:
    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest looks for its own names while it collects
            raise AttributeError(name)
        return getattr(imported(), name)


scenario: Final[Any] = _Later()
