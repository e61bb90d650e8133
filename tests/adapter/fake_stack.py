"""A controller and codec workers of a few lines each, on real ZeroMQ sockets, told what to do.

They run on the test's own loop; the client under test runs in its thread. A ``FakeWorker`` plays
what it is given in real time (20 ms ticks) or all at once (``instant``), and keeps it in
``spoken``. Nothing is resampled: positions are counted in samples of three.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zmq

from trunkline.bus import messages as m
from trunkline.bus.sockets import bind_router
from trunkline.bus.testing import Context, FakeController, until
from trunkline.codec_worker import mulaw

_to_worker = msgspec.msgpack.Decoder(m.ToWorker)
_encode = msgspec.msgpack.Encoder().encode

ACCOUNT = "AC" + "1" * 32
OURS = "+14155550100"
THEIRS = "+14155550101"
PUBLIC_URL = "http://me:pa55@127.0.0.1:1"


class Controller(FakeController):
    """Gives every adapter its session, its number and its calls."""

    def __init__(self, context: Context, endpoint: str) -> None:
        super().__init__(context, endpoint, account=ACCOUNT, public_url=PUBLIC_URL)

    def usual(self, body: m.RequestBody) -> m.ReplyBody:
        if isinstance(body, m.OpenSession):
            return m.SessionOpened(
                session=body.info.session,
                number=OURS if body.info.number == "any" else body.info.number,
                number_sid="PN" + "2" * 32,
                account=self.welcome["account"],
                public_url=PUBLIC_URL,
            )
        if isinstance(body, m.Arm):
            return m.Armed(session=body.session)
        if isinstance(body, m.Dial):
            return m.Dialled(call=body.request[::-1], sid="CA" + body.request)
        if isinstance(body, m.CloseSession):
            return m.SessionClosed(session=body.session)
        return super().usual(body)


@dataclass
class FakeCall:
    generation: int
    identity: bytes | None = None
    resume: m.Resume | None = None
    #: the pieces that the client has asked for since its Resume
    gathers: list[int] = field(default_factory=list)
    spoken: dict[int, bytes] = field(default_factory=dict)
    #: the generations under which something was spoken
    spoken_under: set[int] = field(default_factory=set)
    played: int = 0
    heard: int = 0
    marks: list[m.SetMark] = field(default_factory=list)
    #: positions of all marks that were set, those that were reached among them
    marks_set: list[int] = field(default_factory=list)
    interrupts: list[m.Interrupt] = field(default_factory=list)
    opened: bool = False


class FakeWorker:
    """One codec worker. ``open`` makes it the active one of a call."""

    def __init__(self, context: Context, name: str, endpoint: str, instant: bool) -> None:
        self.calls: dict[str, FakeCall] = {}
        self.attached: dict[str, bytes] = {}
        self.instant = instant
        self._socket, real = bind_router(context, endpoint, self._receive)
        self.ref = m.WorkerRef(id=name, endpoint=real)
        self._ticker = asyncio.get_running_loop().create_task(self._tick())

    async def stop(self) -> None:
        self._ticker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._ticker
        self._socket.close()

    def open(self, call: str, generation: int, out_next: int | None = 0) -> FakeCall:
        known = self.calls.get(call)
        if known is None:
            known = self.calls[call] = FakeCall(generation)
        known.generation, known.resume, known.opened = generation, None, True
        known.played = out_next or 0
        self._out_next = out_next
        if call in self.attached:
            known.identity = self.attached[call]
            self._opened(call)
        return known

    def hear(self, call: str, pcm: bytes, *, stream_end: int | None = None) -> None:
        state = self.calls[call]
        stop = state.heard + len(pcm) // 6
        sound = m.Sound(
            call,
            state.generation,
            state.heard,
            state.generation >> 16,
            stream_end or stop,
            0,
            pcm,
            mulaw.encode(np.frombuffer(pcm, "<i2")[::3]).tobytes(),
        )
        state.heard = stop
        self.send(call, m.Heard([sound]))

    def send(self, call: str, message: Any) -> None:
        self._socket.send(_encode(message), self.calls[call].identity)

    async def resumed(self, call: str) -> FakeCall:
        await until(lambda: call in self.calls and self.calls[call].resume is not None)
        return self.calls[call]

    def _opened(self, call: str) -> None:
        state = self.calls[call]
        self.send(call, m.Opened(call, state.generation, state.generation >> 16, self._out_next))

    def _receive(self, identity: bytes, payload: bytes) -> None:
        message = _to_worker.decode(payload)
        if isinstance(message, m.Attach):
            self.attached[message.call] = identity
            state = self.calls.get(message.call)
            if state is not None and state.opened:
                state.identity = identity
                self._opened(message.call)
        elif isinstance(message, m.Detach):
            self.attached.pop(message.call, None)
        elif not isinstance(message, m.MediaHello):
            state = self.calls[message.call]
            if message.generation == state.generation:
                self._of_call(state, message)

    def _of_call(self, state: FakeCall, message: Any) -> None:
        if isinstance(message, m.Resume):
            state.resume = message
            state.gathers = []
            state.heard = message.call_position
            state.played = max(state.played, message.acknowledged, message.floor)
        elif isinstance(message, m.Speak):
            state.spoken_under.add(message.generation)
            for i in range(len(message.pcm) // 6):
                assert message.position + i not in state.spoken or state.generation & 0xFFFF
                state.spoken[message.position + i] = message.pcm[6 * i : 6 * i + 6]
            if self.instant:
                self._play(message.call, state, 1 << 40)
        elif isinstance(message, m.Gather):
            state.gathers.append(message.samples)
        elif isinstance(message, m.Interrupt):
            state.interrupts.append(message)
            sent_to = state.played
            state.spoken = {p: s for p, s in state.spoken.items() if p < sent_to}
            state.played = message.resume_at
            done = m.Interrupted(message.call, state.generation, message.serial, sent_to)
            self.send(message.call, done)
        elif isinstance(message, m.SetMark):
            state.marks.append(message)
            state.marks_set.append(message.position)
            self._reach_marks(message.call, state)

    def _play(self, call: str, state: FakeCall, most: int) -> None:
        begin = state.played
        while state.played in state.spoken and state.played - begin < most:
            state.played += 1
        if state.played > begin:
            idle = (state.played) not in state.spoken
            played = m.AcknowledgedTo(call, state.generation, state.played, idle)
            self.send(call, m.Heard([], [played]))
            self._reach_marks(call, state)

    def _reach_marks(self, call: str, state: FakeCall) -> None:
        for mark in [k for k in state.marks if k.position <= state.played]:
            state.marks.remove(mark)
            self.send(call, m.MarkPlayed(call, state.generation, mark.name, True))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            for call, state in self.calls.items():
                if state.resume is not None and not self.instant:
                    self._play(call, state, 160)


class FakeStack:
    def __init__(self, directory: Path, instant: bool = True) -> None:
        self.bus = f"ipc://{directory}"
        self.context: Context = zmq.Context()
        self.controller = Controller(self.context, f"ipc://{directory}/control")
        self.workers = [
            FakeWorker(self.context, name, f"ipc://{directory}/{name}", instant)
            for name in ("w1", "w2")
        ]
        self.controller.answers[m.HangUp] = self.hang_up

    def hang_up(self, body: m.HangUp) -> m.Done:
        """The usual answer to HangUp: the call is over soon after."""
        asyncio.get_running_loop().call_soon(self._end, body.call, "hang_up", False)
        return m.Done()

    @property
    def placement(self) -> m.Placement:
        return m.Placement(epoch=1, n=1, primary=self.workers[0].ref, standby=self.workers[1].ref)

    def start_call(
        self,
        session: str,
        *,
        dial: m.Dial | None = None,
        caller: str = THEIRS,
        open_at: int | None = 0,
        reported: str | None = None,
        age: float | None = None,
        taken: bool = True,
    ) -> m.CallInfo:
        """The call's first stream is up: tell the adapter, open it at the primary. ``reported``:
        what the carrier made of the number that a dial comes from. ``taken``: Twilio has told the
        SID of the leg that was dialled."""
        call = secrets.token_hex(16) if dial is None else dial.request[::-1]
        on_dialled_leg = dial is not None and dial.mode != "b-leg"
        info = m.CallInfo(
            call=call,
            session=session,
            sid="CA" + (dial.request if dial and on_dialled_leg else secrets.token_hex(16)),
            dialled_sid="CA" + dial.request if dial and taken else None,
            direction="inbound" if dial is None else "outbound",
            caller=caller if dial is None else (reported or OURS),
            caller_rewritten=reported is not None,
            callee=OURS if dial is None else dial.to,
            secret=secrets.token_hex(16),
            ordinal=1,
            dial_request=None if dial is None else dial.request,
            mode=None if dial is None else dial.mode,
            placement=self.placement,
            age=age,
        )
        self.controller.tell(m.CallStarted(info=info))
        if open_at is not None:
            self.workers[open_at].open(call, m.first_generation(1))
        return info

    def end_call(
        self, info: m.CallInfo, reason: m.EndedReason = "stop", by_far_end: bool = False
    ) -> None:
        """The stream is over and so is the call."""
        self._end(info.call, reason, by_far_end)

    def _end(self, call: str, reason: m.EndedReason, by_far_end: bool) -> None:
        for worker in self.workers:
            state = worker.calls.get(call)
            if state is not None and state.identity is not None:
                over = m.StreamOver(call, state.generation, state.generation >> 16, "stop")
                worker.send(call, over)
        self.controller.tell(m.CallEnded(call=call, reason=reason, by_far_end=by_far_end))

    async def close(self) -> None:
        self.controller.stop()
        for worker in self.workers:
            await worker.stop()
        self.context.term()


@contextlib.asynccontextmanager
async def fake_stack(directory: Path, instant: bool = True) -> AsyncIterator[FakeStack]:
    stack = FakeStack(directory, instant)
    try:
        yield stack
    finally:
        await stack.close()
