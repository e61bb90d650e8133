"""langwatch-scenario, which takes seconds to import: only where one of its tests runs.

A test file says ``from later import scenario`` at its top. The package is imported when a test
first asks for something in it. So a worker of pytest-xdist that collects these tests, and runs none
of them, does not pay for it. Modules of ours that import scenario are taken in the same way.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any, Final

from trunkline.bus import imports


def imported() -> None:
    """Import the package, with the warnings of its own imports left out."""
    with warnings.catch_warnings(), imports.that_stay():
        warnings.simplefilter("ignore")
        import scenario.voice.testing  # noqa: F401  # where it is imported is what counts


class _Later:
    """A module that needs scenario, by its name."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        # pytest looks for its own names while it collects.
        if name.startswith("_") and name != "__all__":
            raise AttributeError(name)
        imported()
        return getattr(importlib.import_module(self._module), name)


scenario: Final[Any] = _Later("scenario")
#: For TwilioAgentAdapter. Its other names need no scenario, and are better imported as usual.
trunkline: Final[Any] = _Later("trunkline")
testing: Final[Any] = _Later("trunkline.adapter.testing")
twilio: Final[Any] = _Later("trunkline.adapter.twilio")
tunnel_readiness: Final[Any] = _Later("trunkline.adapter.scenario.tunnel_readiness")
