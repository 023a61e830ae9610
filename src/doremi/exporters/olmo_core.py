"""OLMo-core: a source mixture, whose ratios count tokens.

``SourceMixtureList.from_yaml`` reads ``sources``, each with source_name, target_ratio ("global proportion of tokens",
must sum to 1), paths and max_repetition_ratio (docs/source/guides/data_mixing.rst and
src/olmo_core/data/source_mixture.py; fa6c5014). A path is a headerless array of token ids, whatever its suffix:
a ``.bin`` of ours. A source is taken from all its paths alike, so shards need no weights of their own. Building the
mixture fails where a source is too small for its ratio and may not be repeated.
"""

from __future__ import annotations

from doremi.exporters.describe import Export, comment, yaml_text
from doremi.exporters.mixture import Domain, Mixture, Unit

_ROUNDING = 1.05  # whole sequences of every path are taken: room for what is lost at the ends of small ones


def olmo_core(mixture: Mixture, unit: Unit) -> Export:
    """The sources; repetition is allowed as far as ``mixture.num_tokens`` needs it."""
    if mixture.num_tokens is None:
        mixture = mixture.warn(
            "no source may be repeated, and OLMo-core refuses a mixture that would need it; --tokens N, what the run "
            "trains on, sets max_repetition_ratio"
        )
    sources = [
        {
            "source_name": domain.name,
            "target_ratio": domain.weight,
            "max_repetition_ratio": _repetition(domain, mixture.num_tokens),
            "paths": [f"{shard.prefix}.bin" for shard in domain.shards],
        }
        for domain in mixture.domains
    ]
    dtype = "uint16" if mixture.token_bytes == 2 else "uint32"
    usage = [
        "use: SourceMixtureDatasetConfig(source_list=SourceMixtureList.from_yaml(FILE), requested_tokens=..., "
        "global_batch_size=...),",
        f"then NumpyFSLDatasetConfig.from_src_mix(..., dtype=NumpyDatasetDType.{dtype})",
    ]
    return Export(
        {"olmo-core-mixture.yaml": comment(mixture, unit, usage) + yaml_text({"sources": sources})}, mixture.warnings
    )


def _repetition(domain: Domain, num_tokens: int | None) -> float:
    if num_tokens is None:
        return 1.0
    epochs = domain.weight * num_tokens / domain.tokens
    return 1.0 if epochs * _ROUNDING <= 1 else round(epochs * _ROUNDING, 4)
