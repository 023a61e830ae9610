"""Text to tokens: documents, tokenizers, the token store. Nothing in here imports torch."""

from doremi.corpus.arrow_store import open_arrow
from doremi.corpus.export import to_datasets
from doremi.corpus.inspection import describe, show
from doremi.corpus.integrity import verify
from doremi.corpus.preparation import from_datasets, prepare
from doremi.corpus.store import Rows, TokenStore

__all__ = ["Rows", "TokenStore", "describe", "from_datasets", "open_arrow", "prepare", "show", "to_datasets", "verify"]
