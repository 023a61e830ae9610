"""``python -m doremi`` is the ``doremi`` command."""

import sys

from doremi.cli import main

sys.exit(main())
