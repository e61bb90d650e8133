"""Users in the simulation: real ``Line`` and ``Call`` on the real client, without its thread."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from trunkline.adapter.call import Call
from trunkline.adapter.client.call_audio import Lost
from trunkline.adapter.client.client import BusClient
from trunkline.adapter.client.media_link import MediaPlane
from trunkline.adapter.client.session import ClientSession
from trunkline.adapter.line import Line
from trunkline.bus import messages as m
from trunkline.bus.control import ControlClient
from trunkline.bus.errors import StackUnavailableError, TrunklineError

from .clock import Process, SimLoop
from .peers import HOSTS
from .plain_codec import codes_of, pcm_of

if TYPE_CHECKING:
    from .world import World

T = TypeVar("T")
Script = Callable[..., Coroutine[Any, Any, None]]

POLL_SECONDS = 0.1


@dataclass(eq=False)
class Talk:
    """One call as its user saw it. ``first``: the ordinal of its first stream, as the user's client
    was told. ``said``, ``heard``: mu-law codes in order."""

    call: str
    sid: str
    first: int
    said: bytearray = field(default_factory=bytearray)
    heard: list[bytes] = field(default_factory=list)
    digits: str = ""
    interrupted: bool = False
    lost: Lost = field(default_factory=Lost)
    reason: str | None = None
    answered_by: str | None = None
    over: bool = False
    ended_at: float = math.inf


class SimClient(BusClient):
    """A client process: its thread is a simulated process."""

    def __init__(self, world: World, process: Process, host: int = 0) -> None:
        self.world = world
        self.process = process
        self.address = HOSTS[host]
        self._stack = ""
        self.peer = process.name
        self.pid = 1
        self.users = 1
        self.sessions: dict[str, ClientSession] = {}
        self.sim: SimLoop = world.loop
        #: scripts that have not come to their end
        self.scripts = 0
        self.talks: list[Talk] = []
        #: dial request -> how it failed, and when that was told
        self.failures: dict[str, tuple[str, float]] = {}
        self.rng = random.Random(f"{world.seed} {process.name}")
        self.machines = random.Random(f"{world.seed} {process.name} machines")
        self.sim.in_process(process, self._begin)

    def _begin(self) -> None:
        self.media = MediaPlane(
            None,  # type: ignore[arg-type]  # the bus is the simulation's
            self.peer,
            None,
            self.sim.time,
        )
        self.control = ControlClient(
            None,  # type: ignore[arg-type]  # the bus is the simulation's
            self.address,
            peer=self.peer,
            hello=self._hello,
            beat=lambda: m.Beat(peer=self.peer, sessions=list(self.sessions)),
            on_event=self._event,
            on_welcome=self._welcomed,
            on_refused=self._refused,
            on_moved=lambda moved: self._follow_stack(moved.bus),
            clock=self.sim.time,
        )
        self.control.start()
        self._poll()

    def _poll(self) -> None:
        self.media.poll(self.sim.time())
        for session in list(self.sessions.values()):
            session.poll(self.sim.time())
        self.sim.call_later(POLL_SECONDS, self._poll)

    def _event(self, event: m.Event) -> None:
        if isinstance(event, m.DialFailed):
            self.failures.setdefault(event.request, (event.status, self.sim.time()))
        super()._event(event)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        return await work

    def post(self, work: Coroutine[Any, Any, T]) -> Any:
        return self.sim.create_task(work)

    async def release(self) -> None:
        """It lives as long as its process."""

    # ------------------------------------------------------------------ scripts

    def start(self, script: Script, *args: Any) -> None:
        self.scripts += 1
        self.sim.in_process(self.process, self.sim.create_task, self._follow(script, *args))

    async def _follow(self, script: Script, *args: Any) -> None:
        try:
            await script(*args)  # made only here, because the process may die before it gets here
        except (TrunklineError, TimeoutError) as error:
            self.world.say(f"{self.process}: {type(error).__name__}: {error}")
            self.world.counts[f"script: {type(error).__name__}"] += 1
        finally:
            self.scripts -= 1

    async def line(self, number: str, **fields: Any) -> Line:
        """An open line; what ``Line.open`` does without a thread."""
        line = Line(number, **fields)
        await self.control.wait_welcome(10.0)
        session = await self.open_session(line._info())
        line._client, line._session = self, session
        return line

    async def answer(self, number: str, callers: list[str] | None) -> None:
        """Wait for calls on a number, one after the other, until the world is calm."""
        line = await self.line(number, allowed_callers=callers)
        try:
            while not self.world.calm:
                try:
                    call = await line.wait_for_call(timeout=self.rng.uniform(1.0, 8.0))
                except TimeoutError as error:
                    if isinstance(error, TrunklineError):
                        raise
                    continue
                await self.talk(call)
        finally:
            await line.close()

    async def dial(self, number: str, to: list[str], modes: list[str], calls: int) -> None:
        """Place calls at once from one number."""
        line = await self.line(number, allowed_callees=to)
        try:
            await asyncio.gather(
                *(
                    self._place(line, self.rng.choice(to), self.rng.choice(modes))
                    for _ in range(calls)
                )
            )
        finally:
            await line.close()

    async def _place(self, line: Line, to: str, mode: str) -> None:
        await asyncio.sleep(self.rng.uniform(0.0, 3.0))
        timeout = self.rng.uniform(2.0, 10.0)
        kinds: dict[str, dict[str, Any]] = {
            "a-leg": {"attach_stream": "a-leg"},
            "b-leg": {"attach_stream": "b-leg"},
            "originate": {"attach_stream_to_self": False},
        }
        if mode == "a-leg" and self.world.detects:
            kinds[mode]["machine_detection"] = self.machines.choice(("Enable", "DetectMessageEnd"))
        placing = line.place_call(to, timeout=timeout, **kinds[mode])
        try:
            if self.rng.random() < 0.1:
                async with asyncio.timeout(self.rng.uniform(0.1, 2.0)):
                    call = await placing
            else:
                call = await placing
        except (TrunklineError, TimeoutError) as error:
            self.world.counts[f"place_call: {type(error).__name__}"] += 1
            self.world.say(f"{self.process}: place_call: {error}")
            return
        if mode == "originate":
            await asyncio.sleep(self.rng.uniform(0.2, 3.0))
            await call.hang_up()
        else:
            await self.talk(call)

    # ------------------------------------------------------------------ one call

    async def talk(self, call: Call) -> None:
        """Say something, listen, hang up or be hung up on."""
        talk = Talk(call._media.call, call.sid, call._media.info.first)
        self.talks.append(talk)
        self.world.counts["calls talked"] += 1
        self.world.say(f"{self.process}: talks on {call.sid}")
        listening = [
            self.sim.create_task(self._listen(call, talk)),
            self.sim.create_task(self._digits(call, talk)),
        ]
        try:
            await self._speak(call, talk)
            await asyncio.sleep(self.rng.uniform(0.0, 1.5))
            await call.hang_up()
        except StackUnavailableError:
            # Without an end of the script the call would last for as long as its far end likes.
            for task in listening:
                task.cancel()
            raise
        except TrunklineError as error:
            self.world.say(f"{self.process}: {call.sid}: {error}")
        for task in listening:
            await task
        talk.lost = call.lost
        talk.reason, talk.answered_by = call.ended_reason, call.answered_by
        talk.over, talk.ended_at = True, self.sim.time()

    async def _speak(self, call: Call, talk: Talk) -> None:
        for _ in range(self.rng.randint(1, 4)):
            if call.ending:
                return
            codes = self.rng.randbytes(self.rng.randint(100, 9000)).replace(b"\xff", b"\xfe")
            talk.said += codes
            saying = self.sim.create_task(call.send_audio(pcm_of(codes)))
            if self.rng.random() < 0.25:
                await asyncio.sleep(self.rng.uniform(0.0, 0.6))
                talk.interrupted = True
                if not call.ending:
                    self.world.spring("interrupt")
                    await call.interrupt()
            await saying
            await asyncio.sleep(self.rng.choice((0.0, 0.0, 0.05, 0.4)))

    async def _listen(self, call: Call, talk: Talk) -> None:
        while pcm := await call.recv_audio():
            talk.heard.append(codes_of(pcm))

    async def _digits(self, call: Call, talk: Talk) -> None:
        async for digit in call.dtmf:
            talk.digits += digit
