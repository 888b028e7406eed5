"""The text normaliser, the tokenizer and its training."""
