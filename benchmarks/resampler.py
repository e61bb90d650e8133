"""What our resampler costs, beside soxr streaming, in one run: ``python benchmarks/resampler.py``.

A frame is 20 ms of one call: 480 samples at 24 kHz down to 160 of mu-law, or 160 up to 480. soxr
(a development dependency) gets its own mu-law table look-up, one stream for each call, because it
has no batches. The best of several rounds counts: other load on the machine only adds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from trunkline.codec_worker import mulaw
from trunkline.codec_worker.resample import Downsampler, Upsampler

CALLS = (1, 10, 100, 1000)
_FRAME_24K_BYTES = 960
_FRAME_BYTES = 160


def best_seconds(work: Callable[[], object], frames: int, rounds: int = 7) -> float:
    """The least time for one frame when ``work`` does ``frames`` of them."""
    repeat = max(3, 3000 // frames)
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(repeat):
            work()
        best = min(best, time.perf_counter() - begin)
    return best / repeat / frames


def ours(calls: int) -> tuple[float, float]:
    """Seconds a frame of our resampler with ``calls`` frames in a tick: down, up."""
    rng = np.random.default_rng(1)
    pcm = [rng.integers(-9000, 9000, 480).astype("<i2").tobytes() for _ in range(calls)]
    codes = [rng.integers(0, 256, _FRAME_BYTES).astype(np.uint8).tobytes() for _ in range(calls)]
    down, up = Downsampler(), Upsampler()
    down_state = [down.history() for _ in range(calls)]
    up_state = [up.history() for _ in range(calls)]
    return (
        best_seconds(lambda: down.run(down_state, pcm), calls),
        best_seconds(lambda: up.run(up_state, codes), calls),
    )


def soxrs(calls: int) -> tuple[float, float]:
    """Seconds a frame of soxr's streams (HQ, its default) with ``calls`` frames: down, up."""
    import soxr

    rng = np.random.default_rng(1)
    pcm = [rng.integers(-9000, 9000, 480).astype(np.int16).tobytes() for _ in range(calls)]
    codes = [rng.integers(0, 256, _FRAME_BYTES).astype(np.uint8).tobytes() for _ in range(calls)]

    def streams(rate_in: int, rate_out: int) -> list[Any]:
        return [soxr.ResampleStream(rate_in, rate_out, 1, dtype="int16") for _ in range(calls)]

    def down() -> None:
        for stream, chunk in zip(downs, pcm, strict=True):
            mulaw.encode(stream.resample_chunk(np.frombuffer(chunk, np.int16))).tobytes()

    def up() -> None:
        for stream, chunk in zip(ups, codes, strict=True):
            stream.resample_chunk(mulaw.decode(np.frombuffer(chunk, np.uint8))).tobytes()

    downs, ups = streams(24_000, 8_000), streams(8_000, 24_000)
    return best_seconds(down, calls), best_seconds(up, calls)


def table() -> list[dict[str, float | None]]:
    """One row for each number of calls: µs a frame, ours and soxr's (None: not installed)."""
    rows: list[dict[str, float | None]] = []
    for calls in CALLS:
        down, up = ours(calls)
        row: dict[str, float | None] = {
            "calls": calls,
            "down_us": down * 1e6,
            "up_us": up * 1e6,
            "soxr_down_us": None,
            "soxr_up_us": None,
        }
        try:
            soxr_down, soxr_up = soxrs(calls)
        except ImportError:
            pass
        else:
            row["soxr_down_us"], row["soxr_up_us"] = soxr_down * 1e6, soxr_up * 1e6
        rows.append(row)
    return rows


def main() -> None:
    """Print the table."""
    print("µs for one 20 ms frame and direction, one core, mu-law included")
    print(f"{'calls':>6} {'24->8 kHz':>10} {'8->24 kHz':>10} {'soxr down':>10} {'soxr up':>10}")
    for row in table():
        cells = (row[k] for k in ("down_us", "up_us", "soxr_down_us", "soxr_up_us"))
        shown = " ".join(f"{'-' if c is None else format(c, '.2f'):>10}" for c in cells)
        print(f"{row['calls']:>6} {shown}")


if __name__ == "__main__":
    main()
