"""The calls of each test of a run: judged when the test has passed, and reported at the run's end.

With pytest-xdist each worker follows the calls of its own tests. What the end of the run needs of
them travels in pytest's report of the test (attributes ``phone_test``, ``phone_repetitions``,
``phone_samples`` and ``phone_failed``). The parts of the page travel as files in the run's own
directory.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from . import baseline, kept, limits
from .kept import Failed

if TYPE_CHECKING:
    from trunkline.adapter.call import Call
    from trunkline.adapter.tap import Tap

    from ..reports.recordings import Heard

#: The fixture by which pytest repeats a test. Its parameter counts from 0.
REPEAT: Final = "_phone_repeat"
#: The id of one repetition. It is left out of the test's name.
REPEAT_ID: Final = "try{n}of{count}"
_PARTS: Final = "parts-of-the-page"


def name_of(nodeid: str, ids: str, repetition: str) -> str:
    """The name of a repeated test, the same for all of its repetitions. ``ids``: what ``nodeid``
    has in brackets. ``repetition``: the id in it that is left out."""
    left = f"-{ids}-".replace(f"-{repetition}-", "-", 1)[1:-1]
    before, _, after = nodeid.rpartition(f"[{ids}]")
    return f"{before}[{left}]{after}" if left else before + after


def read_baseline(file: Path) -> dict[str, dict[str, list[float]]]:
    """The figures of each test in a baseline's file; without a file, none. UsageError where it
    cannot be read, or no run has written it."""
    try:
        if not file.exists():
            return {}
        return msgspec.json.decode(file.read_bytes(), type=dict[str, dict[str, list[float]]])
    except OSError as error:
        raise pytest.UsageError(f"--phone-baseline {file}: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise pytest.UsageError(
            f"--phone-baseline {file}: this is not a baseline that a run has written; name another "
            "file, or delete this one for a new baseline"
        ) from error


@contextmanager
def followed() -> Iterator[list[Call | Tap]]:
    """A list to which every call is added that comes up in this process, or is listened to, during
    the block."""
    from trunkline.adapter import line

    calls: list[Call | Tap] = []
    line.followers.append(calls.append)
    try:
        yield calls
    finally:
        line.followers.remove(calls.append)


@dataclass
class _Tries:
    """All repetitions of a test. ``asked``: how many there are to be."""

    asked: int
    passed: int = 0
    of: int = 0
    samples: dict[str, list[float]] = field(default_factory=dict)

    def no_measure(self) -> str | None:
        """Why no later run is to be compared with a test that had calls. None: it may be, in the
        figures that have enough samples."""
        if self.passed < self.asked:
            return f"it passed {self.passed} of {self.asked} times"
        most = max(map(len, self.samples.values()))
        if most == 0:
            return "its calls had no answer and no yield"
        if most < baseline.LEAST_SAMPLES:
            return (
                f"its figures have {most} samples at most, and a comparison needs "
                f"{baseline.LEAST_SAMPLES} (--phone-repeat)"
            )
        return None


class Gates:
    """Judges the calls of a run, and collects what is told of them. ``baseline_file`` and
    ``pages``: the file and the directory of the options, None where these are not given.
    ``directory`` returns the run's directory, where the parts of the page are until its end."""

    def __init__(
        self, baseline_file: Path | None, pages: Path | None, directory: Callable[[], Path]
    ) -> None:
        self._baseline = baseline_file
        self._pages = pages
        self._directory = directory
        self._tests: dict[str, _Tries] = {}
        self._failed: list[Failed] = []
        #: what the end of the run says, though it is no reason to fail
        self.notes: list[str] = []
        #: Set where the stack keeps cassettes that the run can find. Returns the seed of the
        #: stand-in carrier, or None at Twilio.
        self.seed: Callable[[], int | None] | None = None

    # ------------------------------------------------------------------ of one test

    def judge(self, item: pytest.Item, calls: list[Call | Tap], failed: str | None) -> str | None:
        """Note the figures of a test's calls. Returns the limits that they break, or None.
        ``failed``: how the test has failed by itself; its limits are then not judged."""
        calls = _once(calls)
        heard = [_hear(call) for call in calls if call.keeps_sound]
        reports = [call.report for call in heard]
        marker = item.get_closest_marker("phone_limits")
        verdict = None
        if marker is not None and failed is None:
            limits.check_marker(marker)  # a TestCase's was not looked at when it was collected
            found = limits.broken(reports, marker.kwargs)
            verdict = "\n".join(found) or None
        if reports:
            item.user_properties += list(limits.properties(reports))
            samples = limits.samples_of(reports)
            yielded = [seconds for seconds in samples.time_to_yield if seconds is not None]
            item.stash[_samples_key] = {"latency": samples.latency, "time_to_yield": yielded}
        if self._pages is not None:
            again = []
            if (failed or verdict) and self.seed is not None:
                seed = self.seed()
                sids: list[str | None] = [call.sid for call in calls]
                again = [Failed(item.nodeid, sid, seed) for sid in sids or [None]]
                item.stash[_failed_key] = [asdict(each) for each in again]
            try:
                self._write(item.nodeid, heard, failed or verdict or "", again)
            except OSError as error:  # must not hide how the test has failed by itself
                wrong = f"--phone-report: {error.filename}: {error.strerror}"
                verdict = f"{verdict}\n{wrong}" if verdict else wrong
        return verdict

    def _write(self, nodeid: str, heard: list[Heard], verdict: str, failed: list[Failed]) -> None:
        from ..reports import files, page

        assert self._pages is not None
        again = {each.call: each.told(self._pages) for each in failed}
        sections = [
            (
                call.report.latency.max or 0.0,
                page.section(call, verdict, f"{nodeid}: {call.title}", again.get(call.title, "")),
            )
            for call in heard
        ]
        if verdict and not heard:
            sections = [(0.0, page.without_sound(nodeid, verdict, "\n".join(again.values())))]
        parts = self._directory() / _PARTS
        parts.mkdir(exist_ok=True)
        for worst, text in sections:
            name = f"{bool(verdict):d}-{worst:010.3f}-{secrets.token_hex(8)}"
            files.write(parts / name, text)

    @staticmethod
    def tell(item: pytest.Item, report: pytest.TestReport) -> None:
        """Put what the run's end needs into pytest's report of a test."""
        told: Any = report
        told.phone_test, told.phone_repetitions = item.nodeid, 1
        params = getattr(item, "callspec", None)
        if params is not None and REPEAT in params.params:
            count = item.config.getoption("--phone-repeat")
            repetition = REPEAT_ID.format(n=params.params[REPEAT] + 1, count=count)
            told.phone_test = name_of(item.nodeid, params.id, repetition)
            told.phone_repetitions = count
        told.phone_samples = item.stash.get(_samples_key, {})
        told.phone_failed = item.stash.get(_failed_key, [])

    # ------------------------------------------------------------------ of the run

    def note(self, report: pytest.TestReport) -> None:
        """Take up pytest's report of a test's phase: set-up, call or teardown."""
        name = getattr(report, "phone_test", None)
        if name is None or (report.when != "call" and not report.failed):
            return
        tries = self._tests.setdefault(name, _Tries(report.phone_repetitions))
        if report.when == "call":
            self._failed += [Failed(**each) for each in getattr(report, "phone_failed", [])]
            tries.passed += report.passed
            tries.of += not report.skipped
            for figure, samples in getattr(report, "phone_samples", {}).items():
                tries.samples.setdefault(figure, []).extend(samples)
        elif report.when == "setup":
            tries.of += 1

    def keep_cassettes(self, directory: Path | None) -> list[str]:
        """Copy the cassettes of failed tests beside the page. Returns a line for each, with the
        command that plays it again, and what that is good for. ``directory``: the run's, if it has
        one. Stacks that were started in it have ended by now."""
        if self._pages is None or (source := kept.source(directory, asked=True)) is None:
            return []
        if self._failed:
            kept.settle(directory)
        return kept.keep(self._failed, source, self._pages)

    def conclude(self) -> list[str]:
        """At the run's end, write the page, and compare with the baseline or add to it. Returns the
        reasons why the run fails, one line each. What else there is to say is in ``notes``."""
        found = []
        if self._pages is not None:
            try:
                self._assemble(self._pages)
            except OSError as error:
                found.append(f"--phone-report {self._pages}: {error.strerror}")
        if self._baseline is not None:
            try:
                found += self._compare(self._baseline)
            except OSError as error:
                found.append(f"--phone-baseline {self._baseline}: {error.strerror}")
            except pytest.UsageError as error:
                found.append(str(error))
        return found

    def _assemble(self, directory: Path) -> None:
        from ..reports import files, page

        directory.mkdir(parents=True, exist_ok=True)
        # Failed tests come first, and then the slowest answers.
        worst_first = sorted((self._directory() / _PARTS).glob("*"), reverse=True)
        whole = page.page("Phone calls", (part.read_text("utf-8") for part in worst_first))
        files.write(directory / "index.html", whole)

    def _compare(self, file: Path) -> list[str]:
        before = read_baseline(file)
        from ..reports import files

        found: list[str] = []
        fresh = {}
        for name, tries in sorted(self._tests.items()):
            if name in before:
                found += baseline.slower(name, before[name], tries.samples)
                self.notes += baseline.too_few(name, before[name], tries.samples)
            elif not tries.samples:
                continue  # it had no call
            elif (why := tries.no_measure()) is not None:
                self.notes.append(f"{name}: not added to the baseline: {why}")
            else:
                fresh[name] = baseline.enough(tries.samples)
                self.notes += baseline.not_added(name, tries.samples)
        if fresh:
            file.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(before | fresh, indent=1, sort_keys=True)
            files.write(file, text + "\n")
        return found

    def pass_rates(self) -> Iterator[str]:
        """A line for each test that was repeated."""
        for name, tries in self._tests.items():
            if tries.of > 1:
                low, high = limits.wilson(tries.passed, tries.of)
                yield (
                    f"{name}: passed {tries.passed} of {tries.of}, "
                    f"{100 * tries.passed / tries.of:.0f} % "
                    f"(Wilson's 95 % interval: {100 * low:.0f} to {100 * high:.0f} %)"
                )


_failed_key = pytest.StashKey[list[dict[str, Any]]]()
_samples_key = pytest.StashKey[dict[str, list[float]]]()


def _once(calls: list[Call | Tap]) -> list[Call | Tap]:
    """The calls, without taps of those that the test itself has held."""
    if not calls:
        return []
    from trunkline.adapter.call import Call

    own = {call.sid for call in calls if isinstance(call, Call)}
    return [call for call in calls if isinstance(call, Call) or call.sid not in own]


def _hear(call: Call | Tap) -> Heard:
    from ..reports.recordings import Heard

    ours, theirs = call.both_sides()
    return Heard(call.sid, ours, theirs, call.report())
