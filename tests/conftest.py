"""One thread a process, no network, before torch is imported by any test; what a test logs at is its own affair.

And Ctrl-C as it is on a terminal: whoever starts pytest in the background of a shell script has it ignored, here and in
every process that a test starts. The same for the width of a terminal, which decides how tables and help are laid out.
"""

import logging
import os
import signal

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("COLUMNS", None)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _log_level_stays():
    """A command sets the level of our loggers for its process, which here goes on with other tests.

    Before each test and not after it: fixtures of a module run commands too.
    """
    logging.getLogger("doremi").setLevel(logging.NOTSET)
