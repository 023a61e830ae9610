"""Text to tokens: documents, tokenizers, the token store. Nothing in here imports torch."""

from doremi.corpus.preparing.preparation import from_datasets, prepare
from doremi.corpus.storing.arrow_store import open_arrow
from doremi.corpus.storing.export import to_datasets
from doremi.corpus.storing.inspection import describe, show
from doremi.corpus.storing.integrity import verify
from doremi.corpus.storing.store import Rows, TokenStore

__all__ = ["Rows", "TokenStore", "describe", "from_datasets", "open_arrow", "prepare", "show", "to_datasets", "verify"]
