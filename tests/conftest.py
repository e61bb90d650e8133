"""For all tests: a home, examples of hypothesis, who runs beside whom, fixtures of several rooms.

langwatch-scenario does not start without a home directory, so a user who has none gets one. When it
is imported it would also fetch a price list from the network, and is told not to.

Where CI is set, hypothesis draws the same examples each time: a new counterexample should be found
by whoever works on the code, not by a build of something else. `pytest --hypothesis-seed=random`
looks for new ones there too.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

# One BLAS thread, as the processes of a stack have it: a pool would spin beside the other tests.
# BLAS reads this when numpy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A run of pytest inside of a test forgets the modules that it imported first. These two belong to
# numpy, which imports them when they are asked for, and they cannot be loaded twice.
import numpy.fft
import numpy.random  # noqa: F401  # loaded is all that it should be
import pytest
from hypothesis import settings

from trunkline.bus import imports
from trunkline.demo import surroundings

if TYPE_CHECKING:
    from e2e.stack import Stack
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from benchmarks.postgres_server import Server
    from trunkline.bus.testing import Context

#: Tests that compute more than they wait, in two lines, and in two more those that import
#: langwatch-scenario, which takes 4 s of a core: one line for calls, and one for units, where those
#: that import scipy come behind. A worker of pytest-xdist takes a line, so no more than two tests
#: compute at once, tests that wait go on beside them, and one worker imports scenario and scipy.
#: The last line waits more than it computes: its tests need PostgreSQL, and one worker starts the
#: only server.
COMPUTE: Final = (
    (
        "::test_the_demo_runs",
        "::test_the_first_minutes_with",
        "::test_the_offline_example",
        "test_each_belief.py",
        "test_words.py",
    ),
    ("::test_every_example_runs", "::test_ctrl_c_in_a_test"),
    (
        "dropin/test_scenario_run.py",
        "dropin/test_greeting_run.py",
        "dropin/test_harness.py",
        "dropin/test_own_stack.py",
        "dropin/test_rest.py",
        "dropin/test_sharing.py",
        "survival/test_private_stack.py",
    ),
    (
        "::test_the_scenario_adapter_knows_it_too",
        "adapter/test_dropin_calls.py",
        "adapter/test_dropin_harness.py",
        "adapter/test_dropin_spans.py",
        "adapter/test_dropin_surface.py",
        "adapter/test_gate_options.py",
        "adapter/test_greeting_calls.py",
        "adapter/test_pcm16.py",
        "adapter/test_scenario_adapter.py",
        "adapter/test_tunnel_readiness.py",
        "trunkline/test_secrets.py",
        "adapter/test_by_hand.py",
        "adapter/test_greeting.py",
        "adapter/test_speech_gate.py",
    ),
    (
        "controller/test_postgres.py",
        "controller/test_postgres_far.py",
        "controller/test_postgres_outages.py",
        "controller/test_postgres_stacks.py",
        "controller/test_journal_contract.py",
        "benchmarks/test_ten_thousand.py",
    ),
)
#: Tests that measure, in as many lines as `make test-measures` has workers, each of about a minute.
#: Every worker takes one line, so the whole part takes as long as the longest line. A test that is
#: in no line waits until one has ended. A start of a stack in the middle is a burden for those that
#: measure beside it. So the tests of tests/dropin, which have stacks of their own, come first in
#: their lines; those on a stack with one gateway are in one line; and the stalls come late, when
#: the other lines have started all that they need.
MEASURE: Final = (
    ("::test_a_run_with_gates", "::test_a_codec_worker_is_evicted"),
    (
        "::test_a_gateway_is_drained",
        "survival/test_gateway.py",
        "survival/test_scaling.py",
        "::test_a_codec_worker_alone",
        "e2e/test_interrupt.py",
    ),
    (
        "::test_a_slower_run_fails",
        "e2e/test_cassettes.py",
        "survival/test_keys.py",
        "survival/test_stalls.py",
    ),
    (
        "::test_a_failed_test_keeps_its_cassette",
        "::test_every_panel_and_every_alert",
        "survival/test_codec_worker.py",
        "survival/test_controller.py",
    ),
)
#: Files in these folders are taken apart: any worker may take any of their tests.
EACH_BY_ITSELF: Final = ("tests/e2e/", "tests/survival/", "tests/trunkline/")
#: But not these, whose tests share a stack that the file starts.
TOGETHER: Final = ("test_digits.py", "test_up.py", "e2e/test_console.py")
#: The files of units that compute longest.
LONGEST: Final = (
    "controller/test_every_step.py",
    "simulation/test_simulation.py",
)
#: A file whose tests are all end-to-end tests has this line, or stands in tests/e2e.
ALL_E2E: Final = re.compile(r"^pytestmark = .*\bmark\.e2e\b", re.MULTILINE)

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
# For later.py. Behind everything else: no room is to be found under another name.
sys.path.append(str(Path(__file__).parent))

#: For locks of ports and the like, some of which a test leaves whose stack is killed.
_runtime = tempfile.TemporaryDirectory(prefix="tl-", dir="/tmp")
os.environ["XDG_RUNTIME_DIR"] = _runtime.name

_home = surroundings.home()
_home.__enter__()


def pytest_unconfigure() -> None:
    _home.__exit__(None, None, None)
    _runtime.cleanup()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    with imports.that_stay():
        return (yield)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files that have no test for this run, because reading a file costs time.

    A test is an end-to-end test because its file says ``e2e``, or the ``conftest.py`` beside it.
    """
    if not collection_path.match("test_*.py"):
        return None
    text = collection_path.read_text()
    if config.option.markexpr.startswith("not e2e"):
        ignored = collection_path.parent.name == "e2e" or ALL_E2E.search(text) is not None
    else:
        beside = collection_path.with_name("conftest.py")
        said = text + (beside.read_text() if beside.exists() else "")
        ignored = config.option.markexpr.startswith("e2e") and "e2e" not in said
    return ignored or None


