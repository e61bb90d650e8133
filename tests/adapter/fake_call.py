"""What ``Heard`` needs of a call: sound that a test puts in, and an end."""

from __future__ import annotations

from trunkline.adapter.client.thread_bridge import SoundBox


class FakeCall:
    def __init__(self, sound: bytes = b"") -> None:
        self.sound = SoundBox(10**9)
        self.ended_reason: str | None = None
        self.sound.put(sound)

    def _state(self) -> str:
        return "its stream is up"

    def end(self) -> None:
        self.ended_reason = "stop"
        self.sound.close()
