"""What the demo prints and leaves behind, and what it takes for a fault."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from trunkline import wav
from trunkline.demo_measure import WIRE_RATE, CallRecord

#: A turn with more wrong words than this share was not understood.
TOO_MANY_WRONG: Final = 0.6
#: Least correlation of what was sent and what arrived.
LEAST_LIKENESS: Final = 0.9
_LONGEST_URL: Final = 60


def show_words(console: Console, record: CallRecord) -> None:
    """Each turn's words, as the other side heard them."""
    for turn in record.turns:
        other = {"test": "the agent heard the test say", "agent": "the test heard the agent say"}
        console.print(
            f"  {turn.start:5.1f} s  {other[turn.speaker]}: [italic]{turn.words}[/]",
            soft_wrap=True,
        )


def faults(record: CallRecord) -> list[str]:
    """What of a call is not as it must be."""
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
    """Each number's voice_url before, during and after."""
    table = Table(
        title="\nvoice_url of the numbers",
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 2),
    )
    for column in ("number", "before", "during", "after", ""):
        table.add_column(column, overflow="fold")
    for number, url in before.items():
        held = during.get(number)
        shown = "(calls out: untouched)" if held is None else _shortened(held)
        same = "[green]as before[/]" if after[number] == url else "[bold red]CHANGED[/]"
        table.add_row(number, url, shown, after[number], same)
    console.print(table)


def _shortened(url: str) -> str:
    return url if len(url) <= _LONGEST_URL else f"{url[:_LONGEST_URL]}…"


def show_measures(console: Console, records: dict[str, CallRecord]) -> None:
    """The numbers of each call, with what they mean."""
    table = Table(
        title="\nmeasured",
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 2),
    )
    table.add_column("")
    for name in records:
        table.add_column(name, justify="right")
    table.add_column("what it is", style="dim")
    calls = list(records.values())

    def row(name: str, values: list[str], meaning: str) -> None:
        table.add_row(name, *values, meaning)

    row(
        "set-up",
        [f"{c.setup_seconds * 1000:.0f} ms" for c in calls],
        "from dialling until sound flows both ways (the callee rings for 200 ms)",
    )
    row(
        "pacing drift",
        [f"{c.drift_ms:+.1f} ms" for c in calls],
        "how late an utterance's last frame is at the carrier; the worst utterance",
    )
    row(
        "jitter",
        [
            f"{c.metrics['gap_p50_ms']:.1f} / {c.metrics['gap_p99_ms']:.1f} / "
            f"{c.metrics['gap_max_ms']:.1f} ms"
            for c in calls
        ],
        "between two frames at the carrier: median / 99 % / longest; 20 is even",
    )
    row(
        "frames lost",
        [str(c.frames_lost) for c in calls],
        "frames of 20 ms that were sent and never heard",
    )
    row(
        "underruns",
        [str(c.metrics["underruns"]) for c in calls],
        "holes that the far end heard inside an utterance",
    )
    row(
        "test to far end",
        [_ms(c.latency_ms("test")) for c in calls],
        "from send_audio until the far end hears it, on the sound itself",
    )
    row(
        "far end to test",
        [_ms(c.latency_ms("agent")) for c in calls],
        "from the far end's mouth until recv_audio has it, median of all pieces",
    )
    row(
        "likeness",
        [f"{min(t.likeness for t in c.turns):.3f}" if c.turns else "-" for c in calls],
        "correlation of what was sent and what arrived; the worst turn",
    )
    row(
        "words wrong",
        [
            f"{sum(t.errors for t in c.turns)} of {sum(t.total_words for t in c.turns)}"
            for c in calls
        ],
        "by pocketsphinx, a small offline recogniser, after the phone line",
    )
    row(
        "  without a line",
        [str(sum(t.errors_in_recording for t in c.turns)) for c in calls],
        "the same recogniser on the recordings themselves, at 16 kHz",
    )
    console.print(table)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def leave_files(console: Console, record: CallRecord, name: str, title: str, out: Path) -> None:
    """A stereo WAV (left: the test, right: the agent) and the picture of the timeline."""
    from trunkline.demo_picture import draw

    sound, picture = out / f"{name}.wav", out / f"{name}.png"
    wav.write(sound, record.played, record.said, rate=WIRE_RATE)
    draw(record, title, picture)
    shown = [_relative(path) for path in (sound, picture)]
    console.print(f"\n{name}: {shown[0]} (left the test, right the agent), {shown[1]}")


def _relative(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
