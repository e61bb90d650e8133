"""The stand-in's lines, measured on themselves: noise, loss, delay, echo, level.

    python -m benchmarks.lines

A minute of the shipped speech goes through each line. The same line without its noise gives the
words alone, so the difference of both is the noise.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parent.parent))

from trunkline.carrier_sim import wav
from trunkline.carrier_sim.line.line import BadLine
from trunkline.carrier_sim.line.noise import Samples, in_band, rms, speech_rms
from trunkline.carrier_sim.line.profiles import PROFILES, Profile
from trunkline.carrier_sim.mulaw import RATE, SILENCE, decode, frames

SECONDS: Final = 60
#: No delay is longer (seconds).
LONGEST: Final = 1.0


@dataclass(frozen=True)
class Measured:
    """The measurements. Levels in dB, times in seconds; None where there is nothing to measure."""

    delay: float
    loss: float
    down_loss: float
    snr: float | None
    gain: float
    echo: float | None
    echo_delay: float | None
    clipped: float


@functools.cache
def words() -> tuple[bytes, Samples, float]:
    """A minute of speech: μ-law, its samples, and their level."""
    once = b"".join(wav.speech(name) for name in sorted(wav.transcripts()))
    said = (once * (SECONDS * RATE // len(once) + 1))[: SECONDS * RATE]
    clean = decode(said).astype(np.float64)
    return said, clean, speech_rms(clean)


def through(line: BadLine, said: bytes) -> Samples:
    """These words as the carrier hears them."""
    out = []
    for frame in frames(said):
        out.append(line.up(frame))
        line.down(SILENCE)
    return decode(b"".join(out)).astype(np.float64)


def lag(one: Samples, other: Samples) -> int:
    """How many samples ``other`` comes behind ``one``."""
    size = 1 << (max(len(one), len(other)) + round(LONGEST * RATE)).bit_length()
    product = np.fft.rfft(other, size) * np.conj(np.fft.rfft(one, size))
    return int(np.fft.irfft(product, size)[: round(LONGEST * RATE)].argmax())


def measure(profile: Profile, seed: str = "1") -> Measured:
    """All that a line does."""
    said, clean, level = words()
    line = BadLine(profile, seed, level)
    heard = through(line, said)
    alone = heard
    if profile.noise is not None:
        alone = through(BadLine(replace(profile, noise=None), seed, level), said)
    noise = heard - alone
    snr = None
    if profile.noise is not None:
        snr = _db(speech_rms(alone) / rms(in_band(noise[len(noise) // 6 :])))
    echo = echo_delay = None
    if profile.echo is not None:
        echo, echo_delay = _echo(profile, clean, said)
    late = lag(clean, alone)
    return Measured(
        delay=late / RATE,
        loss=_share(line.up_loss.lost, line.up_loss.frames),
        down_loss=_share(line.down_loss.lost, line.down_loss.frames),
        snr=snr,
        gain=_db(rms(alone[late:]) / rms(clean[: len(clean) - late])),
        echo=echo,
        echo_delay=echo_delay,
        clipped=float(np.mean(np.abs(alone) > 32_000)),
    )


def _echo(profile: Profile, clean: Samples, said: bytes) -> tuple[float, float]:
    """The level and the delay of the echo of the sound that the far end hears."""
    line = BadLine(replace(profile, noise=None), "1")
    out = []
    for frame in frames(said):
        out.append(line.up(SILENCE))
        line.down(frame)
    back = decode(b"".join(out)).astype(np.float64)
    late = lag(clean, back)
    level = _db(rms(back[late:]) / rms(clean[: len(clean) - late]))
    return level, late / RATE - 2 * profile.delay


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _db(ratio: float) -> float:
    return float(20 * np.log10(max(ratio, 1e-9)))


def rows() -> list[str]:
    """A table of all lines, with claims and measurements."""
    found = [
        "| line | is | one way | frames lost | noise | else |",
        "|---|---|---|---|---|---|",
    ]
    for name, profile in PROFILES.items():
        m = measure(profile)
        delay = f"{profile.delay * 1000:g} ms ({m.delay * 1000:.1f})"
        loss = f"{profile.loss:.1%} ({m.loss:.2%})" if profile.loss else ""
        if profile.burst > 1:
            loss += f", up to {profile.burst} in a row"
        noise = "" if m.snr is None else f"{profile.noise}, {profile.snr:g} dB below ({m.snr:.1f})"
        other = []
        if profile.gain:
            other.append(f"{profile.gain:+g} dB ({m.gain:+.1f})")
        if m.clipped > 0.001:
            other.append(f"{m.clipped:.0%} of the samples clipped")
        if m.echo is not None and m.echo_delay is not None:
            other.append(
                f"echo after {profile.echo_delay * 1000:g} ms ({m.echo_delay * 1000:.1f}), "
                f"{profile.echo:g} dB ({m.echo:.1f})"
            )
        if profile.codecs:
            other.append(", ".join(profile.codecs))
        cells = [f"`{name}`", profile.shows, delay, loss, noise, "; ".join(other)]
        found.append("| " + " | ".join(cells) + " |")
    return found


if __name__ == "__main__":
    print("\n".join(rows()))
