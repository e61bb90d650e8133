"""Lines by name, and the claims of each. ``docs/far-end.md`` has the measurements.

Levels are in dB, times in seconds. Each claim holds by itself: the far end's words come with this
much noise under them, so late, so often lost.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

NoiseKind = Literal["hiss", "street", "train", "office"]
CodecName = Literal["a-law", "adpcm"]


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The effects of a line on sound. The defaults do nothing."""

    #: A few words for people.
    shows: str
    #: One way, in both directions.
    delay: float = 0.0
    #: Share of the frames of 20 ms that are lost, in both directions, and how many in a row.
    loss: float = 0.0
    burst: int = 1
    #: Noise under the far end's words: its kind, and how far it lies below them.
    noise: NoiseKind | None = None
    snr: float = 0.0
    #: How much louder the far end's words are. Samples that do not fit are clipped.
    gain: float = 0.0
    #: The far end's loudspeaker is heard in its microphone: so late, and so much quieter.
    echo_delay: float = 0.0
    echo: float | None = None
    #: Codecs that the far end's words go through, one after the other, besides the line's own.
    codecs: tuple[CodecName, ...] = ()


PROFILES: Final[dict[str, Profile]] = {
    "mobile-good": Profile(shows="a good mobile", delay=0.09, loss=0.002, noise="hiss", snr=25.0),
    "mobile-bad": Profile(
        shows="a bad mobile: lost in bursts, late",
        delay=0.18,
        loss=0.04,
        burst=3,
        noise="hiss",
        snr=15.0,
    ),
    "train": Profile(
        shows="a mobile in a train", delay=0.12, loss=0.02, burst=4, noise="train", snr=10.0
    ),
    "street": Profile(
        shows="a mobile in the street", delay=0.09, loss=0.002, noise="street", snr=10.0
    ),
    "office": Profile(shows="an office where others talk", delay=0.02, noise="office", snr=15.0),
    "speaker-phone": Profile(
        shows="a speaker phone, which sends an echo",
        delay=0.02,
        echo_delay=0.12,
        echo=-15.0,
        noise="hiss",
        snr=25.0,
    ),
    "tandem": Profile(
        shows="codecs in tandem", delay=0.06, codecs=("a-law", "adpcm", "a-law", "adpcm")
    ),
    "packet-loss": Profile(shows="a line that loses packets", delay=0.06, loss=0.05, burst=2),
    "quiet": Profile(shows="somebody who is too quiet", gain=-24.0),
    "clipping": Profile(shows="somebody who is far too loud", gain=20.0),
}


def profile(name: str) -> Profile:
    """The line of this name. ValueError where there is none."""
    if name not in PROFILES:
        raise ValueError(f"no line {name!r}: there are {', '.join(PROFILES)}")
    return PROFILES[name]
