"""Design choices against each other: sets of runs that differ in one thing, and what the difference is."""
