"""One shared phone line for tests of voice agents: real Twilio calls, PCM16 in and out.

``Line`` and ``Call`` are the plain asyncio client. ``TwilioAgentAdapter`` is the one for
langwatch-scenario. Each name is imported when it is first used, so that ``import trunkline`` takes
next to no time and does not need langwatch-scenario.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trunkline.adapter.call import Call
    from trunkline.adapter.line import Line
    from trunkline.adapter.scenario.adapter import TwilioAgentAdapter

    __version__: str

__all__ = ["Call", "Line", "TwilioAgentAdapter", "__version__"]

_HOMES = {
    "Line": "trunkline.adapter.line",
    "Call": "trunkline.adapter.call",
    "TwilioAgentAdapter": "trunkline.adapter.scenario.adapter",
}

#: Packages that are only there after ``pip install 'trunkline[scenario]'``.
_OF_SCENARIO = ("scenario", "opentelemetry")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("trunkline")
    if name in _HOMES:
        from importlib import import_module

        try:
            value = getattr(import_module(_HOMES[name]), name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in _OF_SCENARIO:
                raise ModuleNotFoundError(
                    f"{name} needs langwatch-scenario: pip install 'trunkline[scenario]'",
                    name=error.name,
                ) from error
            raise
        except RuntimeError as error:
            if "home directory" not in str(error):
                raise
            raise RuntimeError(
                f"{name} needs langwatch-scenario, which keeps a cache in the user's home "
                "directory, and this user has none: set HOME to a directory"
            ) from error
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
