"""What pytest says of a run's calls: limits, repeats, a baseline, and one page of all calls."""
