"""``trunkline up --sim --ready-file``: a stack beside a stand-in carrier, without an account."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import stat
from pathlib import Path

import psutil
import pytest

from trunkline.bus import wav
from trunkline.bus.http import Session
from trunkline.bus.launch import StackInfo, read_ready_file
from trunkline.bus.testing import hanging_up
from trunkline.carrier_sim.client import SimClient

from .conftest import ENDS_WITHIN, Running, Trunkline, all_end

pytestmark = pytest.mark.e2e

NUMBER, CALLEE = "+14155551234", "+14155557777"
BEFORE = "https://agent.example/voice"

#: As in an environment that has none of them.
UNSET = dict.fromkeys(
    (
        *("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TRUNKLINE_PUBLIC_URL"),
        *("TRUNKLINE_HTTP_PORT", "TRUNKLINE_CONSOLE_PORT", "TRUNKLINE_SIM_PORT"),
        "TRUNKLINE_CALLS_PER_SECOND",
    ),
    "",
)


def start(trunkline: Trunkline, **environment: str) -> tuple[Running, Path, StackInfo]:
    """Start it; the process, its ready file and that file's content."""
    ready_file = trunkline.directory / "up.json"
    one_each = ("--gateways", "1", "--codec-workers", "1")
    argv = ("up", "--sim", "--ready-file", str(ready_file), *one_each)
    running = trunkline.start(*argv, **environment)
    running.until(ready_file.exists, 30.0)
    info = read_ready_file(ready_file)
    assert info is not None
    return running, ready_file, info


def armed(trunkline: Trunkline, sim: SimClient) -> None:
    """Somebody waits for a call at NUMBER, which is changed for that."""
    answering = trunkline.start("answer", NUMBER)
    answering.until(lambda: sim.numbers()[NUMBER]["voice_url"] != BEFORE)


def frames(sim: SimClient) -> int:
    """How many the streams of its calls have brought."""
    return sum(each["frames_in"] for one in sim.calls() for each in one["streams"])


def test_without_any_setting_it_can_be_used_at_once(trunkline: Trunkline) -> None:
    settings = {"TRUNKLINE_MAX_CALL": "2", "TRUNKLINE_RECORDINGS_DIR": "recordings"}
    running, ready_file, info = start(trunkline, **UNSET, **settings)
    assert stat.S_IMODE(ready_file.stat().st_mode) == 0o600
    assert json.loads(ready_file.read_text()) == {
        "account_sid": "AC" + "5" * 32,
        "auth_token": "carrier-sim-token",
        "pid": running.process.pid,
        "bus": trunkline.environment["TRUNKLINE_BUS"],
        "public_url": info.public_url,
        "console": info.console,
        "sim": info.sim,
    }
    running.until(lambda: "trunkline is ready" in running.out)
    said = running.out.splitlines()[-1]
    assert re.match(rf"trunkline is ready: {info.public_url} -> 127\.0\.0\.1:\d+ ", said)
    assert f"console at {info.console}, " in said
    assert said.endswith(f"carrier_sim at {info.sim} (account {info.account_sid})")
    with Session() as session:
        status = session.get(f"{info.console}/api/status", timeout=5.0).json()
    assert status["controller"]["console"] == info.console
    assert status["controller"]["stand_in"] == info.sim
    assert len(status["gateways"]) == len(status["codec_workers"]) == 1
    by_hand = ("call", CALLEE, "--from", NUMBER, "--listen", "0.2", "--json")
    call = trunkline.start(*by_hand, **UNSET)
    assert call.process.wait(20) == 0, call.err
    told = json.loads(call.out)
    assert (told["caller"], told["callee"], told["ended_reason"]) == (NUMBER, CALLEE, "hang_up")
    assert f"calling {CALLEE} from {NUMBER}" in call.err
    listed = trunkline.start("calls", "--json")
    assert listed.process.wait(20) == 0, listed.err
    recordings = [Path(each["recording"]) for each in json.loads(listed.out)["calls"]]
    assert [each.parent for each in recordings] == [trunkline.directory / "run-0" / "recordings"]
    with SimClient(info.sim or "") as sim:
        assert [(c["from"], c["to"]) for c in sim.calls()] == [(NUMBER, CALLEE)]
        assert sim.errors() == []
    children = running.children("trunkline")
    assert len(children) == 4
    status, took = running.end()
    assert (status, took < ENDS_WITHIN) == (0, True)
    assert all_end(children, 0.0)
    assert not ready_file.exists()
    assert not (trunkline.directory / "state").exists()  # its journal goes with the carrier
    slip = "TRUNKLINE_MAX_CALL is not a setting, and is ignored: perhaps TRUNKLINE_MAX_CALLS is"
    assert running.err.count(slip) == 1  # its controller says nothing of it
    assert f"the state directory {trunkline.directory / 'state'} is ignored" in running.err
    assert running.err.splitlines()[-1].endswith("ended with status 0")


