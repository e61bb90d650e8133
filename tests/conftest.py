"""For all tests: a home, examples of hypothesis, who runs beside whom, fixtures of several rooms.

langwatch-scenario does not start without a home directory, so a user who has none gets one. When it
is imported it would also fetch a price list from the network, and is told not to.

Where CI is set, hypothesis draws the same examples each time: a new counterexample should be found
by whoever works on the code, not by a build of something else. `pytest --hypothesis-seed=random`
looks for new ones there too.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import settings

from trunkline.demo import surroundings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from trunkline.bus.testing import Context

#: Folders in which each test stands by itself, so that any worker of pytest-xdist may take it. In
#: the others a worker takes a whole file.
EACH_BY_ITSELF: Final = ("e2e", "survival", "trunkline")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

_home = surroundings.home()
_home.__enter__()


def pytest_unconfigure() -> None:
    _home.__exit__(None, None, None)


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests one worker takes together, and that what computes begins first: these lines are
    the longest, and what waits goes on beside them."""
    for item in items:
        path = item.path.relative_to(Path(__file__).parent)
        if (mark := item.get_closest_marker("computes")) is not None:
            item.add_marker(pytest.mark.xdist_group(f"computes {mark.args[0]}"))
        elif path.parts[0] not in EACH_BY_ITSELF:
            item.add_marker(pytest.mark.xdist_group(path.as_posix()))
    items.sort(key=lambda item: item.get_closest_marker("computes") is None)


settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("unwritable", database=None)
if os.environ.get("CI"):
    settings.load_profile("ci")
elif not os.access(Path(__file__).parents[1], os.W_OK):
    settings.load_profile("unwritable")  # hypothesis warns where it cannot keep its examples


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
