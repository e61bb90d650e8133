"""How the benchmark and its client processes talk: lines of JSON on stdout, words on stdin.

A client gets its order as JSON in its only argument. It sets its calls up, prints
``{"ready": …}``, waits for ``go``, talks and listens, prints ``{"done": …}``, waits for ``end``,
hangs up, prints ``{"heard": …}`` and exits. So the benchmark can read the CPU clocks of all
processes around exactly the part in which there is sound.

Clients of other packages import this too: it must stand on the standard library alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any


def read_order() -> tuple[dict[str, Any], bytes]:
    """What the benchmark wants, and the speech (PCM16 mono 24 kHz) that every call is to say."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    return order, Path(order["speech"]).read_bytes()


def say(**what: Any) -> None:
    """Tell the benchmark."""
    print(json.dumps(what), flush=True)


async def wait_for(word: str) -> None:
    """Wait until the benchmark says ``word``."""
    line = await asyncio.to_thread(sys.stdin.readline)
    if not line:  # the benchmark was killed, and a peer's tasks may not let themselves be cancelled
        os._exit(1)
    if line.strip() != word:
        raise SystemExit(f"expected {word!r} from the benchmark, got {line.strip()!r}")
