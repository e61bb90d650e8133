"""langwatch-scenario, imported without the deprecation warnings of its own imports, and offline."""

from __future__ import annotations

import os
import warnings

from trunkline.bus import imports

# litellm, which it imports, would fetch its price list.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

with warnings.catch_warnings(), imports.that_stay():
    warnings.simplefilter("ignore")
    import scenario
    from scenario.voice import stt

    from trunkline import TwilioAgentAdapter

__all__ = ["TwilioAgentAdapter", "scenario", "stt"]
