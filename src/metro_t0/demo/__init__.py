"""The whole pipeline on a corpus that every Python installation carries."""
