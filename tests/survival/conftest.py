"""Stacks of real processes, most of them to be hit by the tests of this folder.

The stacks are those of tests/e2e; the numbered sound is that of the chaos suite.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Behind everything else: no room is to be found under another name.
sys.path += [str(ROOT), str(ROOT / "tests")]
