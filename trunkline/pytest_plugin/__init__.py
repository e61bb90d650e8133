"""The pytest plugin: a phone line for tests, and one stack for the whole run.

    async def test_greeting(phone_line):
        call = await phone_line.place_call("+14155557777", attach_stream="a-leg")

``phone_line`` is an open :class:`~trunkline.Line`. ``phone_stack`` is the stack behind it.
``carrier_sim`` runs the test against the stand-in carrier, without an account. The stack is the one
at ``--phone-bus`` or ``TRUNKLINE_BUS``, else one of this account that answers at the default
address, else one that is started for this run. All workers of pytest-xdist share that one, and it
ends with the run (stack/shared_stack.py).

This file has the options and pytest's hooks. fixtures.py has the fixtures, stack.py finds the
stack, and run.py keeps what one process knows of the run. pytest imports this package in every run
where trunkline is installed, so other modules are imported only when a test needs them.
"""

from __future__ import annotations

import argparse
import inspect
import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import pytest

from ..gates import caps

# pytest finds fixtures by their names in the plugin's module.
from .fixtures import _phone_repeat, carrier_sim, open_phone_line, phone_line, phone_stack
from .run import RUN, Run
from .stack import SIM_CALLEES, SIM_NUMBERS, PhoneStack, option

__all__ = [
    "SIM_CALLEES",
    "SIM_NUMBERS",
    "PhoneStack",
    "_phone_repeat",
    "carrier_sim",
    "open_phone_line",
    "phone_line",
    "phone_stack",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("trunkline", "phone lines (trunkline)")
    for name, meaning in (
        ("number", "The number of phone_line: one of the account's, or `any` of the pool."),
        ("bus", "Join the stack at this bus address."),
        ("tunnel", "The tunnel of a stack that the run starts: cloudflared or ngrok."),
        (
            "line",
            "The line on which the stand-in carrier's far ends are: street, mobile-bad, … "
            "(docs/far-end.md).",
        ),
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
        type=_repetitions,
        default=1,
        metavar="N",
        help="Run each test of phone calls N times, and say how often it passed.",
    )
    group.addoption(
        "--phone-baseline",
        type=Path,
        metavar="FILE",
        help="Fail where answers or yields are slower than in FILE. Tests that are not in FILE yet "
        "are added to it.",
    )
    group.addoption(
        "--phone-report",
        type=Path,
        metavar="DIR",
        help="Write DIR/index.html with all calls of the run and their sound, and beside it a "
        "cassette of each call of a failed test (docs/replay.md).",
    )
    group.addoption(
        "--phone-seed",
        type=int,
        metavar="N",
        help="Seed by which the stand-in carrier draws its habits: what Twilio does sometimes in "
        "one way, and sometimes in another (or TRUNKLINE_SIM_SEED).",
    )
    caps.add_options(group)
    parser.addini("phone_sim", "Run against the stand-in carrier.", "bool", False)
    parser.addini("phone_callees", "Numbers that phone_line may dial.", "args", [])
    parser.addini(
        "phone_wait", "Seconds to wait until a number of the pool is free.", "string", "300"
    )
    parser.addini(
        "phone_sim_numbers",
        "Numbers of the stand-in's account: NUMBER[=VOICE_URL].",
        "args",
        list(SIM_NUMBERS),
    )
    parser.addini(
        "phone_sim_callees",
        "Far ends of the stand-in carrier: NUMBER=BOT.",
        "args",
        list(SIM_CALLEES),
    )


def _repetitions(text: str) -> int:
    count = caps.whole_number(text)
    if count < 1:
        raise argparse.ArgumentTypeError("a test runs at least once")
    return count


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "phone_line(number=None, allowed_callers=None, allowed_callees=None): arguments with which "
        "this test's fixture phone_line is opened.",
    )
    config.addinivalue_line(
        "markers", "carrier_sim: this test runs against the stand-in carrier, without an account."
    )
    config.addinivalue_line(
        "markers",
        "phone_limits(latency_p95=None, time_to_yield_p95=None, talk_over=None, …): limits that "
        "the calls of this test have to keep: times in seconds, and counts (docs/gates.md).",
    )
    config.stash[RUN] = run = Run(config)
    config.pluginmanager.register(run, "trunkline-run")
    config.pluginmanager.register(caps.Caps(config, lambda: run.directory), "trunkline-caps")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist the run's directory, in which its stacks are."""
    node.workerinput["trunkline_directory"] = str(node.config.stash[RUN].directory)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse a page that cannot be written, and a baseline that is none, before calls are paid for.
    With ``--phone-sim``, start the stack before tests are imported, and name it in the environment,
    so that tests which do not use this plugin's fixtures join it, too."""
    config = session.config
    leads = config.pluginmanager.has_plugin("dsession")  # the controller of pytest-xdist
    if config.option.collectonly:
        return
    pages = config.getoption("--phone-report")
    if pages is not None and not hasattr(config, "workerinput"):
        from ..reports import files

        try:
            files.check(pages / "index.html")
        except OSError as error:
            raise pytest.UsageError(f"--phone-report {pages}: {error.strerror}") from error
    baseline = config.getoption("--phone-baseline")
    if baseline is not None and not hasattr(config, "workerinput"):
        from ..gates.run import read_baseline

        read_baseline(baseline)
    if not option(config, "phone_sim") or leads:
        return
    from trunkline.bus.errors import TrunklineError

    try:
        stack = config.stash[RUN].stack(simulated=True)
    except TrunklineError as error:
        raise pytest.UsageError(f"--phone-sim: {error}") from error
    os.environ.update(stack.environment)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    run = session.config.stash[RUN]
    run.conclude()
    run.close()
    if run.problems and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(RUN, None)
    if run is not None:
        run.close()  # where there was no session to finish


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and config.getoption("--phone-sim"):
        terminalreporter.write_line(
            f"trunkline: there are no tests in {Path.cwd()}: `trunkline init` writes a first one"
        )
    run = config.stash[RUN]
    for told in run.pass_rates + run.notes + run.replays:
        terminalreporter.write_line(f"trunkline: {told}")
    for problem in run.problems:
        terminalreporter.write_line(f"trunkline: {problem}", red=True)


