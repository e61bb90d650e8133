"""The pytest plugin: a phone line for tests, and one stack for the whole run.

    async def test_greeting(phone_line):
        call = await phone_line.place_call("+14155557777", attach_stream="a-leg")

``phone_line`` is an open :class:`~trunkline.Line`; ``phone_stack`` is the stack behind it;
``carrier_sim`` runs the test against the stand-in carrier, without an account. The stack is the one
at ``--phone-bus`` or ``TRUNKLINE_BUS``, else one that answers at the default address, else one that
is started for this run, shared by all workers of pytest-xdist, and ended with it (shared_stack.py).

This module is imported in every run of pytest where trunkline is installed, so what it needs is
imported where a test asks for it. Its fixtures are synchronous: they need no plugin for asyncio,
and a line may be used from any event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from .gates import caps

if TYPE_CHECKING:
    from trunkline.carrier_sim.client import SimClient

    from . import Line, TwilioAgentAdapter
    from .gates.run import Gates
    from .stack.shared_stack import RunDirectory, Wanted

T = TypeVar("T")

#: Numbers of the stand-in's account: enough for a line for each test of many workers.
SIM_NUMBERS = tuple(f"+1415555{n:04d}" for n in range(100, 120))
SIM_VOICE_URL = "https://agent.example/voice"
SIM_CALLEES = (
    "+14155557777=echo",
    "+14155557778=speech:austen-0880,greets,when_silent=0.7,repeat",
    "+14155557779=busy",
)

_run_key = pytest.StashKey["_Run"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("trunkline", "phone lines (trunkline)")
    for name, meaning in (
        ("number", "The number of phone_line: E.164, or any (the pool)."),
        ("bus", "Join the stack at this bus address."),
        ("tunnel", "For a stack that is started: cloudflared or ngrok."),
        ("line", "The line of the stand-in's far ends: street, mobile-bad, … (docs/far-end.md)."),
    ):
        group.addoption(f"--phone-{name}", help=meaning)
        parser.addini(f"phone_{name}", meaning, "string")
    group.addoption(
        "--phone-sim",
        action="store_true",
        default=None,
        help="Run against the stand-in carrier, without an account.",
    )
    group.addoption(
        "--phone-repeat",
        type=int,
        default=1,
        metavar="N",
        help="Run each test of phone calls N times, and tell how many passed.",
    )
    group.addoption(
        "--phone-baseline",
        type=Path,
        metavar="FILE",
        help="Fail where answers, or yields, are slower than in FILE; tests that are not in it yet "
        "are added.",
    )
    group.addoption(
        "--phone-report",
        type=Path,
        metavar="DIR",
        help="Write DIR/index.html: all calls of the run, with their sound. Beside it is a "
        "cassette of each call of a failed test (docs/replay.md).",
    )
    group.addoption(
        "--phone-seed",
        type=int,
        default=0,
        metavar="N",
        help="Seed by which the stand-in carrier draws what Twilio does in one way or another.",
    )
    caps.add_options(group)
    parser.addini("phone_sim", "Run against the stand-in carrier.", "bool", False)
    parser.addini("phone_callees", "Numbers that phone_line may dial.", "args", [])
    parser.addini("phone_wait", "Seconds to wait for a free number.", "string", "300")
    parser.addini("phone_sim_numbers", "The account's numbers.", "args", list(SIM_NUMBERS))
    parser.addini("phone_sim_callees", "Who answers: NUMBER=BOT.", "args", list(SIM_CALLEES))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "phone_line(number=None, allowed_callers=None, allowed_callees=None): what the fixture "
        "phone_line of this test is opened with.",
    )
    config.addinivalue_line(
        "markers", "carrier_sim: this test runs against the stand-in carrier, without an account."
    )
    config.addinivalue_line(
        "markers",
        "phone_limits(latency_p95=None, time_to_yield_p95=None, talk_over=None, …): what the calls "
        "of this test must keep, in seconds (docs/gates.md).",
    )
    config.stash[_run_key] = run = _Run(config)
    config.pluginmanager.register(run, "trunkline-run")
    config.pluginmanager.register(caps.Caps(config, lambda: run.directory), "trunkline-caps")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """A worker of pytest-xdist is told where the run's stacks are."""
    node.workerinput["trunkline_directory"] = str(node.config.stash[_run_key].directory)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """With ``--phone-sim`` the stack stands before tests are imported, and the environment names
    it, so that tests which know nothing of this plugin join it."""
    config = session.config
    leads = config.pluginmanager.has_plugin("dsession")  # pytest-xdist's own process runs no test
    if not _option(config, "phone_sim") or config.option.collectonly or leads:
        return
    from trunkline.bus.errors import TrunklineError

    try:
        stack = config.stash[_run_key].stack(simulated=True)
    except TrunklineError as error:
        raise pytest.UsageError(f"--phone-sim: {error}") from error
    os.environ.update(stack.environment)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    run = session.config.stash[_run_key]
    run.conclude()
    run.close()
    if run.problems and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(_run_key, None)
    if run is not None:
        run.close()  # where there was no session to finish


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and config.getoption("--phone-sim"):
        terminalreporter.write_line(
            f"trunkline: no tests are in {Path.cwd()}: `trunkline init` writes a first one"
        )
    for told in config.stash[_run_key].pass_rates + config.stash[_run_key].replays:
        terminalreporter.write_line(f"trunkline: {told}")
    for problem in config.stash[_run_key].problems:
        terminalreporter.write_line(f"trunkline: {problem}", red=True)


