"""Each line between a far end and the carrier is measured on itself, and does what it claims."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from benchmarks.lines import measure
from trunkline.adapter.turns.speech_gate import SpeechGate
from trunkline.carrier_sim.bots import Play
from trunkline.carrier_sim.far_ends import start_bot
from trunkline.carrier_sim.line.profiles import PROFILES
from trunkline.carrier_sim.mulaw import SILENCE, decode

PAGE: Final = (Path(__file__).parents[2] / "docs" / "far-end.md").read_text()


@pytest.mark.parametrize("seed", ["1", "2"])
@pytest.mark.parametrize("name", PROFILES)
def test_a_line_does_what_it_claims(name: str, seed: str) -> None:
    claims, found = PROFILES[name], measure(PROFILES[name], seed)
    assert abs(found.delay - claims.delay) < 0.001
    assert abs(found.loss - claims.loss) < 0.001
    assert abs(found.down_loss - claims.loss) < 0.001
    if claims.noise is not None:
        assert found.snr == pytest.approx(claims.snr, abs=0.5)
    else:
        assert found.snr is None
    if name == "clipping":
        assert found.clipped > 0.05 and found.gain < claims.gain
    elif claims.codecs:
        assert found.gain == pytest.approx(0.0, abs=1.0)
    else:
        assert found.clipped == 0
        # An echo comes back from the other side alone, and a lost frame is quieter.
        assert found.gain == pytest.approx(claims.gain, abs=0.5)
    if claims.echo is not None:
        assert found.echo == pytest.approx(claims.echo, abs=0.5)
        assert found.echo_delay == pytest.approx(claims.echo_delay, abs=0.001)


def test_the_page_has_every_line() -> None:
    shown = re.findall(r"^\| `([a-z-]+)` \| [^|]+ \| [0-9.]+ ms \(", PAGE, re.MULTILINE)
    assert shown == list(PROFILES)


#: Lines whose noise the speech gate takes for speech, as the page says.
LIKE_SPEECH: Final = {"train", "office"}


@pytest.mark.parametrize("name", PROFILES)
def test_the_speech_gate_finds_the_end_of_a_turn_where_the_page_says_so(name: str) -> None:
    """Words from 3 s to 6 s, and then the line's own noise."""
    bot = start_bot(Play(speech="austen-0880", after=3.0), name, "1")
    gate, is_open = SpeechGate(), []
    for _ in range(round(12 / 0.02)):
        frame = decode(bot.emit()).astype(float)
        bot.receive(SILENCE)
        gate.push(np.interp(np.arange(480) / 3, np.arange(160), frame).astype("<i2").tobytes())
        is_open.append(gate.open)
    at = np.flatnonzero(is_open) * 0.02
    assert np.any((at > 3.5) & (at < 6.0)), "the words are heard"
    assert (at.max() > 7.5) == (name in LIKE_SPEECH)
