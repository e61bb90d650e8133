"""Calls whose timings are known, made of the shipped recordings: for ear.py and the ear's tests.

Recordings are put at moments of each side, and the call goes through mu-law at 8 kHz. A recording
begins with its first frame of 10 ms within 20 dB of its loudest, and ends with the last one.
"""

from __future__ import annotations

import functools
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import numpy.typing as npt

from trunkline.bus import wav
from trunkline.carrier_sim.wav import SPEECH_DIR
from trunkline.codec_worker.mulaw import DECODE_TABLE, ENCODE_TABLE
from trunkline.ear.figures import Segment

RATE = 8_000
#: RMS of the recordings' speech: about -24 dBFS.
LEVEL = 2_000.0
FRAME = 80
GAP = 0.3
Side = Literal["ours", "theirs"]
Floats = npt.NDArray[np.float64]
Random = np.random.Generator
#: Sample -> the sample that mu-law makes of it.
_LINE = DECODE_TABLE[ENCODE_TABLE]


@functools.cache
def recordings(directory: Path = SPEECH_DIR) -> tuple[Floats, ...]:
    """The recordings of a directory at 8 kHz, their speech all at one level. Those of less than a
    second are left out: they would be backchannels, and not turns."""
    sounds = [wav.read(path, RATE).astype(np.float64) for path in sorted(directory.rglob("*.wav"))]
    return tuple(
        sound * (LEVEL / np.sqrt(speech_power(sound))) for sound in sounds if len(sound) >= RATE
    )


def speech_power(sound: Floats) -> float:
    (first, *_), last = spoken(sound, 0), spoken(sound, 0)[-1]
    return float((sound[round(first.start * RATE) : round(last.end * RATE)] ** 2).mean())


