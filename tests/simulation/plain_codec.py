"""A codec that keeps every code: what is said and heard can be told apart by its bytes.

It stands in for the resampling filter, with the same histories and the same delays: a sample at
8 kHz is its mu-law code in the first of the six bytes (three samples of PCM16) that stand for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from trunkline.codec_worker.resample import (
    LOOKAHEAD,
    LOOKAHEAD_24K,
    RATIO,
    Downsampler,
    History,
    Upsampler,
)

POSITION_BYTES = 2 * RATIO


def pcm_of(codes: bytes) -> bytes:
    """The PCM16 24 kHz that stands for mu-law ``codes``."""
    pcm = bytearray(POSITION_BYTES * len(codes))
    pcm[::POSITION_BYTES] = codes
    return bytes(pcm)


def codes_of(pcm: bytes) -> bytes:
    return pcm[::POSITION_BYTES]


class PlainDownsampler(Downsampler):
    """Takes every third sample's code."""

    def __init__(self) -> None:
        """Nothing to prepare."""

    def run(self, histories: Sequence[History], chunks: Sequence[bytes]) -> list[bytes]:
        out = []
        for history, chunk in zip(histories, chunks, strict=True):
            if len(chunk) % POSITION_BYTES:
                raise ValueError(f"a chunk of {len(chunk)} bytes")
            data = history.tail + chunk
            count = max(0, (len(data) // 2 - 2 * LOOKAHEAD_24K) // RATIO)
            begin = 2 * LOOKAHEAD_24K
            out.append(data[begin : begin + count * POSITION_BYTES : POSITION_BYTES])
            history.tail = data[count * POSITION_BYTES :]
        return out


class PlainUpsampler(Upsampler):
    """Writes each code three times as long."""

    def __init__(self) -> None:
        """Nothing to prepare."""

    def run(self, histories: Sequence[History], chunks: Sequence[bytes]) -> list[bytes]:
        out = []
        for history, chunk in zip(histories, chunks, strict=True):
            piece = history.tail + chunk
            count = max(0, len(piece) - 2 * LOOKAHEAD)
            out.append(pcm_of(piece[LOOKAHEAD : LOOKAHEAD + count]))
            history.tail = piece[count:]
        return out
