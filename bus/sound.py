"""Sound, as every room counts it: rates, the frame, the samples of mu-law, how much is kept, and
why sound counts as lost.

A *position* is a sample at :data:`WIRE_RATE`. The reasons are the keys of ``call.lost.reasons``, so
a user's test may compare with them; they are part of the public contract.
"""

from __future__ import annotations

from typing import Final

#: Samples a second of mu-law on the wire.
WIRE_RATE: Final = 8_000
#: Samples a second of the PCM16 that a line speaks and hears.
LINE_RATE: Final = 24_000
#: Bytes of PCM16 at :data:`LINE_RATE` that make one position: three samples.
POSITION_BYTES: Final = 6
#: Samples, and bytes of mu-law, of one frame: 20 ms.
FRAME: Final = 160


def _linear(code: int) -> int:
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4)
    return 0x84 - magnitude if code & 0x80 else magnitude - 0x84


#: The sample of each mu-law code (ITU-T G.711), as PCM16.
LINEAR: Final = tuple(_linear(code) for code in range(256))
#: This many frames go to the carrier in one message, if they are in hand. Only the first of them is
#: due when it is sent, so the carrier's buffer holds up to one frame more than it would otherwise.
TOGETHER: Final = 2
#: The most samples of a call that a worker gathers before it hands them out: 200 ms.
MOST_GATHERED: Final = 10 * FRAME
#: The most sound of one call that is kept in either direction, in seconds.
MOST_KEPT: Final = 300

#: Inbound: the far end's sound did not come, neither late nor when it was asked for again.
NEVER_ARRIVED: Final = "never arrived"
#: Inbound: the sound came, but the user did not take it in time.
NOT_TAKEN: Final = f"nobody took it for {MOST_KEPT} s"
#: Outbound: more was said than is kept.
TOO_MUCH_QUEUED: Final = f"more than {MOST_KEPT} s were queued"
#: Outbound: the sound was written, and the stream ended before the carrier had played it.
UNPLAYED: Final = "unplayed at the carrier when its stream broke"
#: Outbound: the far end may have heard the sound, so it is not said again.
IN_DOUBT: Final = "may have been played before its stream broke"