def frame_power(sound: Floats) -> Floats:
    power: Floats = (sound[: len(sound) // FRAME * FRAME].reshape(-1, FRAME) ** 2).mean(axis=1)
    return power


def words(random: Random, most: float = 8.0, directory: Path = SPEECH_DIR) -> Floats:
    """A recording of at most so many seconds."""
    fitting = [each for each in recordings(directory) if len(each) < most * RATE]
    return fitting[random.integers(len(fitting))]


def spoken(sound: Floats, at: int) -> list[Segment]:
    """The segments of a recording that begins at sample ``at``, by the definition."""
    power = frame_power(sound)
    loud = np.flatnonzero(power >= power.max() / 100)
    cuts = np.flatnonzero((np.diff(loud) - 1) * 0.01 > GAP)
    firsts = loud[np.concatenate([[0], cuts + 1])]
    lasts = loud[np.concatenate([cuts, [len(loud) - 1]])]
    return [
        Segment(start=at / RATE + first * 0.01, end=at / RATE + (last + 1) * 0.01)
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True)
    ]


@dataclass
class MadeCall:
    """A call that is being made, and its truth."""

    seconds: float
    tracks: dict[Side, Floats] = field(init=False)
    #: of each side, the segments of each recording
    truth: dict[Side, list[list[Segment]]] = field(init=False)

    def __post_init__(self) -> None:
        samples = round(self.seconds * RATE)
        self.tracks = {"ours": np.zeros(samples), "theirs": np.zeros(samples)}
        self.truth = {"ours": [], "theirs": []}

    def say(self, side: Side, sound: Floats, at: float) -> tuple[float, float]:
        """Say a recording so that its first loud frame begins at ``at``; when it really begins and
        ends."""
        lead = spoken(sound, 0)[0].start
        begin = max(0, round((at - lead) * RATE))
        track = self.tracks[side]
        if begin + len(sound) + RATE > len(track):
            self.tracks[side] = track = np.concatenate(
                [track, np.zeros(begin + len(sound) + RATE - len(track))]
            )
        track[begin : begin + len(sound)] += sound
        found = spoken(sound, begin)
        self.truth[side].append(found)
        return found[0].start, found[-1].end

    def segments(self, side: Side) -> list[Segment]:
        return [segment for recording in self.truth[side] for segment in recording]

    def sound(
        self, noise: str = "clean", snr_db: float = 0.0, seed: int = 0
    ) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
        """Both sides as a line brings them, with noise under each."""
        random = np.random.default_rng(seed)
        longest = max(map(len, self.tracks.values()))
        made = []
        for side, track in self.tracks.items():
            whole = np.zeros(longest)
            whole[: len(track)] = track
            if noise != "clean":
                words = [
                    track[round(s.start * RATE) : round(s.end * RATE)] for s in self.segments(side)
                ]
                level = in_band(words) if words else 1e4
                amplitude = math.sqrt(level) * 10 ** (-snr_db / 20)
                whole += make_noise(noise, longest, random) * amplitude
            made.append(line(whole))
        return made[0], made[1]


def line(sound: Floats) -> npt.NDArray[np.int16]:
    """Through mu-law and back."""
    pcm = np.rint(sound).astype(np.int32)
    pcm += 32768
    return _LINE.take(pcm, mode="clip")


def _quick(count: int) -> int:
    """The next length whose spectrum is quick to compute: it has no large prime factor."""
    return min(odd << (-(-count // odd) - 1).bit_length() for odd in (1, 3, 5, 9, 15))


def _band(size: int) -> slice:
    """The parts of the spectrum of so many samples that lie between 300 and 3400 Hz."""
    return slice(-(-300 * size // RATE), 3400 * size // RATE + 1)


def _energy(spectrum: npt.NDArray[np.complex128], size: int) -> float:
    """The energy between 300 and 3400 Hz of so many samples that have this spectrum."""
    inside = spectrum[_band(size)].view(np.float64)
    return 2 * float((inside**2).sum()) / size


def in_band(parts: list[Floats]) -> float:
    """The power of all these parts between 300 and 3400 Hz."""
    energy = 0.0
    for part in parts:
        size = _quick(len(part))
        energy += _energy(np.fft.rfft(part, size), size)
    return energy / sum(map(len, parts))


def make_noise(kind: str, count: int, random: Random) -> Floats:
    """Noise of one kind: white, that in a telephone's band (line), or pink in that band. Its power
    in the band is 1."""
    made: Floats = random.standard_normal(count)
    size = _quick(count)
    spectrum, band = np.fft.rfft(made, size), _band(size)
    if kind == "pink":
        spectrum[band] /= np.sqrt(np.arange(band.start, band.stop))
    power = _energy(spectrum, size) / count
    if kind != "white":
        spectrum[: band.start] = spectrum[band.stop :] = 0
        # Single precision takes half of the time, and is off by less than a millionth.
        made = np.fft.irfft(spectrum.astype(np.complex64), size)[:count]
    return made / math.sqrt(power)


def conversation(seed: int, directory: Path = SPEECH_DIR) -> MadeCall:
    """A call of about half a minute: a greeting, questions and answers, and words that are cut off.

    Each side has a loudness of its own, and each of its recordings is a little louder or softer.
    """
    random = np.random.default_rng(seed)
    # Louder words would be clipped, and then the recording is unreliable, and not exact.
    gains = {"ours": random.uniform(-12, 3), "theirs": random.uniform(-12, 3)}
    call = MadeCall(1.0)

    def say(side: Side, at: float, sound: Floats) -> float:
        gain = gains[side] + random.uniform(-1, 1)
        return call.say(side, sound * 10 ** (gain / 20), at)[1]

    at = say("theirs", random.uniform(0.5, 1.5), words(random, 3.6, directory))
    for _ in range(3):
        asked = say("ours", at + random.uniform(0.4, 2.0), words(random, directory=directory))
        begin = asked + random.uniform(0.15, 2.5)
        answer = words(random, directory=directory)
        if len(answer) > 5 * RATE and random.random() < 0.7:
            # We break in, and they stop for it, or they do not.
            breaks_in = begin + random.uniform(1.0, 2.5)
            if random.random() < 0.7:
                loud = np.flatnonzero(frame_power(answer) > frame_power(answer).max() / 20)
                soonest = (breaks_in - begin + random.uniform(0.2, 0.9)) * 100
                stop = int(loud[np.searchsorted(loud, soonest)] + 1) * FRAME
                answer = answer[:stop].copy()
                answer[-40:] *= np.linspace(1, 0, 40)
            said = say("theirs", begin, answer)
            at = max(said + 0.6, say("ours", breaks_in, words(random, 3.6, directory)))
            at = say("theirs", at + random.uniform(0.4, 1.5), words(random, 3.6, directory))
        else:
            at = say("theirs", begin, answer)
    return call
