"""Secrets stand in no repr: whatever holds one hides it, today's classes and tomorrow's."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import trunkline
from trunkline.bus import messages as m
from trunkline.bus.settings import Settings
from trunkline.bus.wire import SECRET_FIELDS, Shown
from trunkline.controller import instructions as do
from trunkline.controller.instructions import ReplyTo
from trunkline.controller.journal.rows import OverrideRow
from trunkline.controller.rules.book.call import Call
from trunkline.controller.twilio.calls import CallOrder
from trunkline.gateway.media_streams import Start

NAMES = SECRET_FIELDS | {"auth_token", "auth_token_secondary", "bus_key", "tokens", "prior"}
NAMES |= {"database_url", "client_key"}
#: Fields of such a name that hold none: a digest.
NONE = {("Row", "token")}
SECRET = "5ecre7"


def holders() -> Iterator[tuple[type, str]]:
    """Classes of the product that have a field of such a name."""
    for module in pkgutil.walk_packages(trunkline.__path__, "trunkline."):
        if module.name.endswith(".__main__"):
            continue
        with warnings.catch_warnings():
            # A package that one of them imports uses what Python deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            loaded = importlib.import_module(module.name)
        for cls in vars(loaded).values():
            if not isinstance(cls, type) or cls.__module__ != module.name:
                continue
            fields = set(getattr(cls, "__struct_fields__", ())) | {
                field.name for field in getattr(cls, "__dataclass_fields__", {}).values()
            }
            yield from ((cls, name) for name in sorted(fields & NAMES))


def hides(cls: type[Any], name: str) -> bool:
    if issubclass(cls, msgspec.Struct):
        return issubclass(cls, Shown) or "__repr__" in vars(cls)
    # dataclass wraps the __repr__ that it makes; one that was written is looked at elsewhere.
    written = not hasattr(cls.__repr__, "__wrapped__")
    return written or not cls.__dataclass_fields__[name].repr


def test_every_field_of_such_a_name_is_hidden() -> None:
    found = {(cls, name) for cls, name in holders() if (cls.__name__, name) not in NONE}
    assert len(found) > 30, "the walk finds the classes"
    shown = [f"{cls.__qualname__}.{name}" for cls, name in found if not hides(cls, name)]
    assert not shown


INFO = m.SessionInfo(session="s", secret=SECRET, number="+14155551234")
CALL = m.CallInfo(
    call="c",
    session="s",
    sid="CA1",
    direction="inbound",
    caller="+1",
    callee="+1",
    secret=SECRET,
)


@pytest.mark.parametrize(
    "holder",
    [
        INFO,
        m.Request(peer="p", id=1, ttl=1.0, body=m.OpenSession(info=INFO)),
        m.Hello(role="adapter", peer="p", pid=1, sessions=[INFO]),
        m.VoiceAnswer(kind="stream", token=SECRET),
        m.Reply(id=1, body=m.VoiceAnswer(kind="stream", token=SECRET)),
        m.StreamStart(token=SECRET, call_sid="CA1", stream_sid="MZ1", gateway="g"),
        m.CallStarted(info=CALL),
        do.Send("a1", m.CallStarted(info=CALL)),
        do.Instruct(ReplyTo("p", 1), "CA1", f"<Parameter value='{SECRET}'/>"),
        do.StartStream("c", 1, "CA1", "https://x", SECRET),
        CallOrder("+1", "+1", SECRET, 1, 1, f"https://me:{SECRET}@x"),
        Call("c", "s", "inbound", "+1", "+1", SECRET, 0.0),
        Start("CA1", "MZ1", {"nonce": SECRET}),
        OverrideRow(
            id="o",
            number="+1",
            number_sid="PN1",
            session="s",
            state="applied",
            prior={"voice_url": f"https://me:{SECRET}@x"},
        ),
        Settings(
            auth_token=SECRET,
            auth_token_secondary=SECRET,
            bus_key=SECRET,
            public_url=f"https://me:{SECRET}@x",
            twilio_api_url=f"https://me:{SECRET}@x",
        ),
    ],
    ids=lambda holder: type(holder).__name__,
)
def test_reprs_show_no_secret(holder: object) -> None:
    assert SECRET not in repr(holder) and SECRET not in f"{holder}"
    assert SECRET not in repr([holder])


def test_what_is_no_secret_is_shown() -> None:
    assert repr(m.VoiceAnswer(kind="busy")) == (
        "VoiceAnswer(kind='busy', token=None, redirect_query={})"
    )
    assert repr(INFO).startswith("SessionInfo(session='s', secret=***, number='+14155551234', ")
