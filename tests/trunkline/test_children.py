"""A child is started again, has its parent's settings, and ends with its parent."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from trunkline.bus import settings as bus_settings
from trunkline.bus.clock import Clock, monotonic
from trunkline.bus.descriptors import KEEPER_FD_VARIABLE
from trunkline.bus.launch import ParentPipe
from trunkline.bus.private import NotPrivateError
from trunkline.bus.process import PARENT_FD_VARIABLE
from trunkline.bus.testing import until
from trunkline.stack import children
from trunkline.stack.children import GOOD_RUN, LONGEST_DELAY, Child, Restarts, settings_environment
from trunkline.stack.keep_alive import _health_files
from trunkline.stack.supervisor import Supervisor, exit_status

# ---------------------------------------------------------------- the rules


@pytest.mark.parametrize("status", [1, 2])
@pytest.mark.parametrize("lived", [0.4, GOOD_RUN, 3600.0])
def test_a_failure_with_a_message_before_it_was_ever_ready_is_final(
    status: int, lived: float
) -> None:
    """However long it took: credentials may be refused late."""
    restarts = Restarts()
    assert restarts.delay(-9, lived, ready=False) is not None
    assert restarts.delay(status, lived, ready=False) is None


def test_a_death_is_answered_at_once_and_then_ever_more_slowly() -> None:
    restarts = Restarts()
    delays = [restarts.delay(-9, lived=0.1, ready=True) for _ in range(10)]
    assert delays[:4] == [0.0, 0.1, 0.2, 0.4]
    assert delays[-1] == LONGEST_DELAY


def test_hours_of_quick_deaths_change_nothing() -> None:
    """A doubled delay is no longer a float after a thousand of them."""
    restarts = Restarts()
    delays = [restarts.delay(-9, lived=0.1, ready=True) for _ in range(1_100)]
    assert delays[-1] == LONGEST_DELAY


def test_a_good_run_starts_the_count_anew() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.delay(-9, lived=0.1, ready=False)
    assert restarts.delay(-9, lived=GOOD_RUN, ready=False) == 0.0
    assert restarts.delay(-9, lived=0.1, ready=False) == 0.0
    assert restarts.delay(-9, lived=0.1, ready=False) == 0.1


def test_once_ready_failures_are_worth_another_try() -> None:
    restarts = Restarts()
    assert restarts.delay(1, lived=0.1, ready=True) == 0.0
    assert restarts.delay(1, lived=0.1, ready=False) == 0.1


# ---------------------------------------------------------------- what a child is told


def test_a_child_reads_the_very_settings_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUNKLINE_LEAD_MS", "80")
    given = bus_settings.load(
        env_file=None,
        account_sid="AC" + "1" * 32,
        auth_token="secret",
        auth_token_secondary="other",
        public_url="https://line.example.com",
        http_port=0,
        console_port=9,
        bus=f"ipc://{tmp_path}/bus",
        state_dir=tmp_path / "state",
        numbers=("+14155551234", "+14155551235"),
        fallback_to_prior=False,
        recordings_dir=tmp_path / "recordings",
        calls_per_second=2.5,
    )
    environment = settings_environment(given)
    for name in bus_settings.FIELDS:
        monkeypatch.delenv(bus_settings.env_name(name), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert bus_settings.load(env_file=None) == given


def test_a_list_of_nobody_is_one_for_a_child_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_ALLOWED_CALLEES", ",")
    monkeypatch.setenv("TRUNKLINE_ALLOWED_CALLERS", ",")
    given = bus_settings.load(env_file=None)
    assert given.allowed_callees == given.allowed_callers == ()
    environment = settings_environment(given)
    for name in ("TRUNKLINE_ALLOWED_CALLEES", "TRUNKLINE_ALLOWED_CALLERS"):
        monkeypatch.setenv(name, environment[name])
    assert bus_settings.load(env_file=None) == given


def test_each_child_gets_what_it_needs_and_no_other_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWILIO_API_SECRET", "not ours")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "from the shell")
    monkeypatch.setenv("TRUNKLINE_SIM_SEED", "7")
    monkeypatch.setenv("TRUNKLINE_DATABASE_URL", "postgresql://me:pa55w0rd@db.example.com/x")
    given = bus_settings.load(
        env_file=None,
        account_sid="AC" + "1" * 32,
        auth_token="secret",
        auth_token_secondary="other",
        public_url="https://me:pa55@line.example.com",
        bus=f"ipc://{tmp_path}/bus",
        numbers=("+14155551234",),
    )

    def settings_in(role: str | None) -> set[str]:
        environment = settings_environment(given, role)
        assert "not ours" not in environment.values()
        if role not in ("controller", None):
            assert not any("pa55w0rd" in value for value in environment.values())
        assert environment["TRUNKLINE_SIM_SEED"] == "7"
        return {name for name in environment if name.startswith(("TWILIO_", "TRUNKLINE_"))}

    worker = settings_in("codec-worker")
    assert not any(name.startswith("TWILIO_") for name in worker)
    assert worker == {
        "TRUNKLINE_BUS",
        "TRUNKLINE_HOST",
        "TRUNKLINE_LEAD_MS",
        "TRUNKLINE_LOG_FORMAT",
        "TRUNKLINE_SIM_SEED",
    }
    twilio = {"TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_AUTH_TOKEN_SECONDARY"}
    assert settings_in("carrier-sim") == twilio | {"TRUNKLINE_SIM_SEED"}
    assert settings_in("gateway") >= twilio | {"TRUNKLINE_PUBLIC_URL"}
    assert "TRUNKLINE_NUMBERS" not in settings_in("gateway")
    assert settings_in("controller") == settings_in(None) >= twilio | {"TRUNKLINE_NUMBERS"}


def test_a_worker_on_tcp_gets_the_buss_key_and_not_the_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = bus_settings.load(env_file=None, auth_token="secret", bus="tcp://127.0.0.1:7000")
    environment = settings_environment(given, "codec-worker")
    assert "secret" not in environment.values() and "TWILIO_AUTH_TOKEN" not in environment
    monkeypatch.delenv("TWILIO_AUTH_TOKEN", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    theirs = bus_settings.load(env_file=None)
    assert theirs.auth_tokens == () and theirs.curve is not None and given.curve is not None
    assert vars(theirs.curve) == vars(given.curve)
    assert environment["TRUNKLINE_BUS_KEY"] not in repr(theirs)


# ---------------------------------------------------------------- real processes


@pytest.fixture
async def parent() -> AsyncIterator[ParentPipe]:
    pipe = ParentPipe()
    yield pipe
    pipe.close()


def python(
    code: str,
    parent: ParentPipe,
    clock: Clock = monotonic,
    *,
    again: bool = True,
    silent_for: float | None = None,
) -> Child:
    argv, environment = [sys.executable, "-c", code], dict(os.environ)
    return Child(
        "child", argv, environment, parent, again=again, silent_for=silent_for, clock=clock
    )


WAITS = "import signal; signal.pause()"


@pytest.mark.e2e
async def test_a_killed_child_is_started_again(
    parent: ParentPipe, caplog: pytest.LogCaptureFixture
) -> None:
    child = python(WAITS, parent)
    keeping = asyncio.create_task(child.keep())
    await until(lambda: child.pid is not None)
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.pid not in (None, first))
    assert caplog.messages == ["child ended (killed by signal 9); starting it again"]
    child.stop()
    assert await keeping == -signal.SIGTERM


@pytest.mark.e2e
async def test_stop_may_come_twice_and_gives_the_status(
    parent: ParentPipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    up = tmp_path / "up"
    code = f"""
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
open({str(up)!r}, "w").close()
signal.sigwait([signal.SIGTERM])
sys.exit(3)
"""
    child = python(code, parent)
    keeping = asyncio.create_task(child.keep())
    await until(up.exists)
    child.stop()
    child.stop()
    assert await keeping == 3
    assert caplog.messages == []  # it is not started again


@pytest.mark.e2e
async def test_a_child_that_fails_at_its_start_is_left_alone(
    parent: ParentPipe, caplog: pytest.LogCaptureFixture
) -> None:
    child = python("raise SystemExit(1)", parent)
    assert await child.keep() == 1
    assert caplog.messages == []  # it is not started again


@pytest.mark.e2e
async def test_a_child_that_was_ready_is_started_again_when_it_fails(
    parent: ParentPipe, caplog: pytest.LogCaptureFixture
) -> None:
    child = python("from trunkline.bus.process import say_ready as f; f(); f(); exit(1)", parent)
    keeping = asyncio.create_task(child.keep())
    await until(lambda: len(caplog.messages) > 1)
    child.kill()
    await keeping


@pytest.fixture
def signs(monkeypatch: pytest.MonkeyPatch) -> str:
    """Looks for signs of life come quickly, and so do the signs of a child with this code."""
    monkeypatch.setattr(children, "SIGN_SECONDS", 0.05)
    return """
