"""How the benchmark and its client processes talk: lines of JSON on stdout, words on stdin.

A client sets its calls up, prints ``{"ready": …}``, waits for ``go``, talks and listens, prints
``{"done": …}``, waits for ``end``, hangs up and exits. So the benchmark can read the CPU clocks of
all processes around exactly the part in which there is sound.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


def say(**what: Any) -> None:
    """Tell the benchmark."""
    print(json.dumps(what), flush=True)


async def wait_for(word: str) -> None:
    """Wait until the benchmark says ``word``."""
    line = await asyncio.to_thread(sys.stdin.readline)
    if line.strip() != word:
        raise SystemExit(f"expected {word!r} from the benchmark, got {line.strip()!r}")
