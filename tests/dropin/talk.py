"""Scenes for the tests of this folder: somebody calls, clips of speech, what the carrier heard."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from trunkline.carrier_sim import mulaw
from trunkline.carrier_sim.client import SimClient
from trunkline.carrier_sim.wav import SPEECH_DIR

if TYPE_CHECKING:
    from trunkline import TwilioAgentAdapter

STRANGER: Final = "+14155550000"
RATE: Final = 16_000


async def armed(agent: TwilioAgentAdapter, sim: SimClient) -> asyncio.Task[None]:
    """``wait_for_call`` under way, with the number's calls coming to us."""
    number = agent.phone_number
    before = sim.numbers()[number]["voice_url"]
    waiting = asyncio.create_task(agent.wait_for_call(timeout=20))
    while not waiting.done():  # the carrier is another process
        if sim.numbers()[number]["voice_url"] != before:
            break
        await asyncio.sleep(0.01)
    return waiting


async def called(
    agent: TwilioAgentAdapter, sim: SimClient, bot: str | dict[str, object]
) -> dict[str, Any]:
    """A bot calls the adapter's number, which answers; the carrier's call."""
    waiting = await armed(agent, sim)
    call = sim.place_call(STRANGER, agent.phone_number, bot)
    await waiting
    return call


def clip(
    path: Path, seconds: float, name: str = "austen-0880", skip: float = 0.35, hiss: float = 0.0
) -> Path:
    """A WAV at ``path`` with so much of a shipped recording, and ``hiss`` seconds of line noise
    (RMS 100) behind it."""
    with wave.open(str(SPEECH_DIR / f"{name}.wav")) as file:
        assert file.getframerate() == RATE
        file.setpos(round(skip * RATE))
        frames = file.readframes(round(seconds * RATE))
    noise = np.random.default_rng(1).normal(0.0, 100.0, round(hiss * RATE))
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(frames + noise.astype("<i2").tobytes())
    return path


def spoken(ulaw: bytes, quiet: float = 300.0) -> list[tuple[float, float]]:
    """(begin, end) in seconds of each stretch of sound, pauses up to 0.4 s within it."""
    pcm: npt.NDArray[np.int16] = np.asarray(mulaw.decode(ulaw))
    frames = pcm[: len(pcm) // 160 * 160].reshape(-1, 160).astype(np.float64)
    loud = np.nonzero(np.sqrt((frames**2).mean(axis=1)) > quiet)[0]
    found: list[tuple[float, float]] = []
    for n in loud:
        begin, end = n * 0.02, (n + 1) * 0.02
        if found and begin - found[-1][1] < 0.4:
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return found


def assert_ended(bus: str) -> None:
    """The stack at this address was a pytest run's own, and nothing of it is left."""
    directory = Path(bus.removeprefix("ipc://")).parent
    assert directory.name.startswith("trunkline-run-")
    assert not directory.exists(), "the stack was left behind"
