"""The pytest plugin in runs of its own, with and without pytest-xdist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from talk import assert_ended

# pytester throws out of sys.modules what was imported while it was in use; so all that the fixtures
# of this very run import later is imported here.
import trunkline.adapter.line
import trunkline.carrier_sim.client
import trunkline.stack.controller_client
import trunkline.stack.shared_stack  # noqa: F401  # as said
from trunkline.bus.settings import load
from trunkline.errors import StackUnavailableError
from trunkline.pytest_plugin import stack

pytest_plugins = ["pytester"]

SUITE = """
import asyncio, os, time
import pytest

def record(name, stack):
    with open(os.path.join(os.environ["RECORDS"], name), "w") as file:
        print(stack.bus, os.environ["TRUNKLINE_BUS"], file=file)

@pytest.mark.phone_line(allowed_callees=["+14155557777"])
@pytest.mark.parametrize("n", range(4))
def test_calls(phone_line, phone_stack, carrier_sim, n):
    async def call():
        call = await phone_line.place_call("+14155557777", attach_stream="a-leg")
        assert await call.send_audio(bytes(4800)) == 2400
        await call.hang_up()
        return call.sid
    sid = asyncio.run(call())
    assert carrier_sim.call(sid)["from"] == phone_line.number
    record(f"calls-{n}", phone_stack)

async def test_answers(phone_line, phone_stack, carrier_sim):
    waiting = asyncio.ensure_future(phone_line.wait_for_call(20))
    while not carrier_sim.numbers()[phone_line.number]["voice_url"].startswith("http://127"):
        await asyncio.sleep(0.02)
    carrier_sim.place_call("+14155550000", phone_line.number, "speech:austen-0880")
    call = await waiting
    assert await call.recv_audio(5)
    record("answers", phone_stack)

def test_two_lines_have_two_numbers(open_phone_line, phone_stack, carrier_sim):
    assert open_phone_line().number != open_phone_line().number
    record("two", phone_stack)
"""


@pytest.fixture
def run_suite(  # type: ignore[no-untyped-def]  # the fixture's type is its body's
    another_run: None,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    """Runs ``suite`` in a process of its own; the names and stacks that its tests recorded."""
    records = tmp_path / "records"
    records.mkdir()
    monkeypatch.setenv("RECORDS", str(records))
    pytester.makeini("[pytest]\nasyncio_mode=auto\nasyncio_default_fixture_loop_scope=function\n")

    def run(suite: str, *argv: str) -> tuple[pytest.RunResult, dict[str, list[str]]]:
        pytester.makepyfile(suite)
        result = pytester.runpytest_subprocess(*argv, timeout=60)
        return result, {path.name: path.read_text().split() for path in records.iterdir()}

    return run


Refused = Callable[..., pytest.LineMatcher]


@pytest.fixture
def refused(another_run: None, pytester: pytest.Pytester) -> Refused:
    """What is said of a run that the plugin refuses. It is in this process: it starts nothing."""

    def run(*argv: str) -> pytest.LineMatcher:
        scope = "asyncio_default_fixture_loop_scope=function"  # pytest-asyncio warns else
        result = pytester.runpytest_inprocess("-o", scope, *argv)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        return result.stderr

    return run


@pytest.mark.e2e
def test_all_workers_share_one_stack_which_ends_with_the_run(run_suite) -> None:  # type: ignore[no-untyped-def]  # as above
    """Without pytest-xdist it ends with the run, too: see test_pages.py."""
    result, records = run_suite(SUITE, "-n", "2")
    result.assert_outcomes(passed=6)
    assert len(records) == 6
    buses = {bus for lines in records.values() for bus in lines}
    assert len(buses) == 1, "each process had a stack of its own"
    assert_ended(buses.pop())
    assert "to be put back" not in result.stdout.str()


VARIES = """
import asyncio

async def test_a_caller_whom_the_carrier_hides(open_phone_line, carrier_sim):
    assert carrier_sim.health()["seed"] == 7
    ours = open_phone_line()
    other = open_phone_line(allowed_callees=[ours.number])
    waiting = asyncio.ensure_future(ours.wait_for_call(20))
    while "/twilio/voice" not in carrier_sim.numbers()[ours.number]["voice_url"]:
        await asyncio.sleep(0.02)
    await other.place_call(ours.number, attach_stream="a-leg")
    assert (await waiting).caller == "anonymous"
