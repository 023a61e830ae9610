"""Formats that carry the weights themselves: upstream's JSON, and a table of every counting.

Upstream reads ``train_domain_weights`` and ``eval_domain_weights`` and interleaves chunks by them, so they count
sequences (doremi/train.py and get_perdomain_datasets in doremi/dataloader.py of sangmichaelxie/doremi, 7cde52d).
"""

from __future__ import annotations

import csv
import io
import json

from doremi.exporters.describe import Export, record
from doremi.exporters.mixture import Domain, Mixture, Unit

COLUMNS = (
    "domain", "weight", "document_weight", "byte_weight", "tokens", "documents", "bytes",
    "tokenizer_digest", "corpus_digest",
)  # fmt: skip


def upstream(mixture: Mixture, unit: Unit) -> Export:
    """Upstream's domain configuration; it ignores the third key."""
    weights = mixture.draws(unit)
    content = {
        "train_domain_weights": weights,
        "eval_domain_weights": weights,
        "provenance": {"tokenizer_digest": mixture.tokenizer.digest, "export": record(mixture, unit)},
    }
    return Export({"domain-weights.json": json.dumps(content, indent=1, ensure_ascii=False) + "\n"}, mixture.warnings)


def table(mixture: Mixture, unit: Unit) -> Export:
    """CSV: ``weight`` counts tokens or sequences, the other two documents and bytes; empty where bytes are unknown."""
    known = all(domain.bytes for domain in mixture.domains)
    by_document, by_byte = mixture.draws("documents"), mixture.draws("bytes") if known else {}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)  # "minimal" leaves a \r unquoted
    writer.writerow(COLUMNS)
    for domain in mixture.domains:
        weights = (domain.weight, by_document[domain.name], by_byte.get(domain.name, ""))
        writer.writerow((domain.name, *weights, *_sizes(domain), mixture.tokenizer.digest, mixture.corpus_digest))
    return Export({"domain-weights.csv": text.getvalue()}, mixture.warnings)


def _sizes(domain: Domain) -> tuple[object, ...]:
    return domain.tokens, domain.documents, domain.bytes or ""
