"""Text to tokens: documents, tokenizers, the token store. Nothing in here imports torch."""

from doremi.corpus.inspection import show
from doremi.corpus.integrity import verify
from doremi.corpus.preparation import from_datasets, prepare
from doremi.corpus.store import Rows, TokenStore

__all__ = ["Rows", "TokenStore", "from_datasets", "prepare", "show", "verify"]
