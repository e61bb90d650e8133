"""What pytest says of a run's calls: limits, repeats, a baseline, a page of all calls, cassettes of
failed tests, and caps."""
