"""Real processes, real sockets, real recordings."""

import pytest

# Their assertions say what they compared, as those of the tests do.
pytest.register_assert_rewrite(f"{__name__}.stack", f"{__name__}.sound")
