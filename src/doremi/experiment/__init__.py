"""A recipe and a folder to trained runs, and those to results."""
