"""The one monotonic clock, injected everywhere; state machines get its reading as an argument."""

from __future__ import annotations

import time
from collections.abc import Callable

#: A monotonic clock: seconds as float. CLOCK_MONOTONIC, so one machine's processes agree on it.
Clock = Callable[[], float]

monotonic: Clock = time.monotonic
