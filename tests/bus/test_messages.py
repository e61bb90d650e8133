"""The wire format: every message survives its union, and a stranger's bytes do not."""

from __future__ import annotations

from typing import get_args, get_type_hints

import msgspec
import pytest

from trunkline.bus import messages as m
from trunkline.bus import wire
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


# --------------------------------------------------------------------------- kinds


def fits(kind: object, value: object) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (
            wire.Name,
            ["", "a" * 128, "codec_worker-1-a.b:c+d"],
            ["a" * 129, "a b", "a\n", "\n", "ä"],
        ),
        (wire.PeerName, ["a"], ["", "a\n", "\x1b[2J", "a" * 129]),
        (wire.Endpoint, ["ipc:///run/ü b/w1", "tcp://[::1]:5"], ["", "ipc:///a\nb", "x" * 1025]),
        (wire.Known, ["", "ä\n" * 64], ["a" * 129]),
        (wire.Text, ["ä\n", "x" * 65_536], ["x" * 65_537]),
        (wire.TestName, ["", "ä\n" * 100], ["x" * 201]),
        (wire.Fields, [{"a": "b"}], [{"a": 1}, {str(n): "" for n in range(1_001)}]),
        (wire.Counts, [{"a": 0}], [{"a": -1}, {"a": 2**53 + 1}, {"a" * 129: 1}]),
        (wire.Number, [0, 2**53], [-1, 2**53 + 1, 1.5, True]),
        (wire.Position, [0, 2**48], [-1, 2**48 + 1]),
        (wire.Ordinal, [0, 2**36], [-1, 2**36 + 1]),
        (wire.Seconds, [0, 1.5, 3e5], [-1.0, 1e7, float("inf"), float("nan")]),
        (wire.Span, [0, -1.5, 3e5], [1e7, -1e7, float("inf"), float("-inf"), float("nan")]),
    ],
)
def test_each_kind_has_its_bounds(kind: object, good: list[object], bad: list[object]) -> None:
    assert [value for value in good if not fits(kind, value)] == []
    assert [value for value in bad if fits(kind, value)] == []


def bare(annotation: object) -> set[type]:
    """The types in it that have no bounds."""
    if getattr(annotation, "__metadata__", None) is not None:
        return set()
    if annotation in (str, int, float):
        return {annotation}  # type: ignore[arg-type]  # it is one of these types
    return set().union(*(bare(argument) for argument in get_args(annotation)))


@pytest.mark.parametrize("name", UNIONS)
def test_no_text_and_no_number_of_a_message_is_without_bounds(name: str) -> None:
    todo, seen = list(get_args(UNIONS[name])), set()
    while todo:
        found = todo.pop()
        if isinstance(found, type) and issubclass(found, msgspec.Struct):
            if found not in seen:
                seen.add(found)
                for field, kind in get_type_hints(found, include_extras=True).items():
                    assert bare(kind) == set(), f"{found.__name__}.{field}"
                    todo.append(kind)
        else:
            todo += [x for x in get_args(found) if not isinstance(x, str | int)]
    assert len(seen) >= len(get_args(UNIONS[name]))


def test_the_last_move_of_the_last_stream_has_a_generation() -> None:
    assert fits(wire.Number, m.first_generation(2**36) + 0xFFFF)


def test_the_text_of_an_error_is_cut_so_that_it_can_be_told() -> None:
    info = ErrorInfo.of(InternalError("x" * 100_000))
    payload = msgspec.msgpack.encode(m.Refused(error=info))
    assert isinstance(msgspec.msgpack.decode(payload, type=m.FromController), m.Refused)
