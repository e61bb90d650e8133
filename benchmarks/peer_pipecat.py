"""Benchmark peer: a pipecat server that echoes every call, as its documents have a Twilio bot.

FastAPIWebsocketTransport with TwilioFrameSerializer, 8 kHz through the whole pipeline as in
pipecat's own Twilio example, so that nothing is resampled. What the example adds (speech to text,
a language model, metrics, tracking of turns) is left out or switched off: only the carrying of
sound is measured. One process serves all calls under uvicorn with uvloop.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket
from loguru import logger
from pipecat.frames.frames import Frame, InputAudioRawFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

from benchmarks.protocol import read_order, say, wait_for

app = FastAPI()


class Echo(FrameProcessor):  # type: ignore[misc]  # the package is not there when mypy runs
    """Sends back what it hears."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            frame = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
        await self.push_frame(frame, direction)


@app.websocket("/ws")
async def call(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.receive_text()  # connected
    start = json.loads(await websocket.receive_text())["start"]
    serializer = TwilioFrameSerializer(
        start["streamSid"],
        start["callSid"],
        params=TwilioFrameSerializer.InputParams(auto_hang_up=False),
    )
    transport = FastAPIWebsocketTransport(
        websocket,
        FastAPIWebsocketParams(
            audio_in_enabled=True, audio_out_enabled=True, serializer=serializer
        ),
    )
    worker = PipelineWorker(
        Pipeline([transport.input(), Echo(), transport.output()]),
        params=PipelineParams(audio_in_sample_rate=8000, audio_out_sample_rate=8000),
        idle_timeout_secs=None,
        enable_rtvi=False,
        enable_turn_tracking=False,
    )

    @transport.event_handler("on_client_disconnected")  # type: ignore[untyped-decorator]  # pipecat's
    async def gone(*_: Any) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


async def main(order: dict[str, Any], _: bytes) -> None:
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    config = uvicorn.Config(app, port=order["ports"][0], log_level="warning")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # the package has no event for it
        await asyncio.sleep(0.01)
    say(ready=True)
    await wait_for("go")
    await wait_for("end")
    say(heard=None)
    server.should_exit = True
    await serving


if __name__ == "__main__":
    # uvicorn's own choice of a loop is passed over by a server that is awaited.
    import uvloop

    uvloop.run(main(*read_order()))
