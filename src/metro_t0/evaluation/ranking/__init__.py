"""Rank classification: encode once, score all answers; on any encoder-decoder, on several processes."""
