"""G.711 mu-law by tables: PCM16 to one byte a sample and back.

Bit-exact to Sun's public ``g711.c`` and so to ``lin2ulaw``/``ulaw2lin`` of Python's former
``audioop``: the 16-bit sample is shifted to 14 bits (rounding towards minus infinity), its
magnitude is clipped at 8159, biased by 33, and coded as sign, segment and quantisation step with
all bits inverted (ITU-T G.711, table 2). ITU-T's own C code (G.191, ``ulaw_compress``) takes the
ones' complement of negative samples instead, and so gives the neighbouring code for 508 of the
65,536 samples, all negative and next to a decision value.

Encoding costs one table look-up a sample. The two tables for it have 64 KiB each, the one for
decoding 0.5 KiB.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from trunkline.bus.sound import LINEAR

#: Encoded silence: the code of +0. (-0 is 0x7F.)
SILENCE: Final = 0xFF

_CLIP: Final = 8159
_BIAS: Final = 33


def _build_encode_table() -> npt.NDArray[np.uint8]:
    linear = np.arange(-32768, 32768, dtype=np.int32) >> 2
    negative = linear < 0
    biased = np.minimum(np.abs(linear), _CLIP) + _BIAS
    # The segment is the position of the leading one of the biased magnitude, 33 … 8192, above
    # bit 5. A magnitude of exactly 8192 (clipped) belongs to the last segment's last step.
    segment = np.floor(np.log2(biased)).astype(np.int32) - 5
    code = np.where(segment >= 8, 0x7F, (segment << 4) | ((biased >> (segment + 1)) & 0x0F))
    return (code ^ np.where(negative, 0x7F, 0xFF)).astype(np.uint8)


#: uint8[65536]: the code of sample ``i - 32768``.
ENCODE_TABLE: Final = _build_encode_table()

#: int16[256]: the sample of each code.
DECODE_TABLE: Final = np.array(LINEAR, dtype=np.int16)

#: uint8[65536]: the same table, indexed by the sample's bits as uint16, which needs no addition.
BY_BITS: Final = np.roll(ENCODE_TABLE, 32768)

ENCODE_TABLE.setflags(write=False)
DECODE_TABLE.setflags(write=False)
BY_BITS.setflags(write=False)


def encode(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    """mu-law codes of ``samples``: int16 of any shape in, uint8 of the same shape out.

    Raises TypeError for another dtype (a float array would be cut, not scaled).
    """
    if samples.dtype != np.int16:
        raise TypeError(f"mu-law encodes int16 samples, not {samples.dtype}")
    codes: npt.NDArray[np.uint8] = BY_BITS[samples.view(np.uint16)]
    return codes


def decode(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """PCM16 samples of mu-law ``codes``: uint8 of any shape in, int16 of the same shape out.

    Raises TypeError for another dtype.
    """
    if codes.dtype != np.uint8:
        raise TypeError(f"mu-law decodes uint8 codes, not {codes.dtype}")
    samples: npt.NDArray[np.int16] = DECODE_TABLE[codes]
    return samples