from trunkline.bus import process
process.SIGN_SECONDS = 0.01
async def main(stop):
    open(up, "a").write("x")
    await stop.wait()
    return 3
raise SystemExit(process.run(main))
"""


@pytest.mark.e2e
async def test_a_child_that_hangs_is_killed_and_started_again(
    parent: ParentPipe, signs: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    up = tmp_path / "up"
    child = python(f"up = {str(up)!r}{signs}", parent, silent_for=0.5)
    keeping = asyncio.create_task(child.keep())
    await until(lambda: up.exists() and up.read_text() == "x")
    assert child.pid is not None
    os.kill(child.pid, signal.SIGSTOP)
    await until(lambda: up.read_text() == "xx")
    assert caplog.messages == [
        "child gave no sign of life for 0.5 s",
        "child ended (killed by signal 9); starting it again",
    ]
    child.stop()
    assert await keeping == 3


@pytest.mark.e2e
async def test_a_child_whose_loop_turns_but_does_not_do_its_work_is_started_again(
    parent: ParentPipe, signs: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    up, sick = tmp_path / "up", tmp_path / "sick"
    well = f"""
import os
from trunkline.bus import process
process.lives_while(lambda: not os.path.exists({str(sick)!r}))
"""
    child = python(f"up = {str(up)!r}{well}{signs}", parent, silent_for=0.5)
    keeping = asyncio.create_task(child.keep())
    await until(lambda: up.exists() and up.read_text() == "x")
    sick.touch()
    await until(lambda: bool(caplog.messages))
    sick.unlink()
    await until(lambda: up.read_text() == "xx")
    assert caplog.messages == [
        "child gave no sign of life for 0.5 s",
        "child ended (killed by signal 9); starting it again",
    ]
    child.stop()
    assert await keeping == 3


@pytest.mark.e2e
@pytest.mark.usefixtures("signs")
async def test_silence_before_the_first_sign_is_a_slow_start(
    parent: ParentPipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = []
    wait = asyncio.wait

    async def look(*given: Any, **more: Any) -> Any:
        looks.append(more)
        return await wait(*given, **more)

    monkeypatch.setattr(children.asyncio, "wait", look)
    child = python(WAITS, parent, silent_for=0.2)
    keeping = asyncio.create_task(child.keep())
    await until(lambda: len(looks) * children.SIGN_SECONDS > 0.5)
    child.stop()
    assert await keeping == -signal.SIGTERM
    assert caplog.messages == []


@pytest.mark.e2e
async def test_a_child_is_ready_when_it_says_so_and_its_next_run_is_not(
    parent: ParentPipe, caplog: pytest.LogCaptureFixture
) -> None:
    code = "from trunkline.bus.process import say_ready; say_ready(); import signal; signal.pause()"
    child = python(code, parent)
    assert not child.ready
    keeping = asyncio.create_task(child.keep())
    await until(lambda: child.ready)
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.pid not in (None, first))
    assert not child.ready
    await until(lambda: child.ready)
    child.stop()
    assert await keeping == -signal.SIGTERM
    assert caplog.messages == ["child ended (killed by signal 9); starting it again"]


@pytest.mark.e2e
@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import os; os.kill(os.getpid(), 9)"])
async def test_one_whose_every_end_is_final_is_never_started_again(
    parent: ParentPipe, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    child = python(code, parent, again=False)
    assert await child.keep() in (3, -9)
    assert caplog.messages == []  # it is not started again


@pytest.mark.e2e
async def test_stop_before_the_first_start_starts_nothing(parent: ParentPipe) -> None:
    child = python(WAITS, parent)
    child.stop()
    assert await child.keep() == 0  # one that was started ends by SIGTERM


@pytest.mark.e2e
async def test_stop_while_it_is_being_started_ends_it(
    parent: ParentPipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = python(WAITS, parent)
    start = asyncio.create_subprocess_exec

    async def stopped_meanwhile(*argv: str, **options: Any) -> asyncio.subprocess.Process:
        child.stop()
        return await start(*argv, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", stopped_meanwhile)
    assert await asyncio.wait_for(child.keep(), 10.0) == -signal.SIGTERM


@pytest.mark.e2e
async def test_a_child_that_was_asked_to_end_may_be_silent_meanwhile(
    parent: ParentPipe, signs: str, tmp_path: Path
) -> None:
    """It restores numbers first, which may take longer."""
    up = tmp_path / "up"
    end = "return 3"
    slow = signs.replace(end, f"import time; time.sleep(0.8); {end}")
    child = python(f"up = {str(up)!r}{slow}", parent, silent_for=0.2)
    keeping = asyncio.create_task(child.keep())
    await until(lambda: up.exists() and up.read_text() == "x")
    child.stop()
    assert await keeping == 3


@pytest.mark.e2e
async def test_who_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    up = tmp_path / "up"
    code = f"""
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open({str(up)!r}, "w").close()
signal.alarm(10)
signal.pause()
"""
    async with Supervisor(within=0.2) as supervisor:
        child = supervisor.keep("child", [sys.executable, "-c", code], dict(os.environ))
        await until(up.exists)
    assert child.ended.result() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("status", "role", "then"),
    [
        *((0, "controller", 0), (3, "controller", 3), (-15, "controller", 0)),
        *((-9, "controller", 3), (-9, "gateway", 0), (1, "gateway", 1)),
    ],
)
def test_a_controller_that_was_killed_may_have_left_something_to_put_back(
    status: int, role: str, then: int
) -> None:
    assert exit_status(status, role) == then


@pytest.mark.e2e
async def test_a_child_sees_the_end_of_its_parent(
    parent: ParentPipe, caplog: pytest.LogCaptureFixture
) -> None:
    code = f"import os; os.read(int(os.environ[{PARENT_FD_VARIABLE!r}]), 1); os._exit(7)"
    own = ParentPipe()
    child = python(code, own)
    keeping = asyncio.create_task(child.keep())
    await until(lambda: child.pid is not None)
    own.close()
    await until(lambda: bool(caplog.messages) or keeping.done())
    child.kill()
    await asyncio.gather(keeping)


def test_probe_files_are_not_written_where_others_could_put_a_link(tmp_path: Path) -> None:
    directory = tmp_path / "health"
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(NotPrivateError, match="chmod 700"):
        _health_files(directory)


def test_probe_files_that_cannot_be_written_end_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The keeper would end, and its process with it. The probe sees that the files are old."""
    heard = _health_files(tmp_path / "health")
    heard(True)
    shutil.rmtree(tmp_path / "health")
    heard(True)
    heard(True)
    (record,) = caplog.records
    assert f"{tmp_path}/health/alive" in record.getMessage()


@pytest.mark.parametrize(("kept", "ignores"), [("7", True), ("", False)])
def test_a_child_leaves_ctrl_c_to_its_keeper_from_its_first_line_on(
    kept: str, *, ignores: bool
) -> None:
    code = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job may be born ignoring it
import trunkline.__main__
print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)
"""
    environment = {**os.environ, **({KEEPER_FD_VARIABLE: kept} if kept else {})}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{ignores}\n"
