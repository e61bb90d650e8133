"""G.711 μ-law as the carrier has it: tables, frames and levels.

Source: ITU-T G.711, table 2 (μ-law, bits inverted on the wire). A frame is 20 ms: 160 bytes at 8
kHz. The tables are built here from the definition and shared with no other room: the carrier must
not repeat a mistake of the program under test.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

RATE: Final = 8000
FRAME_BYTES: Final = 160
FRAME_SECONDS: Final = 0.02

#: One frame of digital silence; μ-law 0xFF is +0.
SILENCE: Final = b"\xff" * FRAME_BYTES

_BIAS: Final = 132
_CLIP: Final = 32635

Pcm = npt.NDArray[np.int16]


def _decode_one(code: int) -> int:
    inverted = ~code & 0xFF
    exponent = (inverted >> 4) & 7
    mantissa = inverted & 15
    magnitude = (((mantissa << 3) + _BIAS) << exponent) - _BIAS
    return -magnitude if inverted & 0x80 else magnitude


def _encode_all(samples: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    sign = np.where(samples < 0, 0x80, 0)
    magnitude = np.minimum(abs(samples), _CLIP) + _BIAS
    # The place of the highest bit: frexp() says which power of two lies above.
    exponent = np.frexp(magnitude)[1] - 8
    mantissa = (magnitude >> (exponent + 3)) & 15
    codes: npt.NDArray[np.uint8] = (~(sign | exponent << 4 | mantissa) & 0xFF).astype(np.uint8)
    return codes


#: μ-law code -> 16-bit sample.
DECODE: Final[Pcm] = np.array([_decode_one(c) for c in range(256)], dtype=np.int16)
#: 16-bit sample, seen as unsigned, -> μ-law code.
ENCODE: Final = _encode_all(np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32))
#: For bytes.translate: μ-law code -> magnitude / 128, so that a frame's level is one sum.
_MAGNITUDE: Final = bytes(min(255, abs(_decode_one(c)) >> 7) for c in range(256))


def decode(ulaw: bytes | bytearray) -> Pcm:
    """μ-law bytes to PCM16 samples."""
    return DECODE[np.frombuffer(ulaw, dtype=np.uint8)]


def encode(pcm: Pcm) -> bytes:
    """PCM16 samples to μ-law bytes."""
    return ENCODE[pcm.view(np.uint16)].tobytes()


def is_quiet(frame: bytes) -> bool:
    """Whether a frame's mean magnitude is under 256 (-42 dBFS)."""
    return frame is SILENCE or sum(frame.translate(_MAGNITUDE)) < 2 * len(frame)


def frames(ulaw: bytes) -> list[bytes]:
    """Cut into 20 ms frames; the last is filled up with silence."""
    cut = [ulaw[i : i + FRAME_BYTES] for i in range(0, len(ulaw), FRAME_BYTES)]
    if cut and len(cut[-1]) < FRAME_BYTES:
        cut[-1] += SILENCE[len(cut[-1]) :]
    return cut