def piece_of(nodeid: str) -> str:
    """The piece of work that a test belongs to. A worker takes a piece as a whole."""
    for kind, lines in (("computes", COMPUTE), ("measures", MEASURE)):
        for n, line in enumerate(lines):
            if any(name in nodeid for name in line):
                return f"{kind} {n}"
    file = nodeid.partition("::")[0]
    apart = file.startswith(EACH_BY_ITSELF) and not file.endswith(TOGETHER)
    return nodeid if apart else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The pieces that take longest come first: the lines, and then files that are one long piece.
    Else a worker would begin with one of them when the others have nothing left to do. A test that
    waits for the others' ends comes last."""

    def place(item: pytest.Item) -> tuple[bool, bool, bool]:
        piece = piece_of(item.nodeid)
        last = item.get_closest_marker("alone") is not None
        return last, not piece.startswith("computes"), not piece.endswith((*TOGETHER, *LONGEST))

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that is ``alone`` begins when no other that measures is under way, and none begins
    until it has ended: they all lock this file."""
    with Path(__file__).open() as file:
        if item.get_closest_marker("measures"):
            alone = item.get_closest_marker("alone")
            fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """With ``--dist loadscope``, scopes are the pieces of work."""
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Pieces(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return piece_of(nodeid)

    config.option.loadscopereorder = False
    return Pieces(config, log)


# No example has a deadline: how long one takes says how busy the machine is.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("unwritable", deadline=None, database=None)
if os.environ.get("CI"):
    settings.load_profile("ci")
elif os.access(Path(__file__).parents[1], os.W_OK):
    settings.load_profile("here")
else:
    settings.load_profile("unwritable")  # hypothesis warns where it cannot keep its examples


@pytest.fixture(scope="session")
def _shared_stack() -> Iterator[Stack]:
    """Two gateways and two codec workers, for all tests of e2e and survival in this process."""
    from e2e.stack import standing

    yield from standing(2)


@pytest.fixture(scope="session")
def _shared_single() -> Iterator[Stack]:
    """One of each, for the same tests."""
    from e2e.stack import standing

    yield from standing(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server, for all tests of this process that need one."""
    from benchmarks.postgres_server import running

    with running() as server:
        yield server


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A directory for sockets. The paths of pytest's own directories are too long for them."""
    with tempfile.TemporaryDirectory(prefix="tl-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def context() -> Iterator[Context]:
    """A ZeroMQ context, whose sockets are closed after the test."""
    import zmq

    from trunkline.bus.curve import stop_authenticator

    made: Context = zmq.Context()
    yield made
    stop_authenticator(made)
    made.destroy(linger=0)


@pytest.fixture
def tracer_provider(monkeypatch: pytest.MonkeyPatch) -> TracerProvider:
    """Where all tracers come from during this test, ours and scenario's."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider()
    monkeypatch.setattr(trace, "get_tracer", lambda name, *a, **k: provider.get_tracer(name))
    return provider


@pytest.fixture
def spans(tracer_provider: TracerProvider) -> InMemorySpanExporter:
    """All spans that end during this test."""
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter
