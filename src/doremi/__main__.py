"""``python -m doremi`` is the ``doremi`` command; several processes are always started this way."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from doremi.launch import interruption


def run() -> NoReturn:
    """The command, from the first import to the end of the process, during all of which signals are handled."""
    interruption.install()
    try:
        from doremi import launch
        from doremi.cli import main
    except KeyboardInterrupt:
        print("doremi: interrupted; the same command continues", file=sys.stderr, flush=True)
        os._exit(interruption.INTERRUPTED)  # an interpreter on its way out forgets its handlers
    launch.exit_process(main.main())


if __name__ == "__main__":
    run()
