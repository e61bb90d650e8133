"""The resampler: what it passes, what it rejects, and that chunk borders leave no trace."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.codec_worker import mulaw
from trunkline.codec_worker.resample import (
    LOOKAHEAD,
    LOOKAHEAD_24K,
    Downsampler,
    design,
)

from .peers import UP, decoded, held_back

DOWN = Downsampler()


def pcm(samples: npt.ArrayLike) -> bytes:
    return bytes(np.rint(np.asarray(samples)).astype("<i2").tobytes())


def tone(
    hz: float, rate: int, seconds: float = 0.5, peak: float = 12_000.0
) -> npt.NDArray[np.float64]:
    samples: npt.NDArray[np.float64] = peak * np.sin(
        2 * np.pi * hz / rate * np.arange(int(rate * seconds)) + 0.3
    )
    return samples


def down(sound: bytes) -> npt.NDArray[np.int16]:
    history = DOWN.history()
    codes = DOWN.run([history], [sound])[0] + DOWN.flush([history])[0]
    return mulaw.decode(np.frombuffer(codes, np.uint8))


def response_db(hz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    n = np.arange(97) - 48
    phase = 2 * np.pi / 24_000 * np.multiply.outer(np.asarray(hz, float), n)
    level: npt.NDArray[np.float64] = 20 * np.log10(np.abs(np.cos(phase) @ design()) + 1e-9)
    return level


def amplitude(samples: npt.NDArray[np.int16], hz: float, rate: int) -> float:
    """The amplitude of one frequency, by least squares over the middle of the sound."""
    middle = samples[len(samples) // 8 : -len(samples) // 8].astype(float)
    angle = 2 * np.pi * hz / rate * np.arange(len(middle))
    basis = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    return float(np.hypot(*np.linalg.lstsq(basis, middle, rcond=None)[0]))


def test_the_filter_is_what_its_docstring_says() -> None:
    assert len(design()) == 97
    assert np.array_equal(design(), design()[::-1])  # linear phase
    assert (len(design()) - 1) / 2 / 24_000 <= 0.002
    assert np.abs(response_db(np.arange(0, 3401, 5))).max() < 0.006
    assert response_db(np.arange(4400, 12001, 5)).max() < -63
    assert response_db(np.arange(4500, 12001, 5)).max() < -68
    assert response_db([3600, 3800, 4000]) == pytest.approx([-0.55, -3.24, -10.13], abs=0.02)


@pytest.mark.parametrize("hz", [53, 307, 1009, 2003, 2999, 3391])
def test_speech_band_passes_both_ways_at_its_level_and_place(hz: int) -> None:
    heard = down(pcm(tone(hz, 24_000)))
    assert amplitude(heard, hz, 8000) == pytest.approx(12_000, rel=0.004)
    expected = tone(hz, 8000)
    error = (heard - expected)[100:-100]
    assert 20 * np.log10(np.std(error) / np.std(expected)) < -35  # mu-law's own noise

    spoken = mulaw.encode(np.rint(tone(hz, 8000)).astype(np.int16)).tobytes()
    sound = decoded(spoken)
    assert amplitude(sound, hz, 24_000) == pytest.approx(12_000, rel=0.004)
    error = (sound - tone(hz, 24_000))[300:-300]
    assert 20 * np.log10(np.std(error) / np.std(tone(hz, 24_000))) < -35


@pytest.mark.parametrize("hz", [4400, 4500, 5000, 6000, 7000, 7900, 8100, 9000, 10_000, 11_900])
def test_what_would_fold_into_speech_is_gone(hz: int) -> None:
    assert np.abs(down(pcm(tone(hz, 24_000)))[50:-50]).max() <= 12  # -60 dB, in mu-law steps of 8


@pytest.mark.parametrize("hz", [300, 1000, 2000, 3000, 3400])
def test_images_are_gone(hz: int) -> None:
    sound = decoded(mulaw.encode(np.rint(tone(hz, 8000)).astype(np.int16)).tobytes())
    for image in (8000 - hz, 8000 + hz):
        assert amplitude(sound, image, 24_000) < 12_000 * 10 ** (-63 / 20)


@given(
    st.lists(st.integers(0, 700), min_size=1, max_size=12),
    st.integers(0, 2**32 - 1),
)
def test_where_chunks_are_cut_leaves_no_trace_down(thirds: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    sound = rng.integers(-9000, 9000, 3 * sum(thirds))
    history, codes, begin = DOWN.history(), b"", 0
    for third in thirds:
        codes += DOWN.run([history], [pcm(sound[begin : begin + 3 * third])])[0]
        begin += 3 * third
        held = DOWN.held(history)
        assert held == min(LOOKAHEAD, begin // 3)
        assert len(codes) + held == begin // 3
    codes += DOWN.flush([history])[0]
    whole = down(pcm(sound))
    assert len(codes) == len(whole) == sum(thirds)
    # Rows are cut elsewhere, so float32 sums may round to the neighbouring sample.
    apart = mulaw.decode(np.frombuffer(codes, np.uint8)).astype(int) - whole
    assert np.count_nonzero(apart) <= 2 + len(whole) // 500
    assert DOWN.held(history) == 0


@given(
    st.lists(st.integers(0, 500), min_size=1, max_size=12),
    st.integers(0, 2**32 - 1),
)
def test_where_chunks_are_cut_leaves_no_trace_up(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, sum(lengths)).astype(np.uint8).tobytes()
    history, sound, begin = UP.history(), b"", 0
    for length in lengths:
        sound += UP.run([history], [codes[begin : begin + length]])[0]
        begin += length
        assert len(sound) == 6 * (begin - min(LOOKAHEAD, begin))
    sound += held_back([history])[0]
    whole = decoded(codes)
    assert len(sound) == 2 * len(whole) == 6 * len(codes)
    assert np.abs(np.frombuffer(sound, "<i2").astype(int) - whole).max(initial=0) <= 1


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_calls_of_one_batch_do_not_hear_each_other(seed: int, calls: int) -> None:
    rng = np.random.default_rng(seed)
    sounds = [pcm(rng.integers(-9000, 9000, 3 * int(n))) for n in rng.integers(0, 900, calls)]
    histories = [DOWN.history() for _ in sounds]
    got = [a + b for a, b in zip(DOWN.run(histories, sounds), DOWN.flush(histories), strict=True)]
    for sound, codes in zip(sounds, got, strict=True):
        apart = mulaw.decode(np.frombuffer(codes, np.uint8)).astype(int) - down(sound)
        assert np.count_nonzero(apart) <= 2 + len(apart) // 500

    up_histories = [UP.history() for _ in got]
    pairs = zip(UP.run(up_histories, got), held_back(up_histories), strict=True)
    for codes, (head, tail) in zip(got, pairs, strict=True):
        apart = np.frombuffer(head + tail, "<i2").astype(int) - decoded(codes)
        assert np.abs(apart).max(initial=0) <= 1


def test_more_rows_than_the_buffers_hold() -> None:
    sound = tone(440, 24_000, seconds=12.0)
    heard = down(pcm(sound))
    assert len(heard) == 96_000
    assert np.abs(heard - sound[::3])[100:-100].max() <= 260  # half of mu-law's step at 12,000


def test_loud_sound_saturates_and_never_wraps() -> None:
    square = np.where(tone(500, 24_000) > 0, 32_767, -32_768)
    heard = down(pcm(square))
    assert heard.max() == mulaw.DECODE_TABLE.max()
    assert heard.min() == -mulaw.DECODE_TABLE.max()
    flipped = np.abs(heard.astype(int) - square[::3]) > 30_000
    assert not flipped[np.abs(tone(500, 8000)) > 6000].any()
    codes = mulaw.encode(square[::3].astype(np.int16)).tobytes()
    sound = decoded(codes)
    assert sound.max() == 32_767
    assert sound.min() == -32_768


@given(
    st.lists(
        st.tuples(st.sampled_from(["any", "loudest", "quiet", "silent"]), st.integers(1, 10)),
        min_size=1,
        max_size=60,
    ),
    st.integers(0, 99),
)
def test_whole_frames_of_all_calls_give_what_each_gives_by_itself(
    kinds: list[tuple[str, int]], seed: int
) -> None:
    """So many of each call; and the loudest sound that there is beside the quietest, where clipping
    is left out."""
    rng = np.random.default_rng(seed)
    codes = {"any": range(256), "loudest": (0, 128), "quiet": range(96, 128), "silent": (255,)}
    windows = [
        bytes(rng.choice(list(codes[kind]), 32 + 160 * frames).astype(np.uint8))
        for kind, frames in kinds
    ]
    for window, got in zip(windows, UP.frames(windows), strict=True):
        history = UP.history()
        history.tail = window[:32]
        assert got == UP.run([history], [window[32:]])[0]
        assert np.abs(np.frombuffer(got, "<i2") - upsampled(window)).max() <= 1


def upsampled(window: bytes) -> npt.NDArray[np.float64]:
    """Frames behind 32 samples, as the matrix product has it, rounded and clipped by numpy."""
    samples = UP._decode.take(np.frombuffer(window, np.uint8))
    blocks = np.lib.stride_tricks.sliding_window_view(samples, 64)[::32]
    return np.clip(np.rint(np.ascontiguousarray(blocks) @ UP._matrix), -32_768, 32_767).ravel()


def test_the_delay_is_compensated_to_the_sample() -> None:
    click = np.zeros(2400)
    click[1200] = 30_000
    assert int(np.argmax(np.abs(down(pcm(click))))) == 400
    codes = bytearray([mulaw.SILENCE] * 800)
    codes[400] = int(mulaw.encode(np.array([20_000], np.int16))[0])
    assert int(np.argmax(np.abs(decoded(bytes(codes))))) == 1200


def test_sound_that_follows_a_flush_without_a_pause_keeps_its_past() -> None:
    sound = tone(700, 24_000, seconds=0.2)
    history = DOWN.history()
    codes = DOWN.run([history], [pcm(sound[:2400])])[0] + DOWN.flush([history], joined=True)[0]
    assert len(codes) == 800
    codes += DOWN.run([history], [pcm(sound[2400:])])[0] + DOWN.flush([history])[0]
    heard = mulaw.decode(np.frombuffer(codes, np.uint8)).astype(int)
    apart = np.abs(heard - down(pcm(sound)))
    assert apart[800:].max() == 0  # what follows sees the past as it was
    assert apart[: 800 - LOOKAHEAD].max() == 0  # only the tail could not see what came


def test_frames_in_the_middle_of_a_stream_start_from_what_was_heard_before() -> None:
    codes = mulaw.encode(np.rint(tone(600, 8000)).astype(np.int16)).tobytes()
    whole = decoded(codes)
    history = UP.history(past=codes[:1600])
    sound = np.frombuffer(UP.run([history], [codes[1600:]])[0] + held_back([history])[0], "<i2")
    assert np.abs(sound.astype(int) - whole[4800:]).max() <= 1


def test_chunks_of_a_wrong_length_are_refused_and_change_nothing() -> None:
    a, b = DOWN.history(), DOWN.history()
    before = a.tail
    with pytest.raises(ValueError, match="14 bytes"):
        DOWN.run([a, b], [bytes(960), bytes(14)])
    assert a.tail == before
    assert LOOKAHEAD_24K == 48
