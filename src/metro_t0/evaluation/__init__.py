"""Zero-shot ranking, its aggregation and the report page."""
