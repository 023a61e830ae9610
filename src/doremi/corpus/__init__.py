"""Text to tokens: documents, tokenizers, the token store. Nothing in here imports torch."""
