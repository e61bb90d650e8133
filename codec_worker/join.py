"""Where the sound of one stream continues in another stream, when both brought the same sound for a
while.

The carrier numbers each stream's sound from its own beginning, and names no common clock. But both
streams brought the same mu-law, byte for byte. So the end of the earlier stream's sound is looked
up in the later one's, which is exact to the sample.

That fails if both brought silence, if the bytes differ, or if less than 2 ms is in both. Then the
clock decides, by when the frames arrived. Frames of two connections arrive up to :data:`TOLERANCE`
apart though they were said at the same time: up to 40 ms at a gateway, 40 at a worker, a tick of
20 ms at the carrier, and the delays of the network and of a busy machine. So smaller differences
are ignored. In silence nothing is lost or heard twice by that. A gap that is shorter is not counted
as lost.
"""

from __future__ import annotations

from typing import Final

from trunkline.bus.sound import WIRE_RATE

#: The clock cannot resolve a gap or an overlap of this many samples or fewer (140 ms).
TOLERANCE: Final = WIRE_RATE * 7 // 50
#: The end of either sound is looked up in the other. The shortest of these lengths (2, 50, 150 and
#: 500 ms) that is found decides. 2 ms of speech are found nowhere else; a shorter end might be.
_ANCHORS: Final = (WIRE_RATE // 500, WIRE_RATE // 20, WIRE_RATE * 3 // 20, WIRE_RATE // 2)
#: A piece of sound with this many different byte values or fewer is not looked up. It is silence,
#: or a tone that is alike everywhere.
_TELLING: Final = 4


def by_sound(old: bytes, new: bytes, clock: int) -> int | None:
    """How many samples at the beginning of ``new`` were already heard in ``old``, as their bytes
    say. None: they do not say.

    ``clock``: the same number as the clock has it. It decides between several places.
    """
    found = [k for k in _candidates(old, new) if _alike(old, new, k)]
    return min(found, key=lambda k: abs(k - clock), default=None)


def by_clock(clock: int) -> int:
    """The same number where only the clock says it. A negative number is the length of a gap
    between the two."""
    return clock if abs(clock) > TOLERANCE else 0


def _candidates(old: bytes, new: bytes) -> set[int]:
    """Overlaps at which the end of one sound is found in the other."""
    candidates: set[int] = set()
    for size in _ANCHORS:
        for end, sound, shift in (
            (old[-size:], new, size),
            (new[-size:], old, 0),
        ):
            if len(end) < size or len(set(end)) <= _TELLING:
                continue
            at = sound.find(end)
            while at >= 0:
                # The end of old at `at` in new, or the end of new at `at` in old.
                candidates.add(at + shift if sound is new else len(old) - at - size + len(new))
                at = sound.find(end, at + 1)
        if candidates:
            break
    return candidates


def _alike(old: bytes, new: bytes, k: int) -> bool:
    """Both have the same bytes where they overlap, if ``old`` ends at sample ``k`` of ``new``."""
    first, last = max(0, k - len(old)), min(len(new), k)
    shift = len(old) - k
    return new[first:last] == old[first + shift : last + shift]
