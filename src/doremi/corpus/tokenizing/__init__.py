"""Text to token ids: training a tokenizer, loading one, the libraries that run it."""
