"""Resampling between 24 kHz PCM and 8 kHz mu-law, for all calls of a worker in one product.

One filter serves both directions: a Kaiser-windowed sinc of 97 taps at 24 kHz, cutoff 3.9 kHz,
beta 6.31. It has linear phase and a delay of 48 samples at 24 kHz = 16 at 8 kHz = 2 ms, which is
also all that it looks ahead. Measured (``tests/codec_worker/test_resample.py`` sweeps it):

====================  =====================================================================
0 to 3.4 kHz          flat within 0.006 dB (after mu-law its noise, -38 dB, is all that is left)
3.6, 3.8, 4.0 kHz     -0.5, -3.2, -10.1 dB
4.4 kHz and up        -63 dB or less, -68 dB from 4.5 kHz; so nothing folds below 3.6 kHz
alias, image          -63 dB or less below 3.6 kHz (down), above 4.4 kHz (up)
====================  =====================================================================

**Alignment.** The delay is compensated: 8 kHz sample p lies on 24 kHz sample 3p in both
directions. The 16 outputs (48 upwards) that the filter would give before its first input are left
out. The last 16 (48) are held back until more sound comes, or until silence is fed in its place. So
the output lasts exactly as long as the input, and the cuts between chunks leave no trace.

**Layout.** All calls' sound of a tick is joined into one flat buffer, each call's piece preceded
by its history and padded to whole blocks of 32 samples at 8 kHz (96 at 24 kHz). The filter's reach
is 32 samples at 8 kHz too, so an output block needs exactly two neighbouring input blocks: row k of
the matrix is blocks k and k+1, a strided view of the buffer, and the product with one constant
(192 x 32 down, 64 x 96 up) gives all rows at once. The row that straddles two calls is thrown away:
one in six for 20 ms frames. State of a call is only its history, bytes of at most 192 (32 up).

Rows are worked on 256 at a time, so that the buffers stay in the cache.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from . import mulaw

RATIO: Final = 3
#: The filter reaches this many samples at 8 kHz ahead of an output and behind it: its delay.
LOOKAHEAD: Final = 16
#: The same at 24 kHz.
LOOKAHEAD_24K: Final = RATIO * LOOKAHEAD

_BLOCK: Final = 2 * LOOKAHEAD  # samples at 8 kHz of one block
_BLOCK_24K: Final = RATIO * _BLOCK
_TAPS: Final = 2 * LOOKAHEAD_24K + 1
_CUTOFF_HZ: Final = 3900.0
_BETA: Final = 6.31  # 66 dB by Kaiser's formula 0.1102 (A - 8.7)
_ROWS: Final = 256

#: Once sound has begun, the tail of an Upsampler's history has this many bytes: 16 of the past, and
#: 16 that are held back. That is one block, and a frame is five. So a tail with frames behind it is
#: a whole number of blocks.
HELD_PAST: Final = 2 * LOOKAHEAD
#: A float of 32 bits has no room for a fraction beside this number. So adding it rounds a sample as
#: ``rint`` does, and the low 16 bits of the sum are the integer. This takes fewer calls of numpy,
#: and with few phone calls the number of calls of numpy is what counts.
_ROUNDS: Final = np.array(1.5 * 2**23, np.float32)
#: The least and the greatest sample of 16 bits.
_LEAST, _MOST = np.array(-32_768, np.float32), np.array(32_767, np.float32)

_Floats = npt.NDArray[np.float32]
#: The parts of an Upsampler's buffers for a number of rows: codes, samples, the samples as
#: overlapping pairs of blocks, those pairs one after the other, the product, and the low halves of
#: the product's bits.
_Cut = tuple[npt.NDArray[np.uint8], _Floats, _Floats, _Floats, _Floats, npt.NDArray[np.int16]]
_SILENCE_24K: Final = bytes(2 * _BLOCK_24K)
_SILENCE_8K: Final = bytes([mulaw.SILENCE]) * _BLOCK


def design() -> npt.NDArray[np.float64]:
    """The filter's 97 taps at 24 kHz, float64, sum 1."""
    n = np.arange(_TAPS) - LOOKAHEAD_24K
    taps = np.sinc(2 * _CUTOFF_HZ / 24_000 * n) * np.kaiser(_TAPS, _BETA)
    result: npt.NDArray[np.float64] = taps / taps.sum()
    return result


@functools.cache
def _down_matrix() -> _Floats:
    """(192, 32): output p of a block sits on input 3p + 48 of its two input blocks."""
    taps = design()
    matrix = np.zeros((2 * _BLOCK_24K, _BLOCK))
    for p in range(_BLOCK):
        matrix[RATIO * p : RATIO * p + _TAPS, p] = taps
    return matrix.astype(np.float32)