"""


@pytest.mark.e2e
@pytest.mark.parametrize(("variable", "argv"), [("7", ()), ("8", ("--phone-seed", "7"))])
def test_the_stand_in_varies_as_the_user_says(  # type: ignore[no-untyped-def]  # as above
    run_suite, monkeypatch: pytest.MonkeyPatch, variable: str, argv: tuple[str, ...]
) -> None:
    monkeypatch.setenv("TRUNKLINE_SIM_SEED", variable)
    monkeypatch.setenv("TRUNKLINE_SIM_HABITS", "caller-id=anonymous")
    result, _ = run_suite(VARIES, "--phone-sim", *argv)
    result.assert_outcomes(passed=1)


AGENT = "+14155550100"
AT_THE_AGENT = """
async def test_no_line_takes_the_number_of_the_users_agent(open_phone_line, carrier_sim):
    def url():
        return carrier_sim.numbers()["+14155550100"]["voice_url"]

    assert url() == "http://127.0.0.1:9333/voice"
    assert open_phone_line().number != "+14155550100"
    assert open_phone_line("+14155550100").number == "+14155550100", "a test may still name it"
"""


@pytest.mark.e2e
def test_a_number_of_the_ini_may_have_a_voice_url(run_suite, pytester: pytest.Pytester) -> None:  # type: ignore[no-untyped-def]  # as above
    with (pytester.path / "tox.ini").open("a") as ini:
        ini.write(f"\nphone_sim_numbers = {AGENT}=http://127.0.0.1:9333/voice\n")
    result, _ = run_suite(AT_THE_AGENT, "--phone-sim")
    result.assert_outcomes(passed=1)


RECORDED = """
import json, subprocess, sys
import pytest

@pytest.mark.phone_line(allowed_callees=["+14155557777"])
async def test_a_call(phone_line):
    call = await phone_line.place_call("+14155557777", attach_stream="a-leg")
    await call.send_audio(bytes(48_000))
    await call.hang_up()
    asked = [sys.executable, "-m", "trunkline", "calls", "--json"]
    (known,) = json.loads(subprocess.run(asked, stdout=subprocess.PIPE, check=True).stdout)["calls"]
    assert known["sid"] == call.sid and known["test"].endswith(".py::test_a_call")
