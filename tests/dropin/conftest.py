"""Tests of what users of langwatch-scenario and pytest meet, on the run's own shared stack."""

from __future__ import annotations

import os

import pytest

# langwatch-scenario imports litellm, which would fetch its price list from the network.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's own reaches these tests."""
    for name in list(os.environ):
        if name.startswith(("TRUNKLINE_", "TWILIO_")):
            monkeypatch.delenv(name)
