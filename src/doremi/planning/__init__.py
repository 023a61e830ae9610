"""What a recipe will take, before anything runs: ``doremi plan`` and ``--dry-run``."""

from doremi.planning.plan import Plan, make, to_dict
from doremi.planning.show import show

__all__ = ["Plan", "make", "show", "to_dict"]
