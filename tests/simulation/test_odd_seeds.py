"""Seeds with odd numbers: whatever happens, all comes to rest as it has to be. (Two files, so that
two workers of pytest-xdist share the time.)"""

from __future__ import annotations

import pytest

from .run import in_a_process


@pytest.mark.parametrize("first", [1, 1001, 2001])
def test_all_comes_to_rest(first: int) -> None:
    status, said = in_a_process("--seeds", "500", "--first", str(first), "--step", "2")
    assert status == 0, said
