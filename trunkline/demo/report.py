"""The demo's output and its files, and the bounds beyond which a call is at fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from trunkline.bus import wav
from trunkline.bus.sound import WIRE_RATE
from trunkline.ear.figures import Report
from trunkline.ear.listen import listen

from ..reports import files, page
from ..reports.recordings import Heard
from ..reports.text import lines
from .measure import CallRecord

#: The share of wrong words up to which a turn counts as understood.
TOO_MANY_WRONG: Final = 0.6
#: The least correlation of what was sent with what arrived.
LEAST_LIKENESS: Final = 0.9
_LONGEST_URL: Final = 60


def show_words(console: Console, record: CallRecord) -> None:
    """Print each turn's words, as the other side heard them."""
    for turn in record.turns:
        other = {"test": "the agent heard the test say", "agent": "the test heard the agent say"}
        console.print(
            f"  {turn.start:5.1f} s  {other[turn.speaker]}:\n           [italic]{turn.words}[/]",
            soft_wrap=True,
        )


def faults(record: CallRecord) -> list[str]:
    """The faults of a call: what failed, and what is out of bounds."""
    found = [] if record.success else ["scenario.run did not succeed"]
    if record.frames_lost:
        found.append(f"{record.frames_lost} frames were lost")
    for turn in record.turns:
        if turn.errors > TOO_MANY_WRONG * turn.total_words:
            found.append(f"{turn.errors} of {turn.total_words} words of {turn.recording} are wrong")
        if turn.likeness < LEAST_LIKENESS:
            found.append(
                f"{turn.recording} did not arrive as it was sent (correlation {turn.likeness:.2f})"
            )
    return found


def show_voice_urls(
    console: Console, before: dict[str, str], during: dict[str, str], after: dict[str, str]
) -> None:
    """Print each number's voice_url before, during and after the demo."""
    console.print("\n[bold]voice_url of the numbers[/]")
    for number, url in before.items():
        held = during.get(number)
        shown = "untouched: it only called" if held is None else _shortened(held)
        same = "[green]as before[/]" if after[number] == url else "[bold red]CHANGED[/]"
        for label, text in (("before", url), ("during", shown), ("after", after[number])):
            console.print(
                f"  {number if label == 'before' else '':<13} {label:<7} {text}"
                + (f"   {same}" if label == "after" else ""),
                soft_wrap=True,
            )


def _shortened(url: str) -> str:
    return url if len(url) <= _LONGEST_URL else f"{url[:_LONGEST_URL]}…"


def show_measures(console: Console, records: dict[str, CallRecord]) -> None:
    """Print the measurements of each call, and under each what it means."""
    calls = list(records.values())
    head = "".join(f"{name:>24}" for name in records)
    console.print(f"\n[bold]{'measured':<16}{head}[/]")
    for name, value, meaning in _MEASURES:
        values = [value(call) for call in calls]
        if not any(each.strip("-") for each in values):
            continue  # it was not measured in this run
        console.print(f"{name:<16}" + "".join(f"{each:>24}" for each in values))
        console.print(f"[dim]    {meaning}[/]", soft_wrap=True)


def _gaps(call: CallRecord) -> str:
    return " / ".join(f"{call.gap_ms(share):.1f}" for share in (0.5, 0.99, 1.0)) + " ms"


def _wrong(call: CallRecord) -> str:
    through = sum(turn.errors for turn in call.turns)
    ideal = sum(turn.errors_through_ideal for turn in call.turns)
    words = sum(turn.total_words for turn in call.turns)
    return f"{through} / {ideal} of {words}" if words else "-"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


#: The measurements: name, value of a call, what it means.
_MEASURES: Final[tuple[tuple[str, Callable[[CallRecord], str], str], ...]] = (
    (
        "set-up",
        lambda call: f"{call.setup_seconds * 1000:.0f} ms",
        "from dialling until sound flows both ways (the callee rings for 200 ms)",
    ),
    (
        "pacing drift",
        lambda call: f"{call.drift_ms:+.1f} ms",
        "how much too late the last frame of an utterance is; the worst utterance",
    ),
    (
        "jitter",
        _gaps,
        "time between two frames at the carrier: median / 99 % / longest; 20 ms is even",
    ),
    (
        "frames lost",
        lambda call: str(call.frames_lost),
        "frames of 20 ms, as trunkline counts them",
    ),
    (
        "underruns",
        lambda call: str(call.metrics["underruns"]),
        "holes that the far end heard inside utterances, as the carrier counts them",
    ),
    (
        "test to far end",
        lambda call: _ms(call.latency_ms("test")),
        "from send_audio until the far end hears it, on the sound itself; median",
    ),
    (
        "far end to test",
        lambda call: _ms(call.latency_ms("agent")),
        "from the carrier sending a frame until recv_audio has its sound; median",
    ),
    (
        "likeness",
        lambda call: f"{min((turn.likeness for turn in call.turns), default=0.0):.3f}",
        "correlation of what was sent with what arrived; the worst turn",
    ),
    (
        "words wrong",
        _wrong,
        "through trunkline / through an ideal G.711 line, by a small offline recogniser",
    ),
)


def show_reports(console: Console, records: dict[str, CallRecord]) -> None:
    """Print how both sides talked with each other, as ``trunkline report`` does of a recording."""
    console.print("\n[bold]heard[/] by the ear; ours is the test")
    for name, record in records.items():
        for line in lines(name, _report(record)):
            console.print(f"  {line}", markup=False, soft_wrap=True)


def leave_files(
    console: Console,
    calls: dict[str, tuple[str, CallRecord]],
    out: Path,
    *,
    pictures: bool,
) -> None:
    """Write the files. Each call (name -> title and record) has a stereo WAV file, with the agent
    left as in a recording, and with ``pictures``, for which matplotlib is needed, a picture of its
    timeline. All calls together have one page with their sound."""
    sections = []
    for name, (title, record) in calls.items():
        sound = out / f"{name}.wav"
        wav.write(sound, record.said, record.played, rate=WIRE_RATE)
        console.print(f"\n{name}: {_relative(sound)} (left the agent, right the test)")
        if pictures:
            from .picture import draw

            picture = out / f"{name}.png"
            draw(record, title, picture)
            console.print(f"{'':<{len(name)}}  {_relative(picture)}")
        heard = Heard(title, record.played, record.said, _report(record))
        sections.append(page.section(heard))
    whole = out / "report.html"
    files.write(whole, page.page("trunkline demo", sections))
    console.print(f"\nboth, to look at and to hear: {_relative(whole)}")


def figures(record: CallRecord) -> dict[str, Any]:
    """A call's figures, as they are in the JSON."""
    return {
        "sid": record.sid,
        "set_up_ms": round(record.setup_seconds * 1000, 1),
        "drift_ms": round(record.drift_ms, 2),
        "gap_p99_ms": round(record.gap_ms(0.99), 2),
        "frames_lost": record.frames_lost,
        "underruns": record.metrics["underruns"],
        "report": _report(record),
    }


def _report(record: CallRecord) -> Report:
    return listen(record.played, record.said, frames_lost=record.frames_lost)


def _relative(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
