"""``python -m doremi`` is the ``doremi`` command; several processes are always started this way."""

from doremi import launch
from doremi.cli import main

launch.exit_process(main())
