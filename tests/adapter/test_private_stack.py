"""A stack of one's own: started once, shared, ended with its last user or with its parent."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from fake_stack import ACCOUNT

from trunkline.adapter.scenario import private_stack
from trunkline.adapter.scenario.join import join, leave
from trunkline.adapter.scenario.private_stack import PrivateStack, StackRequest
from trunkline.errors import StackUnavailableError

URL = "https://line.example.com"
FAKE_UP = Path(__file__).parent / "fake_up.py"


def request(**given: Any) -> StackRequest:
    usual: dict[str, Any] = {
        "account_sid": ACCOUNT,
        "auth_token": "the-token",
        "public_url": URL,
        "http_port": 8799,
        "validate_signature": True,
    }
    return StackRequest(**(usual | given))


def run_instead(monkeypatch: pytest.MonkeyPatch, *command: str) -> None:
    monkeypatch.setattr(PrivateStack, "_command", lambda self: [sys.executable, *command])


async def test_one_stack_serves_all_and_ends_with_the_last(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_instead(monkeypatch, str(FAKE_UP), str(tmp_path / "ended"))
    monkeypatch.setenv("TRUNKLINE_STATE_DIR", str(tmp_path / "state"))
    first, second = await asyncio.gather(
        private_stack.acquire(request(public_url=" HTTPS://Line.Example.com/\n")),
        private_stack.acquire(request()),
    )
    assert first is second
    directory = first.bus.removeprefix("ipc://")
    assert os.stat(directory).st_mode & 0o777 == 0o700  # noqa: PTH116  # one look, no waiting
    await private_stack.release(first)
    assert first.launched.process.poll() is None
    await private_stack.release(second)
    assert first.launched.process.returncode == 0
    *said, state_dir = (tmp_path / "ended").read_text().split()
    assert said == ["ended", "8799", URL, "0"]
    assert Path(state_dir).parent == tmp_path / "state" / "private"
    assert Path(state_dir).name.startswith(f"{os.getpid()}-")
    assert not os.path.exists(directory)  # noqa: PTH110, ASYNC240  # the same


async def test_a_stack_is_its_own_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child has a copy of it, and ends it not."""
    run_instead(monkeypatch, str(FAKE_UP), os.devnull)
    stack = await private_stack.acquire(request())
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: stack.pid + 1)
        stack.stop()
    assert stack.launched.process.poll() is None
    await private_stack.release(stack)


def test_a_stack_that_cannot_be_started_leaves_no_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory = tmp_path / "its"
    directory.mkdir()
    monkeypatch.setattr(private_stack, "temporary_directory", lambda prefix: directory)
    monkeypatch.setattr(PrivateStack, "_command", lambda self: [str(tmp_path / "no program")])
    with pytest.raises(FileNotFoundError):
        PrivateStack(request())
    assert not directory.exists()


async def test_a_stack_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    run_instead(monkeypatch, "-c", "print('port 8799 is in use'); raise SystemExit(1)")
    with pytest.raises(StackUnavailableError, match="status 1") as caught:
        await private_stack.acquire(request())
    assert "port 8799 is in use" in str(caught.value)
    assert private_stack._stacks == {}


async def test_one_that_was_killed_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_instead(monkeypatch, str(FAKE_UP), str(tmp_path / "ended"))
    monkeypatch.setenv("TRUNKLINE_STATE_DIR", str(tmp_path / "state"))
    killed = await private_stack.acquire(request())
    killed.launched.process.kill()
    await asyncio.to_thread(killed.launched.process.wait)
    fresh = await private_stack.acquire(request())
    assert fresh is not killed and fresh.launched.process.poll() is None
    assert await private_stack.acquire(request()) is fresh
    private_stack._stop_all()  # as at the process's end
    for stack in (killed, fresh):
        assert not Path(stack.bus.removeprefix("ipc://")).parent.exists()
    assert private_stack._stacks == {} and not private_stack._made


async def test_it_ends_when_its_parent_is_gone(tmp_path: Path, short_directory: Path) -> None:
    script = textwrap.dedent(
        f"""
        import asyncio, os, sys
        from trunkline.adapter.scenario import private_stack as p
        command = [sys.executable, {str(FAKE_UP)!r}, {str(tmp_path / "ended")!r}]
        p.PrivateStack._command = lambda self: command
        async def main():
            await p.acquire(p.StackRequest({ACCOUNT!r}, "t", {URL!r}, 8799, True))
            os._exit(9)  # as if killed: nothing is closed in order
        asyncio.run(main())
        """
    )
    environment = os.environ | {"TMPDIR": str(short_directory)}  # its directory is left there
    argv = [sys.executable, "-c", script]
    done = await asyncio.to_thread(subprocess.run, argv, env=environment, timeout=30)
    assert done.returncode == 9
    async with asyncio.timeout(10):
        while not (tmp_path / "ended").exists():  # noqa: ASYNC110  # another process makes it
            await asyncio.sleep(0.05)


async def test_it_is_what_is_joined_where_no_stack_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_instead(monkeypatch, str(FAKE_UP), str(tmp_path / "ended"))
    monkeypatch.delenv("TRUNKLINE_BUS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    joined = await join(None, request())
    assert joined.private is not None
    await leave(joined)
    assert (tmp_path / "ended").exists()


def test_the_token_is_not_shown() -> None:
    assert "the-token" not in repr(request())
    shown = repr(request(public_url="https://me:pa55@x.example"))
    assert "public_url='https://me:***@x.example'" in shown
