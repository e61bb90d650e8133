"""Whatever holds a public URL shows it without its password."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.bus import messages as m
from trunkline.bus.launch import StackInfo
from trunkline.controller.rules.book import Identity
from trunkline.controller.twilio.operations import Operations
from trunkline.controller.twilio.seal import Seal
from trunkline.pytest_plugin import PhoneStack

URL = "https://me:pa55@line.example.com"
MASKED = "https://me:***@line.example.com"
NOTHING: Any = None


@pytest.mark.parametrize(
    ("holder", "shown"),
    [
        (PhoneStack("ipc:///b", "AC1", "token", URL), True),
        (
            StackInfo(bus="ipc:///b", account_sid="AC1", auth_token="token", pid=1, public_url=URL),
            True,
        ),
        (m.Welcome(epoch=1, stack="c", pid=1, account="A", public_url=URL, lead_ms=60), True),
        (Seal(URL, "o", "s", "sealed"), False),
        (Identity("stack", 1, 1, "AC1", URL, 0.0, 0.0), False),
        (Operations("stack", URL, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_reprs(holder: object, shown: bool) -> None:
    text = repr(holder)
    assert (MASKED in text) == shown
    assert "pa55" not in text
