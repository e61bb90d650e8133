"""The carrier's G.711 against the standard's own properties and values."""

from __future__ import annotations

import numpy as np

from trunkline.carrier_sim import mulaw


def test_values_of_the_standard() -> None:
    # G.711 table 2: decision values at the segments' ends, scaled to 16 bits.
    assert mulaw.decode(b"\xff\x7f\x80\x00\xfe\xf0\xef").tolist() == [
        0,
        0,
        32124,
        -32124,
        8,
        120,
        132,
    ]
    assert mulaw.encode(np.array([0, 8, -8, 32767, -32768, 1000], dtype=np.int16)) == bytes(
        [0xFF, 0xFE, 0x7E, 0x80, 0x00, 0xCE]
    )


def test_every_code_survives_a_round_trip() -> None:
    codes = bytes(range(256))
    again = mulaw.encode(mulaw.decode(codes))
    # 0x7F is negative zero, which comes back as positive zero.
    assert again == codes.replace(b"\x7f", b"\xff")


def test_the_error_is_half_a_step_at_most() -> None:
    # G.711: the step doubles with each of the eight segments, from 8 (at 16 bits) on.
    samples = np.arange(-32635, 32636).astype(np.int16)
    codes = np.frombuffer(mulaw.encode(samples), dtype=np.uint8)
    half_step = 4 << ((~codes >> 4) & 7).astype(int)
    error = abs(mulaw.decode(codes.tobytes()).astype(int) - samples)
    assert (error <= half_step).all()


def test_quiet() -> None:
    assert mulaw.is_quiet(mulaw.SILENCE)
    assert mulaw.is_quiet(mulaw.encode(np.full(160, 100, dtype=np.int16)))
    assert not mulaw.is_quiet(mulaw.encode(np.full(160, 3000, dtype=np.int16)))


def test_frames_fill_up_the_last() -> None:
    assert [len(f) for f in mulaw.frames(b"\x00" * 321)] == [160, 160, 160]
    assert mulaw.frames(b"\x00" * 161)[1] == b"\x00" + b"\xff" * 159
    assert mulaw.frames(b"") == []
