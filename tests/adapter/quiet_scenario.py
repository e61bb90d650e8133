"""langwatch-scenario, imported once with the deprecation warnings of its own imports left out."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import scenario
    import scenario.voice.testing

__all__ = ["scenario"]
