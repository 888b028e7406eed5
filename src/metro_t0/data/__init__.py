"""Corpora, token blocks and the order in which training reads them."""
