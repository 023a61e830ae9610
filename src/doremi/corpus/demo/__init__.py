"""Text found in the installation, as a small corpus for the demo."""
