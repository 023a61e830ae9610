"""Text to tokens: documents, tokenizers, the token store. Nothing in here imports torch."""

from doremi.corpus.store import Rows, TokenStore

__all__ = ["Rows", "TokenStore"]
