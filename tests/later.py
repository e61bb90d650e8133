"""langwatch-scenario, which takes seconds to import: only where one of its tests runs.

A test file says ``from later import scenario`` at its top. The package is imported when a test
first asks for something in it. So a worker of pytest-xdist that collects these tests, and runs none
of them, does not pay for it. Modules of ours that import scenario are taken in the same way.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from trunkline.bus import imports

#: A folder of langwatch, which scenario imports. Its ``__init__.py`` imports 3,500 classes for
#: requests to a server, which takes as long as half of all else. Offline nobody needs one of them.
_MODELS: Final = "langwatch.generated.langwatch_rest_api_client.models"


class _Models(ModuleType):
    """The package of that folder, with each class imported when it is asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(_MODELS)
        self.__path__ = [str(folder)]
        lines = (folder / "__init__.py").read_text()
        self._homes = {name: home for home, name in re.findall(r"from (\.\w+) import (\w+)", lines)}

    def __getattr__(self, name: str) -> Any:
        if name not in self._homes:
            raise AttributeError(f"module {_MODELS!r} has no attribute {name!r}")
        return getattr(importlib.import_module(self._homes[name], _MODELS), name)


def imported() -> None:
    """Import the package, with the warnings of its own imports left out."""
    if "scenario" not in sys.modules and (found := importlib.util.find_spec("langwatch")):
        (root,) = found.submodule_search_locations or ()
        sys.modules.setdefault(_MODELS, _Models(Path(root, *_MODELS.split(".")[1:])))
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
