"""Benchmark client: runs of scenario.run, several at once or one after the other.

Each run dials a callee, asks it a question of a second, hears an answer of little more, and is
done. ``adapter`` says whose adapter: trunkline's (on the stack at TRUNKLINE_BUS), or
langwatch-scenario's own with a port of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import warnings
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ["SCENARIO_BROWSER"] = "never"
os.environ["SCENARIO_DISABLE_SIMULATION_REPORT_INFO"] = "1"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its imports' own
    import scenario

from benchmarks.client_adapter import adapters, listening
from benchmarks.protocol import read_order, say, wait_for


async def one_run(agent: Any, callee: str, question: str) -> dict[str, float]:
    """One scenario; how long it took, how long its agent's turn was, whether it succeeded."""

    async def dial(state: Any) -> None:
        if isinstance(agent, scenario.voice.TwilioAgentAdapter):
            await listening(agent.http_port)
        await agent.place_call(callee, timeout=60.0, attach_stream="a-leg")

    began = time.monotonic()
    result = await scenario.run(
        name="parallel",
        description="one question, one answer",
        agents=[agent],
        script=[dial, scenario.audio(question), scenario.agent(), scenario.succeed("answered")],
        verbose=False,
    )
    assert result.audio is not None
    turns = [s for s in result.audio.segments if s.speaker == "agent"]
    return {
        "seconds": time.monotonic() - began,
        "turn_seconds": sum(s.end_time - s.start_time for s in turns),
        "answer_seconds": sum(len(s.audio) for s in turns) / 48_000,
        "success": float(result.success),
    }


async def main(order: dict[str, Any], _: bytes) -> None:
    # Without a key there is no speech to text; what it says about that is not measured.
    logging.getLogger("scenario.voice").setLevel(logging.ERROR)
    agents = adapters(order)
    say(ready=len(agents))
    await wait_for("go")
    began = time.monotonic()
    dials = zip(agents, order["callees"], strict=True)
    runs = [one_run(agent, callee, order["speech"]) for agent, callee in dials]
    done = await asyncio.gather(*runs) if order["parallel"] else [await run for run in runs]
    say(done=True, took=time.monotonic() - began, runs=done)


if __name__ == "__main__":
    asyncio.run(main(*read_order()))