_FIXTURES = {"phone_line", "open_phone_line", "phone_stack", "carrier_sim"}


def _has_calls(node: Any, fixtures: Iterable[str]) -> bool:
    return node.get_closest_marker("phone_limits") is not None or bool(_FIXTURES & set(fixtures))


def _is_followed(item: pytest.Item) -> bool:
    """Whether a marker or an option asks about this test's calls."""
    given = item.config.getoption
    return item.get_closest_marker("phone_limits") is not None or (
        (given("--phone-repeat") > 1 or given("--phone-baseline") or given("--phone-report"))
        and _has_calls(item, getattr(item, "fixturenames", ()))
    )


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class,
) -> Generator[None, Any, Any]:
    """Refuse limits that there are not before any call is paid for."""
    made = yield
    for item in made if isinstance(made, list) else []:
        marker = item.get_closest_marker("phone_limits")
        if marker is not None:
            from ..gates import limits

            try:
                limits.check_marker(marker)
            except ValueError as error:
                raise collector.CollectError(f"{item.name}: {error}") from error
    return made


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    count = metafunc.config.getoption("--phone-repeat")
    if count > 1 and _has_calls(metafunc.definition, metafunc.fixturenames):
        from ..gates.run import REPEAT, REPEAT_ID

        metafunc.fixturenames.append(REPEAT)
        ids = [REPEAT_ID.format(n=n + 1, count=count) for n in range(count)]
        metafunc.parametrize(REPEAT, range(count), indirect=True, ids=ids)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Follow a test's calls, and judge them when the test has ended."""
    if not _is_followed(item):
        return (yield)
    from ..gates.run import followed

    gates = item.config.stash[RUN].gates
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
        item.config.stash[RUN].gates.tell(item, report)
    return report


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Fail an async test that no plugin runs, and say what to do. pytest's own message does not
    know what trunkline needs."""
    asked = option(pyfuncitem.config, "phone_sim")
    if not asked and not _has_calls(pyfuncitem, pyfuncitem.fixturenames):
        return
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return  # a plain test, or one that pytest-asyncio or anyio has made a plain function of
    if pyfuncitem.config.pluginmanager.has_plugin("asyncio"):
        todo = "set asyncio_mode = auto in pytest's settings (`trunkline init` shows where)"
    else:
        todo = "pip install 'trunkline[pytest]', and set asyncio_mode = auto (`trunkline init`)"
    pytest.fail(f"nothing runs this async test: {todo}", pytrace=False)
