"""mu-law: every sample and every code against an independent reference, and against audioop."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from trunkline.codec_worker import mulaw

ALL_SAMPLES = np.arange(-32768, 32768, dtype=np.int16)
ALL_CODES = np.arange(256, dtype=np.uint8)
#: The largest magnitude that a decoded sample can have; a full-scale sine of this peak is
#: +3.17 dBm0 (ITU-T G.711, table 5).
PEAK = 32124

#: G.711 table 2a: the upper end (in 14-bit steps) of each segment and its step size.
SEGMENTS = [(31, 2), (95, 4), (223, 8), (479, 16), (991, 32), (2015, 64), (4063, 128), (8159, 256)]


def reference_decode(code: int) -> int:
    """The 16-bit value of a code, by walking up G.711's table of segments."""
    inverted = ~code & 0xFF
    segment, step = (inverted >> 4) & 7, inverted & 15
    if segment == 0:
        value = 2 * step  # the first interval, 0 to 1, is half as wide and has the value 0
    else:
        low, width = SEGMENTS[segment - 1][0], SEGMENTS[segment][1]
        value = low + step * width + width // 2
    return (-value if inverted & 0x80 else value) * 4


def reference_encode(sample: int) -> int:
    """The code of a 16-bit sample, by searching G.711's decision values."""
    value = sample >> 2
    sign = 0x80 if value < 0 else 0
    magnitude = min(abs(value), 8159)
    low = 0
    for segment, (high, width) in enumerate(SEGMENTS):
        if magnitude < high or segment == 7:
            step = (magnitude + 1) // 2 if segment == 0 else (magnitude - low) // width
            return ~(sign | (segment << 4) | min(step, 15)) & 0xFF
        low = high
    raise AssertionError(sample)


def test_every_sample_encodes_as_the_tables_of_g711_say() -> None:
    expected = [reference_encode(int(s)) for s in ALL_SAMPLES]
    assert mulaw.encode(ALL_SAMPLES).tolist() == expected


def test_every_code_decodes_as_the_tables_of_g711_say() -> None:
    assert mulaw.decode(ALL_CODES).tolist() == [reference_decode(int(c)) for c in ALL_CODES]


def test_the_same_as_audioop() -> None:
    """Checksums of what audioop gave, which left Python with 3.13."""
    lin2ulaw, ulaw2lin = 0x3B7C3A3E, 0x0C847A9F
    assert zlib.crc32(mulaw.encode(ALL_SAMPLES).tobytes()) == lin2ulaw
    assert zlib.crc32(mulaw.decode(ALL_CODES).astype("<i2").tobytes()) == ulaw2lin


def test_codes_survive_a_round_trip_but_for_the_second_zero() -> None:
    again = mulaw.encode(mulaw.decode(ALL_CODES))
    changed = [c for c in range(256) if again[c] != c]
    assert changed == [0x7F]
    assert mulaw.decode(np.array([mulaw.SILENCE, 0x7F], dtype=np.uint8)).tolist() == [0, 0]
    assert int(np.abs(mulaw.decode(ALL_CODES).astype(int)).max()) == PEAK


def test_batches_keep_their_shape() -> None:
    batch = ALL_SAMPLES.reshape(64, 1024)
    assert mulaw.encode(batch).shape == (64, 1024)
    assert np.array_equal(mulaw.encode(batch).ravel(), mulaw.encode(ALL_SAMPLES))


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        mulaw.encode(np.zeros(3).astype(object))
    with pytest.raises(TypeError, match="int16"):
        mulaw.decode(np.zeros(3, dtype=np.int16))
