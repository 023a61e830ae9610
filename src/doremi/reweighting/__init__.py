"""Excess losses to domain weights. Nothing in here imports torch."""
