"""Templates, tasks and mixtures."""