"""


@pytest.mark.e2e
def test_calls_at_the_stand_in_are_recorded_where_the_user_says(  # type: ignore[no-untyped-def]  # as above
    run_suite, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUNKLINE_RECORDINGS_DIR", "recordings")
    result, _ = run_suite(RECORDED, "--phone-sim")
    result.assert_outcomes(passed=1)
    assert len(list((pytester.path / "recordings").glob("*.wav"))) == 1


@pytest.mark.parametrize("ini", ["", "phone_sim=true"])
def test_the_stand_in_has_a_stack_of_its_own_and_not_the_one_that_is_named(
    refused: Refused, pytester: pytest.Pytester, ini: str
) -> None:
    pytester.makeini(f"[pytest]\n{ini}\n")
    argv = () if ini else ("--phone-sim",)
    refused(*argv, "--phone-bus", "ipc:///nonexistent/x").fnmatch_lines(
        ["*--phone-sim starts a stack of its own*"]
    )


@pytest.mark.e2e
@pytest.mark.carrier_sim
def test_a_stack_that_runs_is_joined(run_suite, phone_stack, monkeypatch) -> None:  # type: ignore[no-untyped-def]  # as above
    """``phone_stack`` of this very run stands in for what `trunkline up` started."""
    monkeypatch.setenv("TRUNKLINE_TWILIO_API_URL", phone_stack.sim or "")
    result, records = run_suite(SUITE, "-k", "two_lines or calls-0")
    result.assert_outcomes(passed=1, deselected=5)
    assert records["two"] == [phone_stack.bus, phone_stack.bus]


async def test_an_address_without_a_stack_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.bus.control.UNAVAILABLE_AFTER", 0.2)
    settings = load(env_file=None, bus=f"ipc://{tmp_path}/b")
    with pytest.raises(StackUnavailableError, match="no controller answers at ipc://"):
        await stack._join(settings, required=True)
    assert await stack._join(settings, required=False) is None


def test_without_an_account_or_a_stack_the_error_says_what_is_missing(run_suite) -> None:  # type: ignore[no-untyped-def]  # as above
    suite = """
    import pytest

    @pytest.fixture
    def account(monkeypatch):
        monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC" + "1" * 32)
        monkeypatch.setenv("TWILIO_AUTH_TOKEN", "t" * 32)

    def test_without_an_account(phone_line): pass

    def test_without_a_public_url(account, phone_line): pass
    """
    result, _ = run_suite(suite)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*TWILIO_ACCOUNT_SID is not set*"])
    result.stdout.fnmatch_lines(["*twilio stack for these tests did not come up*"])
    result.stdout.fnmatch_lines(["*TRUNKLINE_PUBLIC_URL is not set*"])


def test_a_run_without_phones_costs_nothing(run_suite) -> None:  # type: ignore[no-untyped-def]  # as above
    suite = """
    import sys
    def test_it():
        assert not [n for n in sys.modules if n.startswith(("trunkline.bus", "trunkline.adapter"))]
        assert not {"zmq", "scenario", "twilio"} & set(sys.modules)
    """
    result, _ = run_suite(suite, "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("0", "a test runs at least once"),
        ("-1", "'-1' is not a whole"),
        ("x", "'x' is not a whole"),
    ],
)
def test_a_number_of_repetitions_that_cannot_be_is_refused(
    refused: Refused, given: str, why: str
) -> None:
    refused(f"--phone-repeat={given}").fnmatch_lines([f"*argument --phone-repeat: {why}*"])


def test_a_page_that_cannot_be_written_is_refused_before_any_call(
    refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    page = tmp_path / "file" / "out"
    refused(f"--phone-report={page}").fnmatch_lines([f"*--phone-report {page}: Not a directory*"])


def test_a_baseline_that_is_none_is_refused_before_any_call(
    refused: Refused, tmp_path: Path
) -> None:
    file = tmp_path / "phone.json"
    file.write_text("{")
    for path, why in ((file, "this is not a baseline"), (tmp_path, "Is a directory")):
        refused(f"--phone-baseline={path}").fnmatch_lines([f"*--phone-baseline {path}: {why}*"])


LIMITS = """
import pytest

class TestAgent:
    @pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.phone_limits({limits}))])
    def test_talk(self, n):
        open("ran", "w").close()
"""


@pytest.mark.usefixtures("another_run")
@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("latency_p59=1", "there is no limit 'latency_p59'; there are latency_p50, _p90, _p95, *"),
        ("talk_over='1'", "talk_over='1' is not a number"),
        ("1.5", "1.5 has no name; say latency_p95=1.5, for example"),
    ],
)
def test_limits_that_there_are_not_are_refused_before_any_call(
    pytester: pytest.Pytester, given: str, why: str, workers: str
) -> None:
    pytester.makepyfile(test_agent=LIMITS.replace("{limits}", given))
    scope = "asyncio_default_fixture_loop_scope=function"  # pytest-asyncio warns else
    result = pytester.runpytest_subprocess("-o", scope, "-n", workers, timeout=60)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"test_talk[[]2]: phone_limits: {why}"])
    assert not Path("ran").exists()


def test_markers_are_registered(request: pytest.FixtureRequest) -> None:
    markers = "\n".join(request.config.getini("markers"))
    assert "phone_line(number=None" in markers and "carrier_sim: " in markers


ASYNC = """
import pytest

@pytest.fixture
def phone_line():
    return None

async def test_a_call(phone_line): pass
"""


@pytest.mark.parametrize(
    ("argv", "todo"),
    [
        (("-p", "no:asyncio", "-o", "asyncio_mode="), "*pip install 'trunkline[[]pytest[]]'*"),
        (("-o", "asyncio_mode=strict"), "*set asyncio_mode = auto in pytest's settings*"),
    ],
)
def test_an_async_test_that_nothing_runs_is_told_what_to_do(
    another_run: None, pytester: pytest.Pytester, argv: tuple[str, ...], todo: str
) -> None:
    pytester.makepyfile(ASYNC)
    result = pytester.runpytest_subprocess("-W", "ignore", "-p", "no:anyio", *argv, timeout=60)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([todo])
