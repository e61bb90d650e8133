"""``trunkline console``: the file that leads a browser to the console."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import webbrowser
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.bus import settings
from trunkline.cli import console


@pytest.mark.parametrize("opens", [True, False])
def test_it_is_left_for_a_browser_alone(
    opens: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It holds the stack's token, so it does not stay where nothing reads it."""

    @contextlib.asynccontextmanager
    async def client(*_: object, **__: object) -> AsyncIterator[Any]:
        async def request(*_: object, **__: object) -> Any:
            return SimpleNamespace(url="http://127.0.0.1:8766", token="t0ken")

        yield SimpleNamespace(request=request)

    monkeypatch.setattr(console, "controller_client", client)
    monkeypatch.setattr(webbrowser, "open", lambda url: opens)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asyncio.run(console.console(settings.load(env_file=None), show=False))
    assert len(list(tmp_path.iterdir())) == opens
    assert ("#token=t0ken" in capsys.readouterr().out) is not opens


def test_the_files_link_is_the_consoles_whatever_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    page = console._page('http://127.0.0.1:8766/"><script>').read_text()
    assert 'href="http://127.0.0.1:8766/&quot;&gt;&lt;script&gt;"' in page


def test_pages_of_earlier_calls_are_removed_once_a_browser_has_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda url: True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old, young = (console._page("http://127.0.0.1:8766/") for _ in range(2))
    other = tmp_path / "trunkline-console.html"
    other.write_text("somebody's own")
    for path in (old, other):
        os.utime(path, (0, 0))
    assert console._opened("http://127.0.0.1:8766/#token=t0ken")
    left = set(tmp_path.iterdir())
    assert old not in left and {young, other} < left and len(left) == 3