def test_the_user_names_numbers_and_far_ends(trunkline: Trunkline) -> None:
    (trunkline.directory / "run-0").mkdir()
    (trunkline.directory / "run-0" / "bank.toml").write_text('[main]\nsay = ["music:1"]\n')
    menu, voicemail = "+14155557785", "+14155557786"
    callees = f"{menu}=menu:bank.toml {voicemail}=voicemail"
    named = {"TRUNKLINE_SIM_NUMBERS": NUMBER, "TRUNKLINE_SIM_CALLEES": callees}
    running, _, info = start(trunkline, **named)
    with SimClient(info.sim or "") as sim:
        assert list(sim.numbers()) == [NUMBER]
        for callee in (menu, voicemail):
            call = trunkline.start("call", callee, "--from", NUMBER, "--listen", "0.2")
            assert call.process.wait(20) == 0, call.err
        call = trunkline.start("call", CALLEE, "--from", NUMBER)
        assert call.process.wait(20) == 1, "a far end is there that the user has not named"
    there = f"no callee has that number; there are {menu}, {voicemail}"
    running.until(lambda: f"WARNING a call to '{CALLEE}' fails: {there}" in running.err)


def test_a_call_whose_terminal_is_closed_is_hung_up_and_keeps_its_recording(
    trunkline: Trunkline,
) -> None:
    _, _, info = start(trunkline)
    heard = trunkline.directory / "heard.wav"
    with hanging_up(signal.SIG_DFL):
        call = trunkline.start("call", CALLEE, "--from", NUMBER, "--record", str(heard))
    with SimClient(info.sim or "") as sim:
        call.until(lambda: frames(sim) > 50)
        call.end(signal.SIGHUP)
        assert [each["status"] for each in sim.calls()] == ["completed"]
    # The last of them may have been under way.
    assert "ended (hang_up)" in call.out and len(wav.read(heard)) / 24_000 > 0.5


def test_a_call_whose_stack_goes_away_has_failed_and_keeps_its_recording(
    trunkline: Trunkline,
) -> None:
    running, _, info = start(trunkline)
    heard = trunkline.directory / "heard.wav"
    call = trunkline.start("call", CALLEE, "--from", NUMBER, "--record", str(heard))
    with SimClient(info.sim or "") as sim:
        call.until(lambda: frames(sim) > 50)
    running.end()
    assert call.process.wait(20) == 1
    assert "ended (error)" in call.out and len(wav.read(heard)) / 24_000 > 0.5
    assert "trunkline: nobody hung up: the line was lost" in call.err


@pytest.mark.parametrize("by", ["SIGTERM", "Ctrl-C in its terminal"])
def test_numbers_are_put_back_while_the_carrier_still_answers(
    trunkline: Trunkline, by: str
) -> None:
    running, _, info = start(trunkline)
    with SimClient(info.sim or "") as sim:
        armed(trunkline, sim)
        children = running.children("trunkline")
        if by != "SIGTERM":
            for pid in children:
                os.kill(pid, signal.SIGINT)
        # 3, had a number been left.
        status, took = running.end(signal.SIGTERM if by == "SIGTERM" else signal.SIGINT)
    assert (status, took < ENDS_WITHIN) == (0, True), running.err
    assert all_end(children, 0.0)


def test_a_new_controller_has_the_console_where_the_last_one_had_it(trunkline: Trunkline) -> None:
    """An open page asks there again, and the ready file says so."""
    running, _, info = start(trunkline, **UNSET)

    def told() -> int | None:
        with contextlib.suppress(OSError), Session() as session:
            status = session.get(f"{info.console}/api/status", timeout=5.0).json()
            return int(status["controller"]["pid"])
        return None

    first = told()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    running.until(lambda: told() not in (None, first))


