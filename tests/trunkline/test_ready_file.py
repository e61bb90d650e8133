"""``--ready-file`` when the disk is full by the time that the stack is ready."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.bus import settings as bus_settings
from trunkline.stack import up


async def test_one_that_cannot_be_written_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A script waits for it, and its user has only the log to look at."""

    async def complete(*_: object) -> dict[str, Any]:
        return {"controller": {"pid": 1}}

    monkeypatch.setattr(up, "_until", complete)
    settings = bus_settings.load(
        env_file=None, account_sid="AC1", auth_token="secret", public_url="https://x.example"
    )
    wishes = up.Wishes(ready_file=tmp_path / "gone" / "up.json")
    child: Any = SimpleNamespace(pid=1)
    is_up = asyncio.Event()
    await up._tell_when_ready(settings, wishes, child, None, is_up)
    assert is_up.is_set()
    (record,) = caplog.records
    assert f"--ready-file {tmp_path}/gone/up.json cannot be written: No such" in record.getMessage()
    assert "trunkline is ready" in capsys.readouterr().out
