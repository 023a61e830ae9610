"""Which mixture: one file a method. NumPy and SciPy; no torch, no files, no logger."""
