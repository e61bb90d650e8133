"""The sound that may be sent: bytes of PCM16, little-endian, mono, 24 kHz.

Anything else is refused with an error that names it. A WAV file's bytes and an array of floats are
passed by mistake most often: both could be sent, and would be heard as a crack or as noise.
"""

from __future__ import annotations

import sys
from typing import Final

#: Bytes of one second of such sound.
BYTES_A_SECOND: Final = 48_000

#: Formats of a memoryview that are bytes, or 16-bit integers in little-endian order (as struct
#: spells them).
_NATIVE: Final = frozenset("hH" if sys.byteorder == "little" else "")
_FORMATS: Final = frozenset("Bbc") | {"<h", "<H"} | {o + f for o in ("", "=", "@") for f in _NATIVE}
#: How WAV files begin: the usual one, big-endian, and those of more than 4 GB.
_WAV: Final = (b"RIFF", b"RIFX", b"RF64", b"BW64")
#: What to do with what is passed by mistake, by the name of its type.
_INSTEAD: Final = {
    "str": ": call.say(path) says a WAV file",
    "PosixPath": ": call.say(path) says a WAV file",
    "ndarray": ": samples.astype('<i2').tobytes() makes them of 16-bit integers, and "
    "(samples * 32767).astype('<i2').tobytes() of floats between -1 and 1",
}


def pcm16(pcm: object) -> bytes:
    """``pcm`` as bytes of whole samples. ValueError says what it is instead, and what to do."""
    if isinstance(pcm, memoryview):
        if pcm.format not in _FORMATS:
            raise ValueError(
                f"send_audio: a memoryview of format {pcm.format!r} holds neither bytes nor 16-bit "
                "integers (little-endian): convert its samples first, for instance with numpy "
                "(samples * 32767).astype('<i2').tobytes() for floats between -1 and 1"
            )
        if sum(length > 1 for length in pcm.shape or ()) > 1:
            raise ValueError(
                f"send_audio: a memoryview of shape {pcm.shape} is more than one channel: mix it "
                "down to mono first"
            )
    elif not isinstance(pcm, bytes | bytearray):
        raise ValueError(
            f"send_audio takes bytes of PCM16, not {type(pcm).__name__}"
            + (_INSTEAD.get(type(pcm).__name__, ""))
        )
    data = bytes(pcm)
    if data[:4] in _WAV and data[8:12] == b"WAVE":
        raise ValueError(
            "send_audio: these are the bytes of a WAV file, header included, and it takes PCM16 "
            "alone (little-endian, mono, 24 kHz): read the samples with the wave module "
            "(wave.open(path).readframes(n)) and convert another sample rate, or more channels, "
            "first"
        )
    if len(data) % 2:
        raise ValueError(f"send_audio: {len(data)} bytes are not valid PCM16 (two bytes a sample)")
    return data
