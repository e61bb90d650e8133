"""The parts that all messages of the bus share: the version, some words, the kinds of texts and
numbers, and the four shapes of a Struct.

Whoever has decoded a message knows that each text and number in it lies within the bounds of its
kind, so that the rules may add, compare, keep, log and encode them without another look.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta

from .redact import mask_urls
from .sound import MOST_GATHERED

#: (major, minor). A peer with another major is refused by name; minors only add fields and
#: messages.
PROTOCOL = (2, 0)

Role = Literal["gateway", "codec_worker", "adapter"]
Direction = Literal["inbound", "outbound"]
EndedReason = Literal["stop", "close", "error", "max_duration", "hang_up"]
#: ``too_fast``: the carrier's side sent more than twice real time, and was cut off.
StreamEndReason = Literal["stop", "close", "error", "too_fast"]
DialMode = Literal["a-leg", "b-leg", "originate"]
#: When Twilio says who has answered: as soon as it knows, or when a machine's greeting is over.
MachineDetection = Literal["Enable", "DetectMessageEnd"]
#: Who has answered, in Twilio's words (AnsweredBy).
Answerer = Literal[
    "human",
    "machine_start",
    "machine_end_beep",
    "machine_end_silence",
    "machine_end_other",
    "fax",
    "unknown",
]
ANSWERERS: Final[tuple[Answerer, ...]] = get_args(Answerer)

#: Characters of a :data:`Text`, at most.
LONGEST_TEXT: Final = 65_536

#: A name that a process makes: ids, secrets, tokens. Nothing in it can forge a line of a log.
Name = Annotated[str, Meta(max_length=128, pattern=r"\A[0-9A-Za-z_.:+-]*\Z")]
#: A peer's id, which is never empty.
PeerName = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"\A[0-9A-Za-z_.:+-]*\Z")]
#: Where a worker is reached: an endpoint of ZeroMQ's. A directory's path may have spaces.
Endpoint = Annotated[str, Meta(max_length=1024, pattern=r"\A[^\x00-\x1f\x7f]+\Z")]
#: The name of something that the receiver has to know already. A message with a name that is not
#: known is dropped, and the name is never shown. To look at its alphabet would cost more than the
#: frame that it stands in.
Known = Annotated[str, Meta(max_length=128)]
#: Words of people and carriers, in any alphabet: numbers, callers, errors, forms. Whoever shows
#: them writes what is not printable as an escape.
Text = Annotated[str, Meta(max_length=LONGEST_TEXT)]
#: Characters of a :data:`TestName`, at most.
LONGEST_TEST_NAME: Final = 200
#: The name of a test: a :data:`Text` that is shown in tables.
TestName = Annotated[str, Meta(max_length=LONGEST_TEST_NAME)]
#: Fields with their values: a form, a query, a trace.
Fields = Annotated[dict[Text, Text], Meta(max_length=1_000)]
#: Where sound begins, as a gateway or a client says it: samples at 8 kHz, a thousand years of them.
#: The sum of a few is still a :data:`Number`, which a worker uses to tell others where sound is.
Position = Annotated[int, Meta(ge=0, le=2**48)]
#: Generations, samples, frames, sizes: whatever else is counted from 0.
Number = Annotated[int, Meta(ge=0, le=2**53)]
#: Which of a call's streams. A generation has 16 bits more.
Ordinal = Annotated[int, Meta(ge=0, le=2**36)]
#: Samples of a call that a worker is to gather, before it hands them out.
Gathered = Annotated[int, Meta(ge=0, le=MOST_GATHERED)]
#: How often something happened, by its kind.
Counts = Annotated[dict[Known, Number], Meta(max_length=1_000)]
#: The longest that anybody may wait for something, or say that it has lasted, in seconds: a time
#: that is infinite, or no number at all (NaN), would never be over.
LONGEST_WAIT: Final = 30 * 86_400
#: How long something lasts, or may last, in seconds.
Seconds = Annotated[float, Meta(ge=0, le=LONGEST_WAIT)]
#: All values of one figure of a call, in seconds. For example, how long each answer took.
Figures = Annotated[list[Seconds], Meta(max_length=10_000)]
#: The sum of many times, in seconds. The description tells it from a Moment, in the reference too.
Sum = Annotated[float, Meta(ge=0, le=2**53, description="a sum")]
#: A moment of the sender's monotonic clock, in seconds.
Moment = Annotated[float, Meta(ge=0, le=2**53)]
#: The time from one moment to another, which two processes may see in another order.
Span = Annotated[float, Meta(ge=-LONGEST_WAIT, le=LONGEST_WAIT)]

#: A session's number where the controller picks one of its pool.
ANY_NUMBER: Final = "any"
#: The longest that a call we dial may last, in seconds.
LONGEST_CALL: Final = 300


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
