"""The words of the demo's calls: an offline recogniser, and how many words it got wrong.

The recogniser, pocketsphinx, gets a dictionary of the some fifty words in the shipped recordings,
in place of its own with 130,000. It still has to hear which of them was said, but takes an eighth
of the time. It runs in a process of its own with a lower priority, because it holds the
interpreter's lock while it decodes, and the phone line's threads must not wait for that.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

from trunkline.bus import wav
from trunkline.bus.sound import LINE_RATE
from trunkline.carrier_sim.wav import SPEECH_DIR, transcripts

#: The sample rate that the recogniser's model was trained on.
MODEL_RATE: Final = 16_000

_decoder: Any = None


def recording(name: str) -> Path:
    """The WAV file of a shipped recording, for instance "austen-0880"."""
    return SPEECH_DIR / f"{name}.wav"


def transcript(name: str) -> str:
    """The words of a shipped recording."""
    return transcripts()[f"{name}.wav"]


def word_errors(said: str, heard: str) -> int:
    """How many words have to be inserted, deleted or replaced to turn ``said`` into ``heard``."""
    a, b = said.lower().split(), heard.lower().split()
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            cost = min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
            previous, row[j] = row[j], cost
    return row[-1]


def dictionary(whole: Iterable[str]) -> list[str]:
    """The lines of the dictionary ``whole`` that are about words of the recordings.

    A line is ``might M AY T``, for example, or ``to(2) T IH`` for a second pronunciation.
    """
    words = {word for text in transcripts().values() for word in text.split()}
    return [line for line in whole if line.split(" ", 1)[0].split("(", 1)[0] in words]


def _start_decoder() -> None:
    global _decoder
    from pocketsphinx import Decoder, get_model_path

    os.nice(3)
    with (
        Path(get_model_path("en-us/cmudict-en-us.dict")).open(encoding="utf-8") as whole,
        tempfile.NamedTemporaryFile("w", encoding="utf-8") as known,
    ):
        known.writelines(dictionary(whole))
        known.flush()
        # One pass is enough: with so few words, further passes make more errors.
        _decoder = Decoder(
            samprate=MODEL_RATE, loglevel="FATAL", dict=known.name, fwdflat=False, bestpath=False
        )


def _recognise(pcm: bytes, rate: int) -> str:
    samples = wav.resample(wav.from_bytes(pcm), rate, MODEL_RATE)
    _decoder.start_utt()
    _decoder.process_raw(samples.astype("<i2").tobytes(), full_utt=True)
    _decoder.end_utt()
    found = _decoder.hyp()
    return "" if found is None else str(found.hypstr)


class Recogniser:
    """Speech to text in another process. It also is a provider for
    ``scenario.set_stt_provider``."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=_start_decoder
        )

    async def words(self, pcm: bytes, rate: int = LINE_RATE) -> str:
        """The words in PCM16 at ``rate``, or "" where there are none."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, _recognise, pcm, rate)

    async def transcribe(self, audio: Any) -> str:
        """The words in an AudioChunk. This is the method of scenario's STTProvider."""
        return await self.words(bytes(audio.data))

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
