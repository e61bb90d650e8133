"""``trunkline replay``: a cassette played again, and where the answers differ."""
