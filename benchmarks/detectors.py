"""Voice activity detectors behind one face: 20 ms of the line in, what would be handed out, out.

:class:`Ours` is the adapter's own gate. The others say "speech" or not for each of their frames;
:class:`Framed` makes a gate of that, with the same pre-roll and hangover as ours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.adapter.turns.gate_options import HANGOVER, PRE_ROLL
from trunkline.adapter.turns.spectrum import RATE
from trunkline.adapter.turns.speech_gate import SpeechGate

#: Samples of one push: 20 ms at 24 kHz.
STEP = 480
#: Seconds without speech that end a turn (scenario's response_tail_silence).
TAIL = 0.6

Samples = npt.NDArray[np.int16]


class Detector(ABC):
    """One call's detector. ``spans``: (begin, end, when) of what was handed out so far, in samples;
    ``when``: how many it had heard when it first took what begins there for speech (from then on
    a turn waits for its decision)."""

    name: str

    def __init__(self) -> None:
        self.spans: list[list[int]] = []

    @abstractmethod
    def push(self, pcm: bytes) -> None:
        """20 ms of PCM16 at 24 kHz."""

    def _hand_out(self, begin: int, end: int, now: int) -> None:
        if self.spans and begin <= self.spans[-1][1]:
            self.spans[-1][1] = max(self.spans[-1][1], end)
        else:
            self.spans.append([begin, end, now])


class Ours(Detector):
    """The energy gate of ``adapter/turns``, its answers ended as the adapter ends them."""

    name = "energy gate (ours)"

    def __init__(self) -> None:
        super().__init__()
        self._gate = SpeechGate()
        self._heard = 0

    def push(self, pcm: bytes) -> None:
        gate = self._gate
        self._heard += len(pcm) // 2
        gate.push(pcm)
        out = gate.take()
        if out:
            end = gate._held_from
            self._hand_out(end - len(out) // 2, end, self._heard)
        elif gate.answering and gate.silence >= TAIL and not gate.undecided:
            gate.end_answer()


class Framed(Detector):
    """A detector that judges frames of ``frame`` samples at 24 kHz; ``need`` of the last ``within``
    frames open the gate."""

    frame: int
    need: int
    within: int

    def __init__(self) -> None:
        super().__init__()
        self._left = np.zeros(0, np.int16)
        self._count = 0
        self._recent: deque[bool] = deque([False] * self.within, self.within)
        self._last = -(10**9)
        self._open = False

    @abstractmethod
    def speech(self, frame: Samples) -> bool:
        """Whether the frame is speech."""

    def push(self, pcm: bytes) -> None:
        fresh = np.concatenate([self._left, np.frombuffer(pcm, "<i2")])
        while len(fresh) >= self.frame:
            frame, fresh = fresh[: self.frame], fresh[self.frame :]
            self._count += 1
            self._recent.append(self.speech(frame))
            self._judge()
        self._left = fresh

    def _judge(self) -> None:
        now = self._count * self.frame
        if sum(self._recent) >= self.need:
            if not self._open:
                first = now - (self.within - list(self._recent).index(True)) * self.frame
                self._hand_out(max(0, first - int(PRE_ROLL * RATE)), now, first + self.frame)
            self._open = True
            if self._recent[-1]:
                self._last = now
        if self._open:
            until = self._last + int(HANGOVER * RATE)
            self._hand_out(self.spans[-1][1], min(now, until), now)
            self._open = now < until


class WebRtc(Framed):
    """py-webrtcvad at 8 kHz, mode 3 (as scenario's own fallback detector uses it)."""

    name = "webrtcvad, mode 3"
    frame, need, within = STEP, 3, 5

    def __init__(self) -> None:
        super().__init__()
        import webrtcvad

        self._vad = webrtcvad.Vad(3)

    def speech(self, frame: Samples) -> bool:
        # The line has nothing above 4 kHz: every third sample is its 8 kHz.
        return bool(self._vad.is_speech(np.ascontiguousarray(frame[::3]).tobytes(), 8000))


class Silero(Framed):
    """Silero VAD 6 by onnxruntime, at 8 kHz: 32 ms a frame, threshold 0.5."""

    name = "silero, onnxruntime"
    frame, need, within = 768, 2, 3

    def __init__(self) -> None:
        super().__init__()
        self._session = _silero_session()
        self._state = np.zeros((2, 1, 128), np.float32)
        self._context = np.zeros((1, 32), np.float32)

    def speech(self, frame: Samples) -> bool:
        samples = (frame[::3].astype(np.float32) / 32768.0)[None, :]
        sound = np.concatenate([self._context, samples], axis=1)
        self._context = samples[:, -32:]
        given = {"input": sound, "state": self._state, "sr": np.array(8000, np.int64)}
        probability, self._state = self._session.run(None, given)
        return bool(probability[0, 0] > 0.5)


_session: Any = None


def _silero_session() -> Any:
    """The model of the silero-vad package (its data alone: the package itself wants torch)."""
    global _session
    if _session is None:
        import onnxruntime

        found = find_spec("silero_vad")
        assert found is not None and found.origin is not None
        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = options.intra_op_num_threads = 1
        options.log_severity_level = 3
        model = Path(found.origin).parent / "data" / "silero_vad.onnx"
        _session = onnxruntime.InferenceSession(
            str(model), sess_options=options, providers=["CPUExecutionProvider"]
        )
    return _session


def available() -> list[type[Detector]]:
    """Ours, and those whose packages are installed."""
    found: list[type[Detector]] = [Ours]
    if find_spec("webrtcvad") is not None:
        found.append(WebRtc)
    if find_spec("onnxruntime") is not None and find_spec("silero_vad") is not None:
        found.append(Silero)
    return found
