"""Answering machine detection: who has answered, from the far end's sound, as Twilio tells it.

No I/O and no clock: ``hear`` takes one frame of 20 ms after the other from the answer on. It hears
the far end's words without what their line does to them, so a far end gets the same answer on every
line. The rules and their times are Twilio's (package twilio, call: machine_detection and its
thresholds; TD voice/answering-machine-detection and its FAQ):

- Nobody says anything for ``silence`` seconds: *unknown*.
- Speech of ``speech`` seconds at most, and then ``speech_end`` seconds of silence: *human*.
- Longer speech, or a beep: a machine. With ``Enable`` that is *machine_start*, at once. With
  ``DetectMessageEnd`` the end of the greeting is awaited: *machine_end_beep* once a beep is over,
  *machine_end_silence* after ``speech_end`` seconds of silence.
- A tone of 1100 or 2100 Hz for a second: *fax*.
- No decision within ``timeout`` seconds: *unknown*.

A bot that names its ``answered_by`` gets that instead, at the same moment. Nothing else leads to
*machine_end_other*.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
import numpy as np

from .mulaw import FRAME_BYTES, FRAME_SECONDS, RATE, SILENCE, decode, is_quiet

AnsweredBy = Literal[
    "human",
    "machine_start",
    "machine_end_beep",
    "machine_end_silence",
    "machine_end_other",
    "fax",
    "unknown",
]

#: Seconds that a tone has to last: to be a beep, and to be a fax.
_BEEP: Final = 0.1
_FAX: Final = 1.0
_FAX_HZ: Final = (1100.0, 2100.0)
#: A frame is a tone if at least this share of its energy lies at one frequency. A key's sound is
#: none, because its two tones share the energy.
_PURE: Final = 0.9
_WINDOW: Final = np.hanning(FRAME_BYTES)


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks of the detection. Times are in seconds."""

    mode: Literal["Enable", "DetectMessageEnd"]
    timeout: float = 30.0
    speech: float = 2.4
    speech_end: float = 1.2
    silence: float = 5.0
    #: In the background, while the TwiML runs already.
    is_async: bool = False
    callback: str = ""
    callback_method: str = "POST"


class Detector:
    """One call's detection, until it has decided."""

    def __init__(self, asked: Detection, answered_by: AnsweredBy | None = None) -> None:
        """``answered_by``: the answer, where the bot names one."""
        self._asked = asked
        self._given = answered_by
        self._frames = 0
        #: Frames from the first speech on to the end of the last, and of silence since then.
        self._speech = 0
        self._quiet = 0
        self._is_machine = False
        #: Frames that the present tone has lasted, and its frequency.
        self._tone = 0
        self._hz = 0.0

    @property
    def milliseconds(self) -> int:
        """How long it has listened."""
        return round(self._frames * FRAME_SECONDS * 1000)

    def hear(self, frame: bytes) -> AnsweredBy | None:
        """The next 20 ms from the far end. The answer comes once; do not go on after it."""
        self._frames += 1
        found = self._decide(frame)
        return found if found is None or self._given is None else self._given

    def _decide(self, frame: bytes) -> AnsweredBy | None:
        asked = self._asked
        beeped = self._listen(frame)
        if self._tone * FRAME_SECONDS >= _FAX and any(abs(self._hz - hz) < 60 for hz in _FAX_HZ):
            return "fax"
        if beeped or self._speech * FRAME_SECONDS > asked.speech:
            self._is_machine = True
        wants_end = asked.mode == "DetectMessageEnd"
        if self._is_machine and not wants_end:
            return "machine_start"
        if beeped:
            return "machine_end_beep"
        if self._speech and not self._tone and self._quiet * FRAME_SECONDS >= asked.speech_end:
            return "machine_end_silence" if self._is_machine else "human"
        if not self._speech and self._quiet * FRAME_SECONDS >= asked.silence:
            return "unknown"
        return "unknown" if self._frames * FRAME_SECONDS >= asked.timeout else None

    def _listen(self, frame: bytes) -> bool:
        """Count this frame. True: a beep has just ended."""
        if frame is SILENCE or is_quiet(frame):
            self._quiet += 1
            return self._end_of_tone()
        self._speech += 1 + (self._quiet if self._speech else 0)
        self._quiet = 0
        hz = _frequency(frame)
        if hz is None:
            return self._end_of_tone()
        ended = abs(hz - self._hz) > 100 and self._end_of_tone()
        self._hz = hz
        self._tone += 1
        return ended

    def _end_of_tone(self) -> bool:
        ended = self._tone * FRAME_SECONDS >= _BEEP - FRAME_SECONDS / 2
        self._tone = 0
        return ended


def _frequency(frame: bytes) -> float | None:
    """The frequency of a frame that is one pure tone."""
    power = np.abs(np.fft.rfft(decode(frame) * _WINDOW)) ** 2
    peak = int(power.argmax())
    total = float(power.sum())
    near = float(power[max(0, peak - 2) : peak + 3].sum())
    return peak * RATE / FRAME_BYTES if peak and near > _PURE * total else None
