"""DoReMi: optimised domain weights for language-model pretraining, and the evidence that they help.

``import doremi`` stays light: nothing is imported before it is named, so that a signal finds its handler in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from doremi.weights import DomainWeights

__version__ = "0.1.0"
__all__ = ["DomainWeights", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "DomainWeights":
        from doremi.weights import DomainWeights

        return DomainWeights
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
