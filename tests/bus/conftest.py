"""Tests of settings start without any of the user's, and without his proxies."""

from __future__ import annotations

import os

import pytest

OURS = ("TRUNKLINE_", "TWILIO_")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(OURS) or name.upper() in PROXIES:
            monkeypatch.delenv(name)
