"""What the command line prints to people: stage lines on stderr, results on stdout."""

from __future__ import annotations

import logging
import sys


def configure_logging() -> None:
    """Our own messages on stderr, plain; other libraries' only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("doremi").setLevel(logging.INFO)
