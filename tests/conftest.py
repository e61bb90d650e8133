"""For all tests: where CI is set, hypothesis draws the same examples each time.

A new counterexample should be found by whoever works on the code, not by a build of something else;
`pytest --hypothesis-seed=random` looks for new ones there too.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")
