"""A greeting as a turn of the far end in the scenario that is running.

langwatch-scenario records a turn in ``VoiceAgentAdapter.call()``: its recorder writes the segment
and the events, and tells the callbacks; the executor adds the result of ``call()`` as the agent's
message. A greeting is heard while ``place_call`` waits, outside any turn, so this module takes the
same steps with the same recorder. So the judge and the simulated user find the greeting where an
``agent()`` step would have put it.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from scenario.cache import context_scenario
from scenario.voice import AudioChunk, VoiceAgentAdapter, create_audio_message


def running_scenario() -> Any:
    """The executor of the run that this code is a step of, or None."""
    executor = context_scenario.get(None)
    # The context may still name a run that is over, if it was awaited in this task.
    return None if getattr(executor, "_finished_emitted", False) else executor


class GreetingTurn:
    """Records a greeting. The methods do nothing if no scenario with ``adapter`` is running: the
    greeting of a call that was placed before ``scenario.run`` is on the adapter alone."""

    def __init__(self, adapter: VoiceAgentAdapter) -> None:
        self._adapter = adapter
        executor = running_scenario()
        agents = [] if executor is None else executor.agents
        self._index = next((n for n, agent in enumerate(agents) if agent is adapter), None)
        self._executor: Any = executor
        self._recorder: Any = None
        if self._index is not None:
            # It is private to scenario, so nothing else may depend on finding it.
            from scenario.voice.adapter import _AdapterRecorder

            turn: Any = SimpleNamespace(scenario_state=executor._state)
            self._recorder = _AdapterRecorder(turn)

    def began(self) -> None:
        """The first words came."""
        if self._recorder is not None:
            self._recorder.mark_agent_start()

    async def ended(self, pcm: bytes) -> None:
        """Transcribe ``pcm`` as a turn is, record it, and add its message."""
        if self._recorder is None:
            return
        self._recorder.mark_agent_end()
        chunk = await self._adapter._ensure_transcript(AudioChunk(data=pcm))
        self._recorder.record_agent(chunk)
        message = create_audio_message(chunk, role="assistant")
        self._executor.add_message(message, from_agent_idx=self._index)
