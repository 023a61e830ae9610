"""Tokens and sampling weights to batches."""
