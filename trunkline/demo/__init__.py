"""``trunkline demo``: two phone calls with real speech, measured and drawn, without an account."""
