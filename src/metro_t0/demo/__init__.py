"""The whole recipe on the documentation of the Python installation itself: ``pipeline.run_demo``."""
