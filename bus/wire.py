"""What all messages of the bus have in common: version, words, and the four shapes of a Struct."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from .redact import mask_urls

#: (major, minor). A peer with another major is refused by name; minors only add fields and
#: messages.
PROTOCOL = (2, 0)

Role = Literal["gateway", "codec_worker", "adapter"]
Direction = Literal["inbound", "outbound"]
EndedReason = Literal["stop", "close", "error", "max_duration", "hang_up"]
#: ``too_fast``: the carrier's side sent more than twice real time, and was cut off.
StreamEndReason = Literal["stop", "close", "error", "too_fast"]
DialMode = Literal["a-leg", "b-leg", "originate"]

#: A session's number where the controller picks one of its pool.
ANY_NUMBER: Final = "any"
#: The longest that a call we dial may last, in seconds.
LONGEST_CALL: Final = 300
#: The longest that anybody may wait for something, or say that it has lasted, in seconds: a time
#: that is infinite, or no number at all (NaN), would never be over.
LONGEST_WAIT: Final = 30 * 86_400

#: A time that a peer tells, in seconds.
Seconds = Annotated[float, msgspec.Meta(ge=0, le=LONGEST_WAIT)]


def first_generation(ordinal: int) -> int:
    """The generation with which stream ``ordinal`` of a call begins."""
    return ordinal << 16


#: Fields whose value lets whoever reads it act as a session, or open a stream. A document and a
#: stream's parameters have the stream's token in them.
SECRET_FIELDS: Final = frozenset(("secret", "token", "twiml", "parameters"))


class Shown(msgspec.Struct, frozen=True):
    """Shown, in an error or a log, without secrets: neither those fields, nor URLs' passwords."""

    def __repr__(self) -> str:
        shown = (
            f"{name}={'***' if name in SECRET_FIELDS and value else repr(value)}"
            for name in self.__struct_fields__
            for value in (getattr(self, name),)
        )
        return mask_urls(f"{type(self).__name__}({', '.join(shown)})")


class Record(Shown, frozen=True, omit_defaults=True, kw_only=True):
    """A value that messages carry, by field names. New fields come with a default."""


class Message(Shown, frozen=True, omit_defaults=True, kw_only=True, tag=True):
    """A control message: a map with its class's name as the tag."""


class Packed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An element of the paced media batches: an array, because there are thousands a second. It
    holds no reference that could lead back to it, so the garbage collector need not count it."""


class PackedMessage(Shown, frozen=True, array_like=True, tag=True):
    """A media message: an array that begins with its class's name."""
