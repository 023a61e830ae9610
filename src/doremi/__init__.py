"""DoReMi: optimised domain weights for language-model pretraining, and the evidence that they help.

``import doremi`` stays light: nothing here imports torch.
"""

from doremi.weights import DomainWeights

__version__ = "0.1.0"
__all__ = ["DomainWeights", "__version__"]
