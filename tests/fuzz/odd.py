"""Messages with odd values: every Struct of a union, with every field at its edges.

The decoder of the bus is C, so no coverage leads a fuzzer through it. Messages are built here
instead: from the types that the Structs declare, and mostly from ids and generations that the
target knows, because a message about a call that nobody has is dropped at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as of

INTEGERS: Final = (0, 1, -1, 159, 160, 65_535, 65_536, 2**31, 2**53, 2**63 - 1, 2**64 - 1, -(2**63))
TEXTS: Final = ("", "x", "\n2026 forged", "\x1b[31m", "é" * 100, "x" * 5_000, "0" * 32, "any")
FLOATS: Final = (0.0, -1.0, 1e-9, 0.5, 86_400.0, 1e300, float("inf"), float("nan"))


@dataclass(frozen=True)
class Known:
    """Texts and numbers that a target does not drop at once."""

    texts: Sequence[str]
    numbers: Sequence[int] = (0, 1)

    def messages(self, *unions: Any) -> st.SearchStrategy[Any]:
        """A list of messages of these unions."""
        kinds = st.one_of([self._values(of.type_info(union), 0) for union in unions])
        return st.lists(kinds, min_size=1, max_size=8)

    def _values(self, kind: of.Type, depth: int) -> st.SearchStrategy[Any]:
        few = 2 if depth < 3 else 1
        match kind:
            case of.Metadata(type=inner):
                return self._values(inner, depth)
            case of.UnionType(types=types):
                return st.one_of([self._values(inner, depth) for inner in types])
            case of.StructType(cls=cls, fields=fields):
                return st.builds(cls, **{field.name: self._field(field, depth) for field in fields})
            case of.IntType(ge=least, le=most):
                bounds = [n for n in (least, most) if n is not None]
                known = [*self.numbers] * (1 + 2 * len(INTEGERS) // len(self.numbers))
                return st.sampled_from([*known, *bounds, *INTEGERS])
            case of.FloatType():
                return st.sampled_from(FLOATS)
            case of.StrType():
                known = [*self.texts] * (1 + 3 * len(TEXTS) // len(self.texts))
                return st.sampled_from([*known, *TEXTS])
            case of.BytesType():
                return st.sampled_from([b"", b"x", bytes(160), bytes(161), bytes(960)])
            case of.BoolType():
                return st.booleans()
            case of.NoneType():
                return st.none()
            case of.LiteralType(values=values):
                return st.sampled_from(values)
            case of.ListType(item_type=item):
                return st.lists(self._values(item, depth + 1), max_size=few)
            case of.TupleType(item_types=items):
                return st.tuples(*(self._values(item, depth + 1) for item in items))
            case of.DictType(key_type=key, value_type=value):
                keys, values = (self._values(inner, depth + 1) for inner in (key, value))
                return st.dictionaries(keys, values, max_size=few)
            case of.AnyType():
                return st.sampled_from([None, 0, "x", [], {}])
        raise TypeError(f"a message has a field of a kind that is new here: {kind}")

    def _field(self, field: of.Field, depth: int) -> st.SearchStrategy[Any]:
        """Fields that may be left out are, as often as not."""
        values = self._values(field.type, depth + 1)
        if field.required:
            return values
        made = field.default_factory is not msgspec.NODEFAULT
        return st.just(field.default_factory() if made else field.default) | values
