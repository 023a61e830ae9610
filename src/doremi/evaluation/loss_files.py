"""The losses of held-out documents on disk: one Parquet file a model, for these statistics and for others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from doremi.evaluation import keyed_tables
from doremi.evidence.paired_documents import DocumentLosses

_COLUMNS = ("domain", "document", "num_tokens", "nats")


def write(path: Path, losses: Mapping[str, DocumentLosses], *, documents: Mapping[str, np.ndarray], key: str) -> None:
    """Write columns domain, document (its place among the domain's held-out ones), num_tokens (scored) and nats (sum).

    Args:
        path: a ``.parquet`` file, written atomically.
        losses: by domain.
        documents: by domain, int64[n], the documents in the order of the losses.
        key: of everything that the numbers depend on; `read` asks for it.
    """
    names = list(losses)
    sizes = [len(losses[name].nats) for name in names]
    domain = pa.DictionaryArray.from_arrays(pa.array(np.repeat(np.arange(len(names), dtype=np.int32), sizes)), names)
    columns = [
        domain,
        *(
            pa.array(np.concatenate([part[name] for name in names]))
            for part in (
                documents,
                {name: losses[name].num_tokens for name in names},
                {name: losses[name].nats for name in names},
            )
        ),
    ]
    keyed_tables.write(path, pa.table(dict(zip(_COLUMNS, columns, strict=True))), key=key)


def read(path: Path, names: Sequence[str], *, key: str) -> dict[str, DocumentLosses] | None:
    """The losses that `write` put there under the same key, by domain; None: there are none.

    Raises:
        InputError: the file is damaged.
    """
    table = keyed_tables.read(path, key=key, remedy="delete it, and the model is scored again")
    if table is None:
        return None
    domain = np.array(table["domain"].to_pylist(), object)
    nats, num_tokens = table["nats"].to_numpy(), table["num_tokens"].to_numpy()
    return {name: DocumentLosses(nats[domain == name], num_tokens[domain == name]) for name in names}
