"""What may be said: samples as bytes, and nothing that would be heard as noise."""

from __future__ import annotations

import array
import io
import wave

import numpy as np
import pytest
from fake_stack import FakeStack
from later import scenario
from phone import adapter, answered, on_the_line

from trunkline.adapter.pcm16 import pcm16

SAMPLES = [0, 1, -1, 32767, -32768, 258]
PCM = b"".join(sample.to_bytes(2, "little", signed=True) for sample in SAMPLES)


def wav() -> bytes:
    with io.BytesIO() as file:
        with wave.open(file, "wb") as written:
            written.setnchannels(1)
            written.setsampwidth(2)
            written.setframerate(24_000)
            written.writeframes(PCM)
        return file.getvalue()


@pytest.mark.parametrize(
    "given",
    [
        PCM,
        bytearray(PCM),
        memoryview(PCM),
        memoryview(array.array("h", SAMPLES)),
        memoryview(PCM).cast("b"),
        memoryview(PCM).cast("H"),
        memoryview(PCM).cast("@h"),
        memoryview(np.array(SAMPLES, "<i2")),
        memoryview(np.array([SAMPLES], "<i2")),
        memoryview(np.repeat(np.array(SAMPLES, "<i2"), 2))[::2],
    ],
    ids=lambda given: type(given).__name__,
)
def test_samples_are_taken_as_they_are(given: bytes | bytearray | memoryview) -> None:
    assert pcm16(given) == PCM


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (wav(), r"bytes of a WAV file, header included.*wave module"),
        (bytearray(wav()), r"bytes of a WAV file"),
        (b"RIFF\xff\xff\xff\xffWAVE", r"bytes of a WAV file"),
        (b"RF64\xff\xff\xff\xffWAVE", r"bytes of a WAV file"),
        (b"RIFX\0\0\0\x24WAVE", r"bytes of a WAV file"),
        (
            memoryview(np.zeros(6, "<f4")),
            r"memoryview of format 'f' holds neither bytes nor 16-bit",
        ),
        (memoryview(np.zeros(6, "<f8")), r"memoryview of format 'd'.*astype\('<i2'\)"),
        (memoryview(array.array("i", SAMPLES)), r"memoryview of format 'i'"),
        (memoryview(np.zeros(6, ">i2")), r"memoryview of format '>h'.*little-endian"),
        (memoryview(np.zeros((6, 2), "<i2")), r"memoryview of shape \(6, 2\).*mono"),
        (b"123", r"3 bytes are not valid PCM16"),
        ("no bytes", r"takes bytes of PCM16, not str: call\.say\(path\)"),
        (np.zeros(6, "<i2"), r"takes bytes of PCM16, not ndarray: samples\.astype\('<i2'\)"),
        (None, r"takes bytes of PCM16, not NoneType"),
    ],
)
def test_what_is_none_is_refused_by_name(given: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pcm16(given)


@pytest.mark.parametrize("given", [b"RIFF", b"RIFF1234WAV2", b"1234RIFF1234WAVE"])
def test_what_only_looks_like_a_wav_file_is_sound(given: bytes) -> None:
    assert pcm16(given) == given


async def test_a_line_sends_nothing_of_a_wav_file(stack: FakeStack) -> None:
    async with on_the_line(stack) as (call, _, state):
        with pytest.raises(ValueError, match="WAV file"):
            await call.send_audio(wav())
        with pytest.raises(ValueError, match="format 'f'"):
            await call.send_audio(memoryview(np.zeros(480, "<f4")))  # type: ignore[arg-type]  # what a user may do
        assert await call.send_audio(b"") == 0
        assert not state.spoken
        assert await call.send_audio(PCM * 80) == 480
        assert b"".join(state.spoken[p] for p in sorted(state.spoken)) == PCM * 80


async def test_the_scenario_adapter_sends_nothing_of_a_wav_file(stack: FakeStack) -> None:
    async with adapter(stack) as agent:
        _, info = await answered(stack, agent)
        with pytest.raises(ValueError, match="WAV file"):
            await agent.send_audio(scenario.voice.AudioChunk(wav()))
        assert not stack.workers[0].calls[info.call].spoken