class _Run:
    """This process's part in the run."""

    def __init__(self, config: pytest.Config) -> None:
        self.problems: list[str] = []
        self.pass_rates: list[str] = []
        #: how to play the calls of failed tests again
        self.replays: list[str] = []
        #: the stack that was found or started keeps cassettes, and we know where
        self.keeps_cassettes = False
        self._gates: Gates | None = None
        self._config = config
        self._stacks: dict[bool, PhoneStack] = {}
        worker = getattr(config, "workerinput", None)
        self._given = None if worker is None else Path(worker["trunkline_directory"])
        self._own: RunDirectory | None = None

    @property
    def directory(self) -> Path:
        if self._given is not None:
            return self._given
        if self._own is None:
            from .stack.shared_stack import RunDirectory

            self._own = RunDirectory()
        return self._own.path

    @property
    def gates(self) -> Gates:
        """What is asked of this run's calls."""
        if self._gates is None:
            from .gates.run import Gates

            option = self._config.getoption
            self._gates = Gates(option("--phone-baseline"), option("--phone-report"))
        return self._gates

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(report, "phone_test"):
            self.gates.note(report)

    def conclude(self) -> None:
        """At the end of the run, in its first process: what is to be told of its calls."""
        asked = self._gates is not None or self._config.getoption("--phone-report") is not None
        if self._given is None and asked:
            self.problems += self.gates.conclude()
            self.pass_rates += self.gates.pass_rates()

    def stack(self, *, simulated: bool) -> PhoneStack:
        """The stack of this process's tests, found or started once."""
        if simulated not in self._stacks:
            self._stacks[simulated] = _find(self._config, simulated)
        return self._stacks[simulated]

    def close(self) -> None:
        """End what this run started; a worker leaves that to the controller."""
        own, self._own = self._own, None
        if own is None:
            self._keep(None)
            if self._stacks:
                from .stack.shared_stack import leave

                leave()
        else:
            self.problems += own.close(lambda: self._keep(own.path))

    def _keep(self, directory: Path | None) -> None:
        """The stacks in the run's ``directory`` have ended: keep the cassettes of failed tests."""
        gates, self._gates = self._gates, None
        if gates is not None and self._given is None:
            self.replays += gates.keep_cassettes(directory)

    def cassettes(self, directory: Path) -> Path | None:
        """Where the stacks that the run starts keep cassettes."""
        from .gates import kept

        return kept.source(directory, asked=self._config.getoption("--phone-report") is not None)


# --------------------------------------------------------------------------- gates

_FIXTURES = {"phone_line", "open_phone_line", "phone_stack", "carrier_sim"}


def _has_calls(node: Any, fixtures: Iterable[str]) -> bool:
    return node.get_closest_marker("phone_limits") is not None or bool(_FIXTURES & set(fixtures))


def _is_followed(item: pytest.Item) -> bool:
    """Somebody asks about this test's calls."""
    option = item.config.getoption
    return item.get_closest_marker("phone_limits") is not None or (
        (option("--phone-repeat") > 1 or option("--phone-baseline") or option("--phone-report"))
        and _has_calls(item, getattr(item, "fixturenames", ()))
    )


