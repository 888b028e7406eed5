"""The loop, optimisation, checkpoints and metrics."""
