"""Starting a stack of one's own: the ready file, the log, the pipe, and the end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trunkline.bus import launch
from trunkline.bus.errors import CarrierError, StackUnavailableError
from trunkline.bus.launch import Launched, StackInfo, free_ports

INFO = StackInfo(
    account_sid="AC1",
    auth_token="the-token",
    pid=7,
    bus="ipc:///b",
    public_url="http://127.0.0.1:1",
    sim="http://127.0.0.1:2",
)

#: Says something, writes its ready file, and ends when it is told to or its pipe is closed.
READY = """
import os, select, signal, sys
from pathlib import Path
from trunkline.bus.launch import StackInfo, write_ready_file
print("one", flush=True)
print("two", file=sys.stderr, flush=True)
end = []
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
info = StackInfo(account_sid="AC1", auth_token="t", pid=os.getpid(), bus="ipc:///b")
write_ready_file(Path(sys.argv[sys.argv.index("--ready-file") + 1]), info)
select.select([int(os.environ["TRUNKLINE_PARENT_FD"])], [], [])
Path("parent-gone").touch()
"""
#: The same, but does not end when it is told to; its child does not either.
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY.replace(
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))", "os.fork() or signal.pause()"
)
#: A stack that Twilio refuses at its start.
REFUSED = """
from trunkline.bus.errors import CarrierError
from trunkline.bus.process import complain
complain("controller", CarrierError("Twilio refused", status=401, code=20003, message="No."))
raise SystemExit(1)
"""


def launched(tmp_path: Path, code: str, **given: bool) -> Launched:
    argv = [sys.executable, "-c", code]
    return Launched(argv, tmp_path, "it", dict(os.environ), what="the stack", cwd=tmp_path, **given)


def test_a_ready_file_is_read_as_it_was_written_and_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "up.json"
    assert launch.read_ready_file(path) is None
    (tmp_path / "up.json.new").write_text("left by one that was killed")
    launch.write_ready_file(path, INFO)
    assert launch.read_ready_file(path) == INFO
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    assert "the-token" not in repr(INFO)


def test_it_is_ready_once_it_says_so_and_ends_when_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "it.json").write_text("of one that was killed")
    stack = launched(tmp_path, READY)
    info = stack.wait_ready()
    assert (info.pid, info.bus, info.sim) == (stack.process.pid, "ipc:///b", None)
    assert launch.lives(stack.log)
    assert stack.tail() == "    one\n    two"
    assert stack.stop() == 3
    assert stack.stop() == 3  # again: nothing more happens
    assert not launch.lives(stack.log)
    assert not (tmp_path / "parent-gone").exists()


async def test_one_that_ends_instead_says_why(tmp_path: Path) -> None:
    stack = launched(tmp_path, "print('port 1 is taken'); raise SystemExit(4)")
    with pytest.raises(StackUnavailableError) as caught:
        await stack.until_ready()
    assert str(caught.value) == (
        "the stack did not come up: it ended with status 4; it said:\n    port 1 is taken"
    )
    assert stack.stop() == 4


async def test_what_twilio_refuses_is_raised_as_twilio_said_it(tmp_path: Path) -> None:
    (tmp_path / "it.refusal").write_text("of one before")
    stack = launched(tmp_path, REFUSED)
    with pytest.raises(CarrierError, match=r"^Twilio refused\n") as caught:
        await stack.until_ready()
    assert (caught.value.status, caught.value.code, caught.value.message) == (401, 20003, "No.")
    assert caught.value.__notes__ == [
        "the stack did not come up: it ended with status 1; it said:\n"
        "    trunkline controller: Twilio refused"
    ]
    assert stack.stop() == 1
    # What is left of it is not taken for the next one's.
    with pytest.raises(StackUnavailableError, match="status 4"):
        await launched(tmp_path, "raise SystemExit(4)").until_ready()


async def test_one_that_takes_too_long_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "READY_WITHIN", 0.1)
    stack = launched(tmp_path, "import signal; signal.pause()")
    said = r"not ready within 0\.1 s; it said:\s+\(nothing\)"
    with pytest.raises(StackUnavailableError, match=said):
        await asyncio.to_thread(stack.wait_ready)
    with pytest.raises(StackUnavailableError, match=said):
        await stack.until_ready(0.1)
    assert stack.stop() == -signal.SIGTERM


def test_what_does_not_end_is_killed_with_all_of_its_session(tmp_path: Path) -> None:
    stack = launched(tmp_path, STUBBORN, own_session=True)
    stack.wait_ready()
    began = time.monotonic()
    assert stack.stop(within=0.2) == -signal.SIGKILL
    assert time.monotonic() - began >= 0.2
    until_nothing_lives(stack.log)


def until_nothing_lives(log: Path) -> None:
    """The kernel lets go of a killed process's descriptors a moment after its end."""
    deadline = time.monotonic() + 5.0
    while launch.lives(log):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_log_is_locked_until_the_last_of_them_has_ended(tmp_path: Path) -> None:
    code = READY.replace("end = []", "os.posix_spawn('/bin/sleep', ['sleep', '60'], os.environ)")
    stack = launched(tmp_path, code, own_session=True)
    stack.wait_ready()
    assert stack.stop() == 3
    assert launch.lives(stack.log)  # its child writes there, too
    os.killpg(stack.process.pid, signal.SIGKILL)
    until_nothing_lives(stack.log)


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = f"""
import os, sys
from pathlib import Path
from trunkline.bus.launch import Launched
where = Path({str(tmp_path)!r})
argv = [sys.executable, "-c", {READY!r}]
Launched(argv, where, "it", os.environ, what="it", cwd=where).wait_ready()
os._exit(9)  # as if killed: nothing is closed in order
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=30).returncode == 9
    until_nothing_lives(tmp_path / "it.log")
    assert (tmp_path / "parent-gone").exists()


def test_a_forked_child_leaves_the_pipe_to_its_parent(tmp_path: Path) -> None:
    """One that lives on would keep the stack alive when the parent is gone."""
    stack = launched(tmp_path, READY)
    stack.wait_ready()
    stack.close_pipe()
    stack.close_pipe()
    until_nothing_lives(stack.log)
    assert (tmp_path / "parent-gone").exists()
    assert stack.stop() == 0


def test_what_cannot_be_started_leaves_no_pipe(tmp_path: Path) -> None:
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208  # its entries are no paths to keep
    with pytest.raises(FileNotFoundError):
        Launched(["/no/such/program"], tmp_path, "it", {}, what="it")
    assert len(os.listdir("/dev/fd")) == before  # noqa: PTH208  # the same


def test_an_environment_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRUNKLINE_NUMBERS", "TWILIO_ACCOUNT_SID", "PYTEST_ADDOPTS"):
        monkeypatch.setenv(name, "the user's")
    monkeypatch.setenv("KEPT", "1")
    found = launch.apart(tmp_path, TRUNKLINE_LEAD_MS="100", TRUNKLINE_CALLS_PER_SECOND="1")
    assert "the user's" not in found.values()
    assert found["KEPT"] == "1"
    assert found["TRUNKLINE_BUS"] == f"ipc://{tmp_path}/bus"
    assert found["TRUNKLINE_STATE_DIR"] == f"{tmp_path}/state"
    assert found["TRUNKLINE_LEAD_MS"] == "100"
    assert found["TRUNKLINE_CALLS_PER_SECOND"] == "1"
    ports = [v for n, v in found.items() if n.startswith("TRUNKLINE_") and n.endswith("_PORT")]
    assert ports == ["0"] * 3
    assert found["TWILIO_ACCOUNT_SID"] != launch.apart(tmp_path)["TWILIO_ACCOUNT_SID"]


# --------------------------------------------------------------------------- ports


def test_a_free_port_is_for_our_own_servers_alone() -> None:
    (port,) = free_ports(1)
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", port))
    for _ in range(2):  # a server that ended has a successor on the same port
        with socket.create_server(("127.0.0.1", port)) as server:
            socket.create_connection(server.getsockname()).close()
            with pytest.raises(OSError, match="in use"):
                socket.create_server(("127.0.0.1", port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
