"""The sounds of far ends: their length, their level, and texts that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trunkline.carrier_sim import sounds, wav
from trunkline.carrier_sim.mulaw import decode, frames, is_quiet


@pytest.mark.parametrize("kind", ["music", "ringing", "busy", "beep", "silence"])
def test_a_made_sound_is_as_long_as_it_says(kind: str) -> None:
    assert len(sounds.read(f"{kind}:1.5")) == 12_000


def test_a_row_of_sounds_is_one_after_the_other() -> None:
    row = sounds.read("beep:0.1 + silence:0.1+speech:austen-0880")
    assert row == sounds.read("beep:0.1") + b"\xff" * 800 + wav.speech("austen-0880")


def test_ringing_and_busy_have_their_cadence() -> None:
    def on(text: str) -> list[bool]:
        return [not is_quiet(frame) for frame in frames(sounds.read(text))]

    assert on("ringing:7") == [True] * 100 + [False] * 200 + [True] * 50
    assert on("busy:2") == ([True] * 25 + [False] * 25) * 2


@pytest.mark.parametrize("text", ["music:4", "ringing:2", "busy:1", "beep:1"])
def test_no_sound_is_clipped_or_too_quiet_to_hear(text: str) -> None:
    samples = decode(sounds.read(text)).astype(float)
    level = 20 * np.log10(np.sqrt(np.mean(samples**2)) / 32768)
    assert np.abs(samples).max() < 20_000
    assert -30 < level < -12


def test_the_other_voice_is_higher_and_not_the_same() -> None:
    one, other = wav.speech("austen-0880"), sounds.read("other-voice:austen-0880")
    assert len(other) == pytest.approx(len(one) / sounds.OTHER_VOICE, abs=2)

    def most_below(ulaw: bytes) -> float:
        """Three quarters of the energy lie below this share of the band."""
        power = np.abs(np.fft.rfft(decode(ulaw).astype(float)))[1:] ** 2
        return float(np.searchsorted(np.cumsum(power), 0.75 * power.sum()) / len(power))

    assert most_below(other) > 1.1 * most_below(one)


def test_a_relative_path_counts_from_the_directory(tmp_path: Path) -> None:
    (tmp_path / "hello.wav").write_bytes(wav.write_pcm(b"\x90" * 160))
    assert sounds.read("wav:hello.wav", tmp_path) == b"\x90" * 160


@pytest.mark.parametrize(
    "text",
    ["", "hello", "music", "music:0", "music:601", "silence:400+silence:400", "speech:", "a+b"],
)
def test_what_is_no_sound_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        sounds.read(text)