@pytest.mark.parametrize(
    "command", [("answer", NUMBER), ("call", "+14155557777", "--from", NUMBER)]
)
def test_a_command_that_is_interrupted_before_its_call_is_up_has_failed(
    trunkline: Trunkline, command: tuple[str, ...]
) -> None:
    """So that a script does not go on behind it."""
    _, _, info = start(
        trunkline, TRUNKLINE_SIM_CALLEES=f"{CALLEE}=no-answer", TRUNKLINE_SIM_NUMBERS=NUMBER
    )
    waiting = trunkline.start(*command)
    with SimClient(info.sim or "") as sim:
        if command[0] == "answer":
            waiting.until(lambda: sim.numbers()[NUMBER]["voice_url"] != "")
        else:
            waiting.until(sim.calls)
    assert waiting.end(signal.SIGINT)[0] == 1
    assert waiting.err.splitlines()[-1] == "trunkline: interrupted"


def test_a_stack_that_is_interrupted_while_it_comes_up_has_failed(trunkline: Trunkline) -> None:
    """Ctrl-C in its terminal reaches its children, too, while they import their modules."""
    running = trunkline.start("up", "--sim", **UNSET)
    running.until(lambda: running.children("controller"))
    children = running.children("trunkline")
    for pid in children:
        os.kill(pid, signal.SIGINT)
    status, took = running.end(signal.SIGINT)
    assert (status, took < ENDS_WITHIN) == (1, True), running.err
    assert "starting it again" not in running.err
    assert "interrupted before the stack was ready" in running.err
    assert "trunkline is ready" not in running.out
    assert all_end(children, 0.0)


def test_when_the_supervisor_is_killed_the_carrier_outlives_the_controller(
    trunkline: Trunkline,
) -> None:
    """The controller says so only after the carrier has taken the change."""
    running, _, info = start(trunkline)
    with SimClient(info.sim or "") as sim:
        armed(trunkline, sim)
    children = running.children("trunkline")
    running.process.kill()
    running.process.wait()
    assert all_end(children)
    assert "number ***1234 is as it was before" in running.err


def test_the_next_stack_removes_what_one_has_left_that_was_killed(
    trunkline: Trunkline, short_directory: Path
) -> None:
    killed, ready_file, _ = start(trunkline, TMPDIR=str(short_directory))
    (left,) = short_directory.glob("trunkline-sim-*")
    children = killed.children("trunkline")
    killed.process.kill()
    killed.process.wait()
    assert all_end(children)
    assert left.exists()
    ready_file.unlink()
    running, *_ = start(trunkline, TMPDIR=str(short_directory))
    assert not left.exists() and len(list(short_directory.glob("trunkline-sim-*"))) == 1
    assert running.end()[0] == 0
    assert list(short_directory.glob("trunkline-sim-*")) == []


def test_the_stack_ends_with_the_carrier(trunkline: Trunkline) -> None:
    running, ready_file, _ = start(trunkline)
    children = running.children("trunkline")
    (carrier,) = running.children("trunkline", "carrier-sim")
    psutil.Process(carrier).kill()
    assert running.process.wait(ENDS_WITHIN) == 1
    said = "the stand-in carrier ended (killed by signal 9), so the stack ends"
    assert said in running.err
    assert not ready_file.exists()
    assert all_end(children, 0.0)


def test_what_a_dead_carrier_does_not_take_back_is_not_promised_for_later(
    trunkline: Trunkline,
) -> None:
    """The journal is deleted with it, so no `trunkline restore` will find the number."""
    running, _, info = start(trunkline)
    with SimClient(info.sim or "") as sim:
        armed(trunkline, sim)
    (carrier,) = running.children("trunkline", "carrier-sim")
    psutil.Process(carrier).kill()
    assert running.process.wait(ENDS_WITHIN) == 1
    assert "number ***1234 is still to be restored" in running.err
    assert running.err.splitlines()[-2].endswith(
        "what is left open stays so: the journal is deleted with the stand-in carrier"
    )


def test_a_carrier_that_cannot_start_ends_the_stack_before_it_is_one(
    trunkline: Trunkline,
) -> None:
    ready_file = trunkline.directory / "up.json"
    ready_file.write_text("of one that was killed")
    argv = ("up", "--sim", "--ready-file", str(ready_file))
    running = trunkline.start(*argv, TRUNKLINE_SIM_NUMBERS="no number")
    assert running.process.wait(20) == 1
    assert "has to begin with +NUMBER" in running.err
    assert "the stand-in carrier ended (status 2), so the stack ends" in running.err
    assert "controller" not in running.err
    assert not ready_file.exists()
