"""The benchmarks are no part of the package: they are found beside it."""

import sys
from pathlib import Path

# Behind everything else: no room is to be found under another name.
sys.path.append(str(Path(__file__).parents[2]))
