"""Draws docs/response.svg, the frequency response of the codec's filter, from its design.

Run by ``make docs``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.page import pyplot
from trunkline.codec_worker.resample import design

PICTURE = Path(__file__).with_name("response.svg")
#: Up to the first the response is flat. Beyond the second nothing is left to fold into speech.
FLAT_HZ, STOP_HZ = 3400, 4400
FLAT_DB, STOP_DB = 0.13, -63.0


def main() -> None:
    """Draw all of it, and the part that carries speech."""
    hertz = np.arange(0, 12_001, 5)
    taps = design()
    n = np.arange(len(taps)) - len(taps) // 2
    level = 20 * np.log10(np.abs(np.cos(2 * np.pi * hertz[:, None] * n / 24_000) @ taps) + 1e-6)
    plt = pyplot()
    figure, (whole, flat) = plt.subplots(1, 2, figsize=(11, 3.2))
    for axis in (whole, flat):
        axis.plot(hertz / 1000, level, linewidth=1)
        axis.set_xlabel("kHz", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    whole.hlines(STOP_DB, STOP_HZ / 1000, 12, color="#d9772b", linewidth=1, linestyle="--")
    whole.set_ylim(-100, 5)
    whole.set_title(f"dB; beyond the telephone's band {STOP_DB:g} at most", fontsize=9, loc="left")
    for bound in (-FLAT_DB, FLAT_DB):
        flat.hlines(bound, 0, FLAT_HZ / 1000, color="#d9772b", linewidth=1, linestyle="--")
    flat.set_xlim(0, 4)
    flat.set_ylim(-1, 0.5)
    flat.set_title(f"dB; to {FLAT_HZ / 1000:g} kHz within {FLAT_DB:g}", fontsize=9, loc="left")
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
