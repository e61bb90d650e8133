"""Messages with odd values: every Struct of a union, with every field at its edges.

The decoder of the bus is C, so no coverage leads a fuzzer through it. Messages are built here
instead: from the types that the Structs declare, and from ids that the target knows, because a
message about a call that nobody has is dropped at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as of

INTEGERS: Final = (0, 1, -1, 159, 160, 65_535, 65_536, 2**31, 2**53, 2**63 - 1, 2**64 - 1, -(2**63))
TEXTS: Final = ("", "x", "\n2026 forged", "\x1b[31m", "é" * 100, "x" * 5_000, "0" * 32, "any")
FLOATS: Final = (0.0, -1.0, 1e-9, 0.5, 86_400.0, 1e300, float("inf"), float("nan"))


def messages(ids: Sequence[str], *unions: Any) -> st.SearchStrategy[Any]:
    """A list of messages of these unions; their texts are often one of ``ids``."""
    kinds = st.one_of([_values(of.type_info(union), ids, 0) for union in unions])
    return st.lists(kinds, min_size=1, max_size=6)


def _values(kind: of.Type, ids: Sequence[str], depth: int) -> st.SearchStrategy[Any]:
    few = 3 if depth < 3 else 1
    match kind:
        case of.Metadata(type=inner):
            return _values(inner, ids, depth)
        case of.UnionType(types=types):
            return st.one_of([_values(inner, ids, depth) for inner in types])
        case of.StructType(cls=cls, fields=fields):
            return st.builds(
                cls,
                **{
                    field.name: _values(field.type, ids, depth + 1)
                    if field.required
                    else st.just(_default(field)) | _values(field.type, ids, depth + 1)
                    for field in fields
                },
            )
        case of.IntType(ge=least, le=most):
            edges = [n for n in (least, most) if n is not None]
            return st.sampled_from([*edges, *INTEGERS]) | st.integers(-(2**63), 2**64 - 1)
        case of.FloatType():
            return st.sampled_from(FLOATS) | st.floats()
        case of.StrType():
            return st.sampled_from([*ids, *ids, *TEXTS]) | st.text(max_size=40)
        case of.BytesType():
            return st.sampled_from([b"", bytes(160), bytes(161), bytes(960)]) | st.binary(
                max_size=40
            )
        case of.BoolType():
            return st.booleans()
        case of.NoneType():
            return st.none()
        case of.LiteralType(values=values):
            return st.sampled_from(values)
        case of.ListType(item_type=item):
            return st.lists(_values(item, ids, depth + 1), max_size=few)
        case of.TupleType(item_types=items):
            return st.tuples(*(_values(item, ids, depth + 1) for item in items))
        case of.DictType(key_type=key, value_type=value):
            keys, values = (_values(inner, ids, depth + 1) for inner in (key, value))
            return st.dictionaries(keys, values, max_size=few)
        case of.AnyType():
            return st.none() | st.integers(0, 9) | st.text(max_size=5)
    raise TypeError(f"a message has a field of a kind that is new here: {kind}")


def _default(field: of.Field) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default
