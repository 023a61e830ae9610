"""Tokens on disk: the manifest, the shards, rows of them, whether they are whole."""
