"""Resampling, mu-law and paced playout for the calls placed on it."""

import os

if __name__ != "trunkline.codec_worker":
    raise ImportError(f"{__name__!r} is a room of trunkline: import it as 'trunkline.codec_worker'")

# One BLAS thread: the products of a tick are too small to share out, and a pool that spins beside
# the paced loop makes its ticks late. BLAS reads this when numpy is first imported, which this
# package's modules do. A setting of the user's stays.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
