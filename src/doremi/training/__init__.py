"""Model, batches and objective to checkpoints."""
