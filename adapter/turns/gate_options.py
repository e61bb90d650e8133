"""The values of ``speech_gate=``: True, False, or a mapping of options. No I/O.

The names are those of langwatch-scenario's own gate, in Python's spelling (its JavaScript says
``rmsThreshold``, ``hangoverMs``, ``prerollMs``). That gate compares loudness with a fixed number;
this one follows the noise of the line (``speech_gate.py``). An option that has no meaning here is
checked all the same, and a warning says why nothing comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

#: Seconds handed out before the first loud frame, and after the last one.
PRE_ROLL = 0.3
HANGOVER = 0.4
#: More than this is no pre-roll or hangover of a telephone call, but a mistake in the unit.
MOST_MS = 10_000.0
#: The loudest that 16-bit samples can be.
LOUDEST = 32_767.0

#: Option -> the largest value that it takes; the smallest is 0.
OPTIONS = {"rms_threshold": LOUDEST, "hangover_ms": MOST_MS, "preroll_ms": MOST_MS}

#: The value of ``speech_gate=``.
SpeechGateSetting = bool | Mapping[str, float]

_NO_THRESHOLD = (
    "speech_gate: rms_threshold=%g has no effect. This gate has no fixed level: it takes for "
    "speech what stands out of the noise of the line, which it follows all the time"
)


@dataclass(frozen=True)
class GateOptions:
    """How a :class:`~.speech_gate.SpeechGate` is set, in seconds of sound."""

    pre_roll: float = PRE_ROLL
    hangover: float = HANGOVER


def read_gate_options(
    given: SpeechGateSetting, warn: Callable[[str, float], None]
) -> GateOptions | None:
    """The options that ``speech_gate=given`` asks for; None for False.

    ``warn`` gets (format, value) of an option that has no meaning for this gate. Raises
    ValueError for an unknown option (which lists the known ones), and for a value that is no
    number from 0 to the option's largest.
    """
    if given is True:
        return GateOptions()
    if given is False:
        return None
    if not isinstance(given, Mapping):
        raise ValueError(
            f"speech_gate={given!r}: it takes True, False, or a mapping of the options "
            f"{', '.join(OPTIONS)}"
        )
    unknown = [name for name in given if name not in OPTIONS]
    if unknown:
        raise ValueError(
            f"speech_gate: unknown option {', '.join(map(repr, unknown))}. There are "
            f"{', '.join(OPTIONS)}"
        )
    values = {name: _number(name, value) for name, value in given.items()}
    if "rms_threshold" in values:
        warn(_NO_THRESHOLD, values["rms_threshold"])
    return GateOptions(
        pre_roll=values.get("preroll_ms", PRE_ROLL * 1000) / 1000,
        hangover=values.get("hangover_ms", HANGOVER * 1000) / 1000,
    )


def _number(name: str, value: object) -> float:
    most = OPTIONS[name]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most:
        return float(value)
    raise ValueError(f"speech_gate: {name} must be a number from 0 to {most:g}, got {value!r}")
