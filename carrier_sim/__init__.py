"""A stand-in for Twilio on this machine: REST, TwiML, webhooks, media, callee bots, faults."""

import os

if __name__ != "trunkline.carrier_sim":
    raise ImportError(f"{__name__!r} is a room of trunkline: import it as 'trunkline.carrier_sim'")

# One BLAS thread: this room has no product that could be shared out, and to start a pool costs more
# than half of the import of numpy. BLAS reads this when numpy is first imported, which this
# package's modules do. A setting of the user's stays.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
