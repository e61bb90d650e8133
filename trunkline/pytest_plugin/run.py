"""One process's part in a run of pytest: the stacks of its tests, and at the end what it says of
their calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from .stack import PhoneStack, find

if TYPE_CHECKING:
    from ..gates.run import Gates
    from ..stack.shared_stack import RunDirectory


class Run:
    """This process's part in the run."""

    def __init__(self, config: pytest.Config) -> None:
        self.problems: list[str] = []
        self.pass_rates: list[str] = []
        #: what the baseline says, though it is no reason to fail
        self.notes: list[str] = []
        #: lines that say how to play the calls of failed tests again
        self.replays: list[str] = []
        #: whether the stack that was found or started keeps cassettes in a directory that we know
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
            from ..stack.shared_stack import RunDirectory

            self._own = RunDirectory()
        return self._own.path

    @property
    def gates(self) -> Gates:
        """The judge of this run's calls, made when first needed."""
        if self._gates is None:
            from ..gates.run import Gates

            option = self._config.getoption
            self._gates = Gates(
                option("--phone-baseline"), option("--phone-report"), lambda: self.directory
            )
        return self._gates

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(report, "phone_test"):
            self.gates.note(report)

    def conclude(self) -> None:
        """At the end of the run, in its first process: collect what is to be said of its calls."""
        asked = self._gates is not None or self._config.getoption("--phone-report") is not None
        if self._given is None and asked:
            self.problems += self.gates.conclude()
            self.pass_rates += self.gates.pass_rates()
            self.notes += self.gates.notes

    def stack(self, *, simulated: bool) -> PhoneStack:
        """The stack of this process's tests. It is found or started when first needed."""
        if simulated not in self._stacks:
            self._stacks[simulated] = find(self, self._config, simulated=simulated)
        return self._stacks[simulated]

    def close(self) -> None:
        """End the stacks that this run has started. A worker of pytest-xdist leaves that to the
        controller."""
        own, self._own = self._own, None
        if own is None:
            self._keep(None)
            if self._stacks:
                from ..stack.shared_stack import leave

                leave()
        else:
            self.problems += own.close(lambda: self._keep(own.path))

    def _keep(self, directory: Path | None) -> None:
        """Keep the cassettes of failed tests. Stacks in the run's ``directory`` have ended."""
        gates, self._gates = self._gates, None
        if gates is not None and self._given is None:
            try:
                self.replays += gates.keep_cassettes(directory)
            except OSError as error:
                self.problems.append(f"--phone-report: {error.filename}: {error.strerror}")

    def cassettes(self, directory: Path) -> Path | None:
        """The directory in which stacks that the run starts keep cassettes; None: they keep
        none."""
        from ..gates import kept

        return kept.source(directory, asked=self._config.getoption("--phone-report") is not None)


#: The key of the run in pytest's configuration.
RUN: Final = pytest.StashKey[Run]()