@functools.cache
def _up_matrix() -> _Floats:
    """(64, 96): output m of a block sits on input m / 3 + 16 of its two input blocks."""
    taps = RATIO * design()
    matrix = np.zeros((2 * _BLOCK, _BLOCK_24K))
    for j in range(2 * _BLOCK):
        for m in range(_BLOCK_24K):
            tap = m - RATIO * (j - LOOKAHEAD) + LOOKAHEAD_24K
            if 0 <= tap < _TAPS:
                matrix[j, m] = taps[tap]
    return matrix.astype(np.float32)


class History:
    """The memory of a call's filter in one direction. ``tail`` is the input from which the filter
    computes its next output: half a block of past, then the held-back samples."""

    __slots__ = ("tail",)

    def __init__(self, tail: bytes) -> None:
        self.tail: bytes = tail


class Downsampler:
    """24 kHz PCM16 to 8 kHz mu-law, for many calls at once. Not for use by several threads."""

    def __init__(self) -> None:
        self._matrix = _down_matrix()
        self._windows = np.empty((_ROWS, 2 * _BLOCK_24K), np.float32)
        self._product = np.empty((_ROWS, _BLOCK), np.float32)

    @staticmethod
    def history() -> History:
        """The history of a call in which nothing was spoken yet."""
        return History(_SILENCE_24K[: 2 * LOOKAHEAD_24K])

    @staticmethod
    def held(history: History) -> int:
        """Samples at 8 kHz that ``flush`` would give now."""
        return (len(history.tail) // 2 - LOOKAHEAD_24K) // RATIO

    def run(self, histories: Sequence[History], chunks: Sequence[bytes]) -> list[bytes]:
        """Encode each call's next chunk; ``histories`` are changed and must be distinct.

        ``chunks`` are PCM16 little-endian at 24 kHz, of any length that is a multiple of three
        samples (6 bytes). Returns mu-law at 8 kHz for each, one byte a sample, as far as it can be
        computed: a third of the input less the samples that are newly held back.
        Raises ValueError for a chunk of another length, before anything is changed.
        """
        pieces: list[bytes] = []
        spans: list[tuple[int, int]] = []
        tails: list[bytes] = []
        blocks = 0
        for history, chunk in zip(histories, chunks, strict=True):
            if len(chunk) % (2 * RATIO):
                raise ValueError(f"a chunk of {len(chunk)} bytes: not a multiple of 3 samples")
            tail = history.tail
            samples = (len(tail) + len(chunk)) // 2
            count = max(0, (samples - 2 * LOOKAHEAD_24K) // RATIO)
            if not count:
                spans.append((0, 0))
                tails.append(tail + chunk)
                continue
            rows = -(-count // _BLOCK)
            pieces += (tail, chunk)
            if pad := 2 * ((rows + 1) * _BLOCK_24K - samples):
                pieces.append(_SILENCE_24K[:pad])
            start = blocks * _BLOCK
            spans.append((start, start + count))
            rest = 2 * (samples - RATIO * count)
            tails.append(
                chunk[len(chunk) - rest :] if rest <= len(chunk) else (tail + chunk)[-rest:]
            )
            blocks += rows + 1
        for history, tail in zip(histories, tails, strict=True):
            history.tail = tail
        if not blocks:
            return [b""] * len(spans)
        codes = self._encode(b"".join(pieces), blocks - 1)
        return [codes[start:end] for start, end in spans]

    def flush(self, histories: Sequence[History], *, joined: bool = False) -> list[bytes]:
        """The held-back tails, computed as if silence followed.

        Afterwards each history is as new. With ``joined`` it goes on from the last samples that
        were heard, for sound that will follow without a pause.
        """
        past = [history.tail[-2 * LOOKAHEAD_24K :] for history in histories]
        silence = _SILENCE_24K[: 2 * LOOKAHEAD_24K]
        tails = self.run(histories, [silence] * len(histories))
        for history, last in zip(histories, past, strict=True):
            history.tail = last if joined else silence
        return tails

    def _encode(self, flat: bytes, rows: int) -> bytes:
        out = np.empty((rows, _BLOCK), np.uint8)
        for first in range(0, rows, _ROWS):
            n = min(_ROWS, rows - first)
            windows, product = self._windows[:n], self._product[:n]
            view = np.ndarray(
                (n, 2 * _BLOCK_24K), "<i2", flat, first * _BLOCK_24K * 2, (_BLOCK_24K * 2, 2)
            )
            windows[...] = view
            windows.dot(self._matrix, out=product)
            np.minimum(product, _MOST, out=product)
            np.maximum(product, _LEAST, out=product)
            np.add(product, _ROUNDS, out=product)
            low = product.view("<u2")[:, ::2]
            mulaw.BY_BITS.take(low, mode="clip", out=out[first : first + n])
        return out.tobytes()


class Upsampler:
    """8 kHz mu-law to 24 kHz PCM16, for many calls at once. Not for use by several threads."""

    def __init__(self) -> None:
        self._matrix = _up_matrix()
        self._decode = mulaw.DECODE_TABLE.astype(np.float32)
        self._codes = bytearray((_ROWS + 1) * _BLOCK)
        self._samples = np.empty((_ROWS + 1) * _BLOCK, np.float32)
        self._windows = np.empty((_ROWS, 2 * _BLOCK), np.float32)
        self._product = np.empty((_ROWS, _BLOCK_24K), np.float32)
        #: parts of the buffers, by the number of rows. They are kept, because with a call or two
        #: making such a part costs as much as the work on it
        self._cuts: dict[int, _Cut] = {}
        # Codes so quiet that no output of theirs goes beyond 16 bits, in whatever order they come.
        gain = np.abs(self._matrix).sum(axis=0).max()
        self._quiet = np.flatnonzero(np.abs(self._decode) * gain < 32_767).astype("u1").tobytes()

    @staticmethod
    def history(past: bytes = b"") -> History:
        """The history of a call in which nothing was heard yet, or only ``past``. ``past`` is
        mu-law, and its last 16 samples count as handed out before."""
        return History((_SILENCE_8K + past)[-LOOKAHEAD:])

    def run(self, histories: Sequence[History], chunks: Sequence[bytes]) -> list[bytes]:
        """Decode each call's next chunk; ``histories`` are changed and must be distinct.

        ``chunks`` are mu-law at 8 kHz of any length (lost frames: as silence, 0xFF). Returns PCM16
        little-endian at 24 kHz for each: 480 samples for 160 once the first 16 were held back.
        """
        pieces: list[bytes] = []
        spans: list[tuple[int, int]] = []
        blocks = 0
        for history, chunk in zip(histories, chunks, strict=True):
            piece = history.tail + chunk
            count = len(piece) - 2 * LOOKAHEAD
            if count <= 0:
                spans.append((0, 0))
                history.tail = piece
                continue
            rows = -(-count // _BLOCK)
            pieces.append(piece)
            if pad := (rows + 1) * _BLOCK - len(piece):
                pieces.append(_SILENCE_8K[:pad])
            start = blocks * _BLOCK_24K * 2
            spans.append((start, start + count * RATIO * 2))
            history.tail = piece[count:]
            blocks += rows + 1
        if not blocks:
            return [b""] * len(spans)
        pcm = self._interpolate(b"".join(pieces), blocks - 1)
        return [pcm[start:end] for start, end in spans]

    def frames(self, windows: Sequence[bytes]) -> list[bytes]:
        """The same as ``run``, but only for whole frames of 160 bytes and for calls whose tail is
        HELD_PAST bytes long, as it nearly always is. ``windows`` has each call's tail with its
        frames behind it."""
        if not windows:
            return []
        flat = b"".join(windows)
        pcm = self._interpolate(flat, len(flat) // _BLOCK - 1)
        result, start = [], 0
        for window in windows:
            size = 2 * RATIO * len(window)
            result.append(pcm[start : start + size - 2 * RATIO * HELD_PAST])
            start += size
        return result

    def _interpolate(self, flat: bytes, rows: int) -> bytes:
        loud = bool(flat.translate(None, self._quiet))
        parts: list[bytes] = []
        for first in range(0, rows, _ROWS):
            n = min(_ROWS, rows - first)
            codes, samples, overlapping, windows, product, low = self._cuts.get(n) or self._cut(n)
            of_rows = flat if n == rows else flat[first * _BLOCK : (first + n + 1) * _BLOCK]
            self._codes[: len(of_rows)] = of_rows
            self._decode.take(codes, out=samples, mode="clip")
            windows[...] = overlapping
            windows.dot(self._matrix, out=product)
            if loud:
                np.minimum(product, _MOST, out=product)
                np.maximum(product, _LEAST, out=product)
            np.add(product, _ROUNDS, out=product)
            parts.append(low.tobytes())
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _cut(self, n: int) -> _Cut:
        codes = np.frombuffer(self._codes, np.uint8, (n + 1) * _BLOCK)
        samples, product = self._samples[: (n + 1) * _BLOCK], self._product[:n]
        overlapping = np.lib.stride_tricks.sliding_window_view(samples, 2 * _BLOCK)[::_BLOCK]
        low = product.view("<i2")[:, ::2]
        self._cuts[n] = cut = codes, samples, overlapping, self._windows[:n], product, low
        return cut
