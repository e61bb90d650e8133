"""Lines between far end and carrier, part by part. tests/benchmarks/test_lines.py measures them."""

from __future__ import annotations

import numpy as np
import pytest

from trunkline.carrier_sim import far_ends, wav
from trunkline.carrier_sim.bots import Echo, Play, Silence, parse_bot
from trunkline.carrier_sim.far_ends import start_bot
from trunkline.carrier_sim.line.codec import Adpcm, ALaw
from trunkline.carrier_sim.line.line import BLOCK, BadLine, Delay, Loss
from trunkline.carrier_sim.line.noise import in_band, loop, rms, speech_rms
from trunkline.carrier_sim.line.profiles import PROFILES, Profile, profile
from trunkline.carrier_sim.mulaw import SILENCE, decode
from trunkline.carrier_sim.sim import CarrierSim

LOUD = bytes([0x90]) * 160


def test_the_same_seed_is_the_same_line_and_another_is_not() -> None:
    def heard(seed: str) -> bytes:
        line = BadLine(profile("mobile-bad"), seed)
        return b"".join(line.up(LOUD) for _ in range(500))

    assert heard("1") == heard("1") != heard("2")


def test_no_line_does_nothing() -> None:
    line = BadLine(Profile(shows="nothing"))
    assert line.up(LOUD) is LOUD and line.down(SILENCE) is SILENCE


def test_a_delay_is_exact_to_the_sample() -> None:
    delay = Delay(237)
    out = b"".join(delay.through(frame) for frame in (LOUD, SILENCE, SILENCE, SILENCE))
    assert out == b"\xff" * 237 + LOUD + b"\xff" * (640 - 237 - 160)


@pytest.mark.parametrize(("share", "burst"), [(0.002, 1), (0.04, 3), (0.05, 2), (0.5, 4), (0.9, 9)])
def test_each_block_loses_just_as_many_frames_in_bursts(share: float, burst: int) -> None:
    loss = Loss(share, burst, "1")
    for _ in range(3):
        before = loss.lost
        lost = []
        for _ in range(BLOCK):
            count = loss.lost
            loss.through(LOUD)
            lost.append(loss.lost > count)
        assert loss.lost - before == round(share * BLOCK)
        runs = [len(run) for run in "".join("x" if x else " " for x in lost).split()]
        assert max(runs) <= burst


def test_a_lost_frame_is_heard_again_and_fades() -> None:
    loss = Loss(0.5, 5, "1")
    loud = np.abs(decode(LOUD).astype(int)).mean()
    level: dict[int, float] = {}
    in_a_row = 0
    for _ in range(BLOCK):
        before = loss.lost
        out = loss.through(LOUD)
        in_a_row = in_a_row + 1 if loss.lost > before else 0
        level[in_a_row] = float(np.abs(decode(out).astype(int)).mean() / loud)
    assert level[0] == level[1] == 1.0
    assert level[2] == pytest.approx(0.7, abs=0.03) and level[3] == pytest.approx(0.4, abs=0.03)
    assert level[4] == level[5] == 0.0


@pytest.mark.parametrize("kind", ["hiss", "street", "train", "office"])
def test_a_noise_has_level_one_and_no_seam(kind: str) -> None:
    made = loop(kind, 1)
    assert rms(in_band(made)) == pytest.approx(1.0, rel=0.001)
    step = np.abs(np.diff(np.concatenate([made[-2:], made[:2]]))).max()
    assert step <= np.abs(np.diff(made)).max() * 1.5
    assert not np.array_equal(made, loop(kind, 2))


def test_the_level_of_speech_is_that_of_its_words() -> None:
    speech = decode(wav.speech("austen-0880")).astype(np.float64)
    with_pauses = np.concatenate([np.zeros(16_000), speech, np.zeros(16_000)])
    assert speech_rms(with_pauses) == pytest.approx(speech_rms(speech), rel=0.02)
    assert speech_rms(np.zeros(0)) == 0.0


@pytest.mark.parametrize(("codec", "least", "most"), [(ALaw(), 30, 45), (Adpcm(), 15, 35)])
def test_a_codec_adds_its_noise_and_no_more(codec: ALaw | Adpcm, least: int, most: int) -> None:
    speech = decode(wav.speech("austen-0880"))
    parts = [codec.through(speech[at : at + 160]) for at in range(0, len(speech), 160)]
    off = np.concatenate(parts).astype(float) - speech
    snr = 20 * np.log10(rms(speech.astype(float)) / rms(off))
    assert least < snr < most


def test_a_codec_makes_the_same_of_frames_as_of_one_piece() -> None:
    """It knows a frame in which nobody speaks at a look, and goes through a piece with words in it
    sample by sample."""
    random = np.random.default_rng(1)
    pieces = []
    for _ in range(400):
        loud = random.choice([0, 100, 10_000])
        pieces.append(random.normal(0, loud, random.integers(40)))
        pieces.append(np.full(random.integers(160, 400), random.integers(-4, 5)))
    sound = np.concatenate(pieces).astype(np.int16)
    codec = Adpcm()
    parts = [codec.through(sound[at : at + 160]) for at in range(0, len(sound), 160)]
    assert np.array_equal(np.concatenate(parts), Adpcm().through(sound))


def test_a_bot_is_put_on_a_line_by_its_text() -> None:
    assert parse_bot("echo@street") == Echo(line="street")
    assert parse_bot("speech:austen-0880,greets,ring=2@mobile-bad") == Play(
        speech="austen-0880", greets=True, ring=2.0, line="mobile-bad"
    )
    assert parse_bot("dtmf:12#@2.5@train") == Silence(dtmf=((2.5, "12#"),), line="train")
    with pytest.raises(ValueError, match="no line 'moon': there are mobile-good, "):
        parse_bot("echo@moon")
    with pytest.raises(ValueError, match="no line 'moon'"):
        CarrierSim(line="moon")


def test_a_bot_says_and_hears_through_its_line() -> None:
    bot = start_bot(parse_bot("echo@packet-loss"))  # type: ignore[arg-type]  # it answers
    said = []
    for n in range(20):
        said.append(bot.emit())
        bot.receive(LOUD if n == 0 else SILENCE)
    assert bot.heard[3 * 160 : 4 * 160] == LOUD, "60 ms late"
    assert said[3 + 1 + 3] == LOUD, "the echo waits a frame, and is 60 ms late again"
    assert b"".join(said) == bytes(bot.said)


def test_all_far_ends_are_on_the_stand_ins_line_that_name_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(far_ends, "BadLine", lambda profile, seed, speech: profile)
    sim = CarrierSim(line="street")
    assert sim.exchange.bot(Echo()).line is PROFILES["street"]  # type: ignore[comparison-overlap]  # a profile stands for its line here
    assert sim.exchange.bot(Echo(line="train")).line is PROFILES["train"]  # type: ignore[comparison-overlap]  # as above
    sim.set_line("")
    assert sim.exchange.bot(Echo()).line is None
