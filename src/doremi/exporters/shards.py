"""Files of the corpus for the stacks that read them as they are."""

from __future__ import annotations

from pathlib import Path

from doremi.errors import InputError
from doremi.exporters.mixture import Domain, Mixture


def check_megatron_files(mixture: Mixture) -> None:
    """Refuse a corpus that is not ``.bin`` and ``.idx`` files.

    Raises:
        InputError: it is a tree of saved datasets, read in place.
    """
    for shard in (shard for domain in mixture.domains for shard in domain.shards):
        if not Path(f"{shard.prefix}.bin").is_file():
            raise InputError(
                f"{shard.prefix}.bin: no such file: this format names the .bin and .idx files of a corpus; one that is "
                "read in place has none. Prepare it (doremi prepare with the folder in corpus.inputs), or export csv"
            )


def prefix_weights(domain: Domain) -> dict[str, float]:
    """A domain's weight shared out over its shards in proportion to their tokens, so that all its rows are as likely.

    A stack that draws sequences file by file would otherwise repeat a small shard more often than a large one.
    """
    return {shard.prefix: domain.weight * shard.tokens / domain.tokens for shard in domain.shards}
