"""For all tests: fixtures that the tests of several rooms need; a home directory where the user has
none, because langwatch-scenario does not start without; and where CI is set, hypothesis draws the
same examples each time.

A new counterexample should be found by whoever works on the code, not by a build of something else;
`pytest --hypothesis-seed=random` looks for new ones there too.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from trunkline.demo import surroundings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from trunkline.bus.testing import Context

_home = surroundings.home()
_home.__enter__()


def pytest_unconfigure() -> None:
    _home.__exit__(None, None, None)


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
