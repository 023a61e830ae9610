"""A named point on the simplex: the type, the rules and files it comes from, and published examples."""

from doremi.weights.domain_weights import LARGEST, MAX_LISTED, DomainWeights, listed, natural, nearest, uniform

__all__ = ["LARGEST", "MAX_LISTED", "DomainWeights", "listed", "natural", "nearest", "uniform"]
