"""The arithmetic of latencies, on moments that were made up."""

from __future__ import annotations

import numpy as np

from benchmarks import latency

MS = 1_000_000


def test_a_delay_is_to_the_first_arrival_after_the_moment() -> None:
    stamps = np.array([10.0, 30.0, 31.0])
    assert latency.delays(stamps, np.array([9.0, 10.5, 30.9])).tolist() == [1.0, 19.5, 31.0 - 30.9]
    assert latency.delays(stamps, np.array([40.0])).tolist() == []


def test_a_frame_is_in_when_its_last_sample_is_heard() -> None:
    sent_at = np.array([0.0, 20.0, 40.0, 60.0])
    # The filter holds the last 2 ms of each frame back until the next one comes.
    heard = [(8 * MS, 864), (29 * MS, 1824), (70 * MS, 3744)]
    assert latency.inbound(sent_at, heard).tolist() == [8.0, 9.0, 30.0, 10.0]