@pytest.fixture
def _phone_repeat(request: pytest.FixtureRequest) -> object:
    """Which repetition of ``--phone-repeat`` this is."""
    return request.param


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    count = metafunc.config.getoption("--phone-repeat")
    if count > 1 and _has_calls(metafunc.definition, metafunc.fixturenames):
        from .gates.run import REPEAT_ID

        metafunc.fixturenames.append("_phone_repeat")
        ids = [REPEAT_ID.format(n=n + 1, count=count) for n in range(count)]
        metafunc.parametrize("_phone_repeat", range(count), indirect=True, ids=ids)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Follow a test's calls, and judge them once the test has passed."""
    if not _is_followed(item):
        return (yield)
    from .gates.run import followed

    gates = item.config.stash[_run_key].gates
    with followed() as calls:
        try:
            yield
        except (Exception, pytest.fail.Exception) as error:
            gates.judge(item, calls, f"{type(error).__name__}: {error}")
            raise
    verdict = gates.judge(item, calls, None)
    if verdict is not None:
        pytest.fail(verdict, pytrace=False)
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if _is_followed(item):
        item.config.stash[_run_key].gates.tell(item, report)
    return report


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """An async test that no plugin runs: pytest would say so without saying what to do here."""
    asked = _option(pyfuncitem.config, "phone_sim")
    if not asked and not _has_calls(pyfuncitem, pyfuncitem.fixturenames):
        return
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return  # pytest-asyncio and anyio come first, and leave a plain function
    if pyfuncitem.config.pluginmanager.has_plugin("asyncio"):
        todo = "set asyncio_mode = auto in pytest's settings (`trunkline init` shows where)"
    else:
        todo = "pip install 'trunkline[pytest]', and set asyncio_mode = auto (`trunkline init`)"
    pytest.fail(f"nothing runs this async test: {todo}", pytrace=False)


# --------------------------------------------------------------------------- the stack


@dataclass(frozen=True)
class PhoneStack:
    """The stack of a test. ``sim``: base URL of its stand-in carrier, None at a real one."""

    bus: str
    account_sid: str
    auth_token: str
    public_url: str
    sim: str | None = None

    def __repr__(self) -> str:
        from trunkline.bus.redact import mask_url

        url = mask_url(self.public_url)
        return f"PhoneStack(bus={self.bus!r}, public_url={url!r}, sim={self.sim!r})"

    @property
    def environment(self) -> dict[str, str]:
        """What makes a Line or an adapter of this process join it."""
        return {
            "TRUNKLINE_BUS": self.bus,
            "TWILIO_ACCOUNT_SID": self.account_sid,
            "TWILIO_AUTH_TOKEN": self.auth_token,
        }

    def adapter(self, phone_number: str = "any", **settings: Any) -> TwilioAgentAdapter:
        """A TwilioAgentAdapter on this stack (needs ``trunkline[scenario]``)."""
        from . import TwilioAgentAdapter

        return TwilioAgentAdapter(
            account_sid=self.account_sid,
            auth_token=self.auth_token,
            phone_number=phone_number,
            bus=self.bus,
            **settings,
        )


def _option(config: pytest.Config, name: str) -> Any:
    """The option, else the setting of the ini file."""
    given = config.getoption(f"--{name.replace('_', '-')}")
    return config.getini(name) if given is None else given


def _simulated(request: pytest.FixtureRequest) -> bool:
    return (
        request.node.get_closest_marker("carrier_sim") is not None
        or "carrier_sim" in request.fixturenames
        or bool(_option(request.config, "phone_sim"))
    )


def _find(config: pytest.Config, simulated: bool) -> PhoneStack:
    """The stack that there is, or one that is started; its far ends on the line that is wanted."""
    stack = _find_stack(config, simulated)
    if config.getoption("--phone-report") and (run := config.stash[_run_key]).keeps_cassettes:
        from .gates import kept

        run.gates.seed = partial(kept.seed_of, stack.sim)
    line = _option(config, "phone_line")
    if line and stack.sim is not None:
        from trunkline.carrier_sim.client import SimClient, SimError

        with SimClient(stack.sim) as sim:
            try:
                sim.set_line(line)
            except SimError as error:
                raise pytest.UsageError(f"--phone-line: {error}") from error
    elif line:
        raise pytest.UsageError("--phone-line goes with the stand-in carrier (--phone-sim)")
    return stack


def _find_stack(config: pytest.Config, simulated: bool) -> PhoneStack:
    from trunkline.bus import settings as bus_settings

    from .stack import shared_stack

    run = config.stash[_run_key]
    settings = bus_settings.load(bus=_option(config, "phone_bus") or None)
    sim = _sim_of(settings.twilio_api_url)
    asked = "bus" in settings.given
    if sim is not None or not simulated:
        joined = _run_apart(_join(settings, required=asked))
        if joined is not None:
            account, public_url = joined
            token = settings.auth_token
            run.keeps_cassettes = settings.cassettes_dir is not None
            return PhoneStack(settings.bus, account, token, public_url, sim)
    directory = run.directory
    settings = settings.changed(cassettes_dir=run.cassettes(directory))
    run.keeps_cassettes = settings.cassettes_dir is not None
    wanted: Wanted
    if simulated:
        callees = dict(
            _callee(item, config.rootpath) for item in config.getini("phone_sim_callees")
        )
        numbers = dict.fromkeys(config.getini("phone_sim_numbers"), SIM_VOICE_URL)
        wanted = shared_stack.simulated(
            directory,
            numbers,
            callees,
            TRUNKLINE_SIM_SEED=str(config.getoption("--phone-seed")),
            **shared_stack.cassette_settings(settings),
        )
    else:
        settings.require("account_sid")
        settings.require("auth_token")
        wanted = shared_stack.twilio(directory, settings, _option(config, "phone_tunnel") or None)
    info = shared_stack.acquire(directory, "sim" if simulated else "twilio", wanted)
    return PhoneStack(info.bus, info.account_sid, info.auth_token, info.public_url, info.sim)


