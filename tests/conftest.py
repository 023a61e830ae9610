"""One thread a process, no network, before torch is imported by any test; what a test logs at is its own affair."""

import logging
import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def _log_level_stays():
    """A command sets the level of our loggers for its process, which here goes on with other tests."""
    logger = logging.getLogger("doremi")
    level = logger.level
    yield
    logger.setLevel(level)
