"""Checkpoints to numbers."""