def _callee(item: str, root: Path) -> tuple[str, str]:
    """``NUMBER=BOT``; a recording's relative path begins where the ini file is."""
    from trunkline.carrier_sim.client import located

    number, _, bot = item.partition("=")
    return number, str(located(bot, root))


def _sim_of(api_url: str | None) -> str | None:
    """``api_url`` where it is a stand-in carrier that answers."""
    if api_url is None:
        return None
    from trunkline.carrier_sim.client import SimClient, SimError

    with SimClient(api_url, timeout=2.0) as sim:
        try:
            sim.health()
        except (OSError, SimError):
            return None
    return api_url


async def _join(settings: Any, *, required: bool) -> tuple[str, str] | None:
    """Account and public URL of the stack that runs at the bus address; None where none is
    there (StackUnavailableError where the user named the address) or it is another account's."""
    from trunkline.bus.control import UNAVAILABLE_AFTER
    from trunkline.bus.errors import StackUnavailableError

    from .stack.controller_client import controller_client

    directory = settings.address.directory
    if not required and not (directory / "control").exists():
        return None
    try:
        async with controller_client(
            settings, timeout=UNAVAILABLE_AFTER if required else 2.0
        ) as client:
            assert client.welcome is not None
            account, public_url = client.welcome.account, client.welcome.public_url
    except StackUnavailableError:
        if required:
            raise
        return None
    if not required and settings.account_sid and account != settings.account_sid:
        return None
    return account, public_url or ""


@pytest.fixture
def phone_stack(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> PhoneStack:
    """The stack of this test. TRUNKLINE_BUS, TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN name it for
    as long as the test lasts, so that a Line or an adapter that the test makes joins it."""
    stack = request.config.stash[_run_key].stack(simulated=_simulated(request))
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    return stack


@pytest.fixture
def carrier_sim(phone_stack: PhoneStack) -> Iterator[SimClient]:
    """The stand-in carrier of this test: ``place_call``, ``add_callee``, ``played``, faults, …

    All tests and workers of the run share it.
    """
    from trunkline.carrier_sim.client import SimClient

    assert phone_stack.sim is not None
    with SimClient(phone_stack.sim) as client:
        yield client


# --------------------------------------------------------------------------- lines


@pytest.fixture
def open_phone_line(
    request: pytest.FixtureRequest, phone_stack: PhoneStack
) -> Iterator[Callable[..., Line]]:
    """``open_phone_line(number=None, allowed_callers=None, allowed_callees=None)``: a further open
    line; closed, and its number put back, after the test."""
    from . import Line

    config = request.config
    lines: list[Line] = []

    def open_line(
        number: str | None = None,
        allowed_callers: Iterable[str] | None = None,
        allowed_callees: Iterable[str] | None = None,
    ) -> Line:
        if allowed_callees is None:
            allowed_callees = config.getini("phone_callees") or None
        line = Line(
            number or _option(config, "phone_number") or "any",
            allowed_callers=allowed_callers,
            allowed_callees=allowed_callees,
            bus=phone_stack.bus,
            auth_token=phone_stack.auth_token,
        )
        _run_apart(_open(line, float(config.getini("phone_wait"))))
        lines.append(line)
        return line

    yield open_line
    with contextlib.ExitStack() as closing:
        for line in lines:
            closing.callback(_run_apart, line.close())


async def _open(line: Line, within: float) -> None:
    try:
        async with asyncio.timeout(within):
            await line.open()
    except TimeoutError:
        pytest.fail(f"no number of the pool became free within {within:g} s (phone_wait)")


@pytest.fixture
def phone_line(request: pytest.FixtureRequest, open_phone_line: Callable[..., Line]) -> Line:
    """An open :class:`~trunkline.Line` for this test; ``@pytest.mark.phone_line(number=…,
    allowed_callers=…, allowed_callees=…)`` says with what."""
    marker = request.node.get_closest_marker("phone_line")
    return open_phone_line(*(marker.args if marker else ()), **(marker.kwargs if marker else {}))


def _run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop in a thread of its own: the test's loop and its policy, whichever
    plugin made them, are not touched."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001  # raised below, in the thread that asked
            failure.append(error)

    thread = threading.Thread(target=run, name="trunkline-fixture")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]
