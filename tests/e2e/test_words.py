"""A recogniser understands the same words through our line as through an ideal one."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trunkline import Line
from trunkline.carrier_sim import mulaw
from trunkline.demo.words import transcript, word_errors

from .sound import (
    RATE,
    RECORDINGS,
    WIRE,
    Floats,
    delay,
    from_pcm,
    g711_line,
    moved,
    recording,
    resample,
    to_pcm16,
)
from .stack import ALICE, Ear, Stack, until

#: The recogniser's own rate, which is the recordings' too.
WORDS_RATE = 16_000
#: Word errors beyond those of an ideal line, over all 70 words.
MORE_ERRORS = 2


async def test_words_are_understood_as_through_an_ideal_line(stack: Stack, tmp_path: Path) -> None:
    ideal = {name: g711_line(recording(name, WORDS_RATE), WORDS_RATE) for name in RECORDINGS}
    pieces = [to_pcm16(ideal[name]) for name in RECORDINGS]
    recognising = asyncio.ensure_future(recognised(pieces, tmp_path / "ideal"))
    talks = await talk(stack)
    words = await asyncio.gather(
        recognising,
        recognised([aligned(t.name, t.far_end_heard, WIRE) for t in talks], tmp_path / "sent"),
        recognised([aligned(t.name, t.we_heard, RATE) for t in talks], tmp_path / "received"),
    )
    through_ideal, sent, received = (
        sum(word_errors(transcript(n), text) for n, text in zip(RECORDINGS, texts, strict=True))
        for texts in words
    )
    assert sent <= through_ideal + MORE_ERRORS, (through_ideal, sent, words)
    assert received <= through_ideal + MORE_ERRORS, (through_ideal, received, words)


@dataclass
class Talk:
    """One call in which the same recording was said each way."""

    name: str
    #: at 8 kHz
    far_end_heard: Floats
    #: at 24 kHz
    we_heard: Floats


async def talk(stack: Stack) -> list[Talk]:
    """Five calls at once, one for each recording."""
    callees = {name: f"+1415666{n:04d}" for n, name in enumerate(RECORDINGS)}
    for name, number in callees.items():
        wire = to_pcm16(resample(recording(name, WORDS_RATE), WORDS_RATE, WIRE))
        audio = base64.b64encode(mulaw.encode(wire)).decode()
        stack.sim.add_callee(number, {"kind": "wav", "audio": audio, "after": 0.5})

    async def one(line: Line, name: str) -> Talk:
        call = await line.place_call(callees[name], timeout=20.0, attach_stream="a-leg")
        ear = Ear(call)
        pcm = recording(name)
        await call.send_audio(pcm.astype("<i2").tobytes())
        await until(lambda: ear.seconds > len(pcm) / RATE + 0.7, "the far end has said all")
        await call.hang_up()
        played = mulaw.decode(stack.far_end_heard(call.sid)).astype(np.float64)
        return Talk(name, played, from_pcm(await ear.all()))

    async with Line(ALICE, allowed_callees=list(callees.values()), bus=stack.bus) as line:
        return await asyncio.gather(*(one(line, name) for name in RECORDINGS))


def aligned(name: str, samples: Floats, rate: int) -> npt.NDArray[np.int16]:
    """The part of ``samples`` that is the recording, from its first sample to its last."""
    sent = recording(name, WORDS_RATE).astype(np.float64)
    found = resample(samples, rate, WORDS_RATE)
    at = delay(sent, found)
    begin = int(np.floor(at))
    assert 0 <= begin <= len(found) - len(sent), (name, at, len(found), len(sent))
    return to_pcm16(moved(found[begin:], at - begin)[: len(sent)])


def written(sounds: list[npt.NDArray[np.int16]], directory: Path) -> list[Path]:
    directory.mkdir()
    paths = [directory / f"{n}.raw" for n in range(len(sounds))]
    for path, samples in zip(paths, sounds, strict=True):
        path.write_bytes(samples.astype("<i2").tobytes())
    return paths


async def recognised(sounds: list[npt.NDArray[np.int16]], directory: Path) -> list[str]:
    """The words of each, by a recogniser in a process of its own."""
    paths = written(sounds, directory)
    program = Path(__file__).parent / "recognise.py"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, program, *paths), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    words: list[str] = json.loads(said)
    return words
