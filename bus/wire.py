"""What all messages of the bus have in common: version, words, and the four shapes of a Struct."""

from __future__ import annotations

from typing import Final, Literal

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


def first_generation(ordinal: int) -> int:
    """The generation with which stream ``ordinal`` of a call begins."""
    return ordinal << 16


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A value that messages carry, by field names. New fields come with a default."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag=True):
    """A control message: a map with its class's name as the tag."""

    def __repr__(self) -> str:
        """msgspec's, without the passwords of URLs: messages carry the public URL."""
        return mask_urls(super().__repr__())


class Packed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An element of the paced media batches: an array, because there are thousands a second. It
    holds no reference that could lead back to it, so the garbage collector need not count it."""


class PackedMessage(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A media message: an array that begins with its class's name."""
