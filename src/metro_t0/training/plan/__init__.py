"""What a run costs before anything runs: operations, memory, time, and what failures take of it."""
