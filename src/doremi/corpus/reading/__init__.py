"""Files, datasets and Python readers to documents with a domain each."""
