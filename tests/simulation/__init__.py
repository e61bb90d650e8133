"""The control plane simulated: every process's own code on one fake clock, with a bus, a Twilio and
faults that follow from a seed. ``python -m tests.simulation --help``."""
