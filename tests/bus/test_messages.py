"""The wire format: every message survives its union, and a stranger's bytes do not."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from trunkline.bus import messages as m
from trunkline.bus.errors import (
    CallFailedError,
    CarrierError,
    ErrorInfo,
    InternalError,
    NumberBusyError,
    TrunklineError,
)

UNIONS = {
    "ToController": m.ToController,
    "FromController": m.FromController,
    "ToWorker": m.ToWorker,
    "WorkerToGateway": m.WorkerToGateway,
    "WorkerToAdapter": m.WorkerToAdapter,
    "RequestBody": m.RequestBody,
    "ReplyBody": m.ReplyBody,
}


@pytest.mark.parametrize("name", UNIONS)
def test_each_union_can_be_decoded_and_its_tags_differ(name: str) -> None:
    union = UNIONS[name]
    msgspec.msgpack.Decoder(union)
    tags = [cls.__struct_config__.tag for cls in get_args(union)]
    assert len(set(tags)) == len(tags)
    assert all(cls.__struct_config__.frozen for cls in get_args(union))


def test_fields_that_a_newer_minor_adds_are_ignored() -> None:
    payload = msgspec.msgpack.encode({"type": "Pulse", "epoch": 3, "stack": "c", "new": 1})
    assert msgspec.msgpack.decode(payload, type=m.FromController) == m.Pulse(epoch=3, stack="c")


def test_generations_of_a_later_stream_are_higher() -> None:
    last_of_first = m.first_generation(1) + 0xFFFF
    assert m.first_generation(2) > last_of_first


def test_an_error_crosses_with_its_class_text_and_fields() -> None:
    busy = NumberBusyError("+1 is taken", number="+14155551234", holder="stack x", since="2026")
    copy = ErrorInfo.of(busy).exception()
    assert isinstance(copy, NumberBusyError) and isinstance(copy, RuntimeError)
    assert (str(copy), copy.number, copy.holder, copy.since) == (
        "+1 is taken",
        "+14155551234",
        "stack x",
        "2026",
    )
    refused = ErrorInfo.of(CarrierError("refused", status=401, code=20003, message="Authenticate"))
    copy2 = refused.exception()
    assert isinstance(copy2, CarrierError)
    assert (copy2.status, copy2.code, copy2.message) == (401, 20003, "Authenticate")
    failed = ErrorInfo.of(CallFailedError("busy", status="busy", sid="CA1")).exception()
    assert isinstance(failed, CallFailedError) and failed.status == "busy"


def test_an_unexpected_error_tells_its_type_and_not_its_text() -> None:
    info = ErrorInfo.of(KeyError("a secret"))
    assert "secret" not in info.text and "KeyError" in info.text
    assert isinstance(info.exception(), InternalError)


def test_an_error_of_a_newer_peer_is_still_a_trunkline_error() -> None:
    assert type(ErrorInfo("BrandNewError", "words").exception()) is TrunklineError
    copy = ErrorInfo("NumberBusyError", "words", {"unheard_of": 1}).exception()
    assert isinstance(copy, NumberBusyError) and str(copy) == "words"
