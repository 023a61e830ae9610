"""Numbers to a page that a person looks at. Nothing in here imports torch."""
