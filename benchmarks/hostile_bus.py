"""The rogue of the hostile suite: a process of the same user that says what no peer would.

It knows what stands in a log or in the status, namely the ids of gateways, workers and sessions,
and no secret. It is a generator of outcomes, one for each message that it has sent:

- ``refused``: an answer says that;
- ``dropped``: nothing was answered. Whether it was dropped shows in the metrics, and in the honest
  calls;
- ``answered``: it got what it asked for, which no message here may;
- ``held``, ``told to say Hello``: any peer may send that.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import zmq

from trunkline.bus import messages as m
from trunkline.bus.endpoints import listened_at

#: Milliseconds that an answer may take.
_ANSWER_WITHIN: Final = 50
#: The largest integer that msgpack has.
_HUGE: Final = 2**64 - 1
#: Calls that nobody has, attached to in each round.
_ATTACHES: Final = 200


def _bad_text(message: msgspec.Struct) -> bytes:
    """The message with its "@@@@" as bytes that are no UTF-8."""
    return msgspec.msgpack.encode(message).replace(b"@@@@", b"\xff\xfe\xfd\xfc")


def to_controller(peers: dict[str, list[str]], rng: random.Random) -> Iterator[bytes]:
    """One round of messages for the controller's socket."""
    own = f"rogue-{rng.randrange(1_000)}"
    yield b""
    yield b"\xc1" + rng.randbytes(40)
    yield b"\x91" * 100_000
    yield _bad_text(m.Beat(peer="@@@@"))
    encode = msgspec.msgpack.encode
    messages: list[msgspec.Struct] = [
        m.Hello(role="gateway", peer=own, pid=1, version=(99, 0)),
        m.Hello(role="codec_worker", peer=own, pid=1, account="AC" + "0" * 32),
        m.Hello(role="gateway", peer="x" * 100_000 + "\n2026 INFO forged", pid=_HUGE),
        m.Beat(peer=own, calls=[m.CallStats(call="c", generation=_HUGE, frames_in=_HUGE)]),
        m.Request(peer=own, id=_HUGE, ttl=float("nan"), body=m.Arm(session="s" * 50_000)),
    ]
    for session in peers["sessions"]:
        closing = m.CloseSession(session=session)
        messages.append(m.Request(peer=own, id=rng.randrange(1 << 31), ttl=1.0, body=closing))
    for name in peers["gateways"] + peers["codec_workers"]:
        role: m.Role = "gateway" if name in peers["gateways"] else "codec_worker"
        messages += [
            m.Hello(role=role, peer=name, pid=1, connection=1_000_000),
            m.Goodbye(peer=name),
            m.StreamClosed(call="c", ordinal=_HUGE, reason="stop", gateway=name),
            m.CallMoved(call="c", generation=_HUGE, worker=name, gateway=name),
        ]
    yield from (encode(message) for message in messages)


def to_worker(peers: dict[str, list[str]], rng: random.Random) -> Iterator[bytes]:
    """One round of messages for a worker's media socket."""
    yield b"\xc1" + rng.randbytes(40)
    yield b"\x91" * 100_000
    yield _bad_text(m.Detach("@@@@"))
    encode = msgspec.msgpack.encode
    call = rng.randbytes(16).hex()
    frame = m.InFrame(call, _HUGE, _HUGE, _HUGE, bytes(160))
    messages: list[Any] = [
        m.MediaHello("gateway", "@" * 100_000),
        m.OpenCall(call, _HUGE, _HUGE, "s", _HUGE, _HUGE, [frame], [], _HUGE, {}),
        m.Inbound([frame], [m.WrittenTo(call, _HUGE, _HUGE)]),
        m.Resume(call, _HUGE, _HUGE, _HUGE, _HUGE, float("nan"), _HUGE, _HUGE, _HUGE),
        m.Gather(call, _HUGE, _HUGE),
        m.Speak(call, _HUGE, _HUGE, bytes(100_000)),
        m.Interrupt(call, _HUGE, _HUGE, _HUGE),
        m.SetMark(call, _HUGE, "x" * 100_000, _HUGE),
    ]
    yield from (encode(message) for message in messages)


def load(peers: dict[str, list[str]], rng: random.Random) -> Iterator[bytes]:
    """What any peer may say to a worker, and too much of it."""
    encode = msgspec.msgpack.encode
    yield encode(m.MediaHello("gateway", rng.choice(peers["gateways"])))
    for _ in range(_ATTACHES):
        yield encode(m.Attach(rng.randbytes(16).hex(), "secret"))


def rogue(directory: Path, peers: dict[str, list[str]], rng: random.Random) -> Iterator[str]:
    """Round after round, until nobody asks for more."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        control = _connected(context, directory / "control")
        while True:
            for message in to_controller(peers, rng):
                control.send(message)
                yield _outcome(control)
            for path in filter(listened_at, sorted(directory.glob("w-*"))):
                media = _connected(context, path)
                for message in to_worker(peers, rng):
                    media.send(message)
                    yield "dropped"
                for message in load(peers, rng):
                    media.send(message)
                    yield "held"
                media.close(linger=200)
    finally:
        context.destroy(linger=0)


def _connected(context: zmq.Context[zmq.Socket[bytes]], path: Path) -> zmq.Socket[bytes]:
    dealer = context.socket(zmq.DEALER)
    dealer.sndtimeo = 1_000
    dealer.connect(f"ipc://{path}")
    return dealer


def _outcome(control: zmq.Socket[bytes]) -> str:
    """What was answered meanwhile."""
    outcome = "dropped"
    while control.poll(_ANSWER_WITHIN if outcome == "dropped" else 0):
        answer = msgspec.msgpack.decode(control.recv())
        refused = answer["type"] == "Refused" or answer.get("error")
        told = answer["type"] == "Pulse"
        outcome = "refused" if refused else "told to say Hello" if told else "answered"
    return outcome
