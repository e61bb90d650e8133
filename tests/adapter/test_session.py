"""A session in the client: what the controller says of its calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from trunkline.adapter.media_link import MediaPlane
from trunkline.adapter.session import ClientSession
from trunkline.bus import messages as m


class Wires:
    """Connections to workers, all of them up at once; what is sent is kept."""

    def __init__(self) -> None:
        self.sent: list[m.ToWorker] = []
        self.up: list[Callable[[], None]] = []

    def connect(
        self, context: object, endpoint: str, on_message: object, **callbacks: Any
    ) -> Wires:
        self.up.append(callbacks["on_connected"])
        return self

    def send(self, payload: bytes) -> bool:
        self.sent.append(msgspec.msgpack.decode(payload, type=m.ToWorker))
        return True

    def close(self, linger: int = 0) -> None:
        """It is gone."""


def test_secret_that_a_restarted_controller_made_is_told_to_the_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one before it had let the stream in, told the client, and died before the gateway knew:
    the gateway asked again, and has the later secret."""
    wires = Wires()
    monkeypatch.setattr("trunkline.adapter.media_link.connect_dealer", wires.connect)
    media = MediaPlane(None, "a1", None, lambda: 100.0)  # type: ignore[arg-type]  # no sockets here
    session = ClientSession(
        None,  # type: ignore[arg-type]  # nothing is asked
        media,
        lambda: 100.0,
        lambda forgotten: None,
        number="+14155550001",
        account=None,
        allowed_callers=None,
        allowed_callees=None,
    )
    worker = m.WorkerRef(id="w1", endpoint="ipc:///w1")
    info = m.CallInfo(
        call="c" * 32,
        session=session.id,
        sid="CA1",
        direction="inbound",
        caller="+16505551234",
        callee="+14155550001",
        secret="s" * 32,
        ordinal=1,
        placement=m.Placement(epoch=1, n=1, primary=worker),
    )
    session.started(info)
    wires.up.pop()()
    later = m.Placement(epoch=2, n=1, primary=worker)
    session.started(replace(info, secret="t" * 32, placement=later))
    attached = [x.secret for x in wires.sent if isinstance(x, m.Attach)]
    assert attached == ["s" * 32, "t" * 32]
    assert session.calls[info.call].describe().secret == "t" * 32
