"""One process's part in a run of pytest: the stacks of its tests, and what it tells of their calls
at the end."""

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
            from ..stack.shared_stack import RunDirectory

            self._own = RunDirectory()
        return self._own.path

    @property
    def gates(self) -> Gates:
        """What is asked of this run's calls."""
        if self._gates is None:
            from ..gates.run import Gates

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
            self._stacks[simulated] = find(self, self._config, simulated=simulated)
        return self._stacks[simulated]

    def close(self) -> None:
        """End what this run started; a worker leaves that to the controller."""
        own, self._own = self._own, None
        if own is None:
            self._keep(None)
            if self._stacks:
                from ..stack.shared_stack import leave

                leave()
        else:
            self.problems += own.close(lambda: self._keep(own.path))

    def _keep(self, directory: Path | None) -> None:
        """The stacks in the run's ``directory`` have ended: keep the cassettes of failed tests."""
        gates, self._gates = self._gates, None
        if gates is not None and self._given is None:
            try:
                self.replays += gates.keep_cassettes(directory)
            except OSError as error:
                self.problems.append(f"--phone-report: {error.filename}: {error.strerror}")

    def cassettes(self, directory: Path) -> Path | None:
        """Where the stacks that the run starts keep cassettes."""
        from ..gates import kept

        return kept.source(directory, asked=self._config.getoption("--phone-report") is not None)


#: Where the run stands in pytest's own configuration.
RUN: Final = pytest.StashKey[Run]()
