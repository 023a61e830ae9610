"""From a recipe's corpus section to a finished `TokenStore`: idempotent, resumable, one unit after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doremi import files
from doremi.corpus.config import CorpusConfig, InputConfig, SetConfig, check_sets
from doremi.corpus.preparing.in_memory import as_datasets
from doremi.corpus.preparing.job import CheckDomains, Job, begin, config_digest, finish, finished
from doremi.corpus.preparing.progress import Progress
from doremi.corpus.preparing.units import Encoder, encode_in_processes
from doremi.corpus.preparing.work import WorkFolder
from doremi.corpus.reading.grouping import Unit
from doremi.corpus.reading.inputs import InputFile, Kind
from doremi.corpus.storing import in_place
from doremi.corpus.storing.contents import check_names
from doremi.corpus.storing.lock import FolderLock, full_disk_reported, locked
from doremi.corpus.storing.store import TokenStore
from doremi.corpus.tokenizing import tokenizers as corpus_tokenizers
from doremi.corpus.tokenizing.tokenizers import CorpusTokenizer

if TYPE_CHECKING:
    from datasets import Dataset

EncodeAll = Callable[[Job, CorpusTokenizer, FolderLock], None]  # returns when no unit of the job is left


def encode_here(job: Job, tokenizer: CorpusTokenizer, lock: FolderLock) -> None:
    """Encode the units that are left, in this process or in ``num_workers`` of them."""
    left = job.left()
    with Progress("tokenise", job.units) as progress:
        for ordinal, unit in enumerate(job.units):
            if ordinal not in left:
                progress.finish(unit)
        names: set[str] = set()
        for ordinal in _encoded(job, left, progress, tokenizer):
            progress.finish(job.units[ordinal])
            names.update(job.work.domains(ordinal))
            check_names(names, sets=job.set_names)  # now, not after the last of a thousand files


def _encoded(job: Job, left: dict[int, Unit], progress: Progress, tokenizer: CorpusTokenizer) -> Iterator[int]:
    num_workers = min(job.config.num_workers, len(left))
    if num_workers > 1:
        yield from encode_in_processes(left, job.encoder_settings, num_workers=num_workers)
    elif left:
        encoder = Encoder(job.encoder_settings, tokenizer)
        for ordinal, unit in left.items():
            encoder.encode(ordinal, unit, advance=progress.advance)
            yield ordinal


def prepare(
    config: CorpusConfig,
    folder: str | Path,
    *,
    sets: Sequence[SetConfig] = (),
    encode_all: EncodeAll = encode_here,
    check_domains: CheckDomains | None = None,
) -> TokenStore:
    """Tokenise a corpus and its evaluation sets into ``folder``, or open it if that was done before.

    An interrupted preparation goes on with the units that are not finished, and ends with the same bytes as an
    undisturbed one. The result does not depend on where the inputs lie, on the time, on the number of threads
    or on ``encode_all``, which encodes the units: `encode_here`, or what `doremi.corpus.preparing.cluster` has.

    Documents of ``sets`` are stored beside the domains' and are none of theirs. Training documents with exactly the
    text of one are left out and counted; held-out ones stay.

    ``check_domains`` is called with the names of the domains, to raise what it has against them, as early as they are
    known: at once where inputs or folders name them, else once all records were read to train a tokenizer. Where that
    is not to be done either, they are known at the end, and it is not called.

    Raises:
        MissingFileError: an input or the tokenizer does not exist.
        InputError: an input cannot be used (the message begins with file:line), the folder holds another corpus or is
            being prepared by another process, the disk is full, or a domain ends without training or held-out text.
    """
    folder = Path(folder)
    check_sets(config, sets)
    digest = config_digest(config, sets)
    if not WorkFolder(folder).exists() and (store := finished(folder, digest, config)) is not None:
        return store
    if config.store is not None:
        with locked(folder):
            files.remove_partial(folder)
            return in_place.refer(config, folder, config_digest=digest)
    return run(Job.of(config, folder, sets=sets, check_domains=check_domains), encode_all)


def from_datasets(
    domains: Mapping[str, Dataset | Sequence[str] | Sequence[Dataset]],
    tokenizer: Any,
    path: str | Path,
    *,
    text_column: str = "text",
    held_out_fraction: float = 0.05,
) -> TokenStore:
    """Tokenise texts in memory or Hugging Face datasets into a store at ``path``; else like `prepare`.

    Args:
        domains: domain name to dataset, with a column of text or, without one, of token ids in ``input_ids``; to a list
            of such datasets; or to a list of texts.
        tokenizer: a fast tokenizer of transformers, one of tokenizers, or the path of one.
        path: folder of the store.
        text_column: name of the column of text.
        held_out_fraction: share of each domain's documents held out, by content hash.

    Raises:
        InputError: as `prepare`; or ``domains`` holds something else.
    """
    found = as_datasets(domains, text_column=text_column)
    items = {name: InputConfig(path="(in memory)", text_field=text_column, domain=name) for name in found}
    inputs = [InputFile(Kind.DATASET, items[name], domain=name, dataset=found[name]) for name in found]
    config = CorpusConfig(inputs=list(items.values()), held_out_fraction=held_out_fraction)
    wrapped = corpus_tokenizers.wrap(tokenizer)
    fingerprints = {name: dataset._fingerprint for name, dataset in found.items()}
    digest = files.digest_json([config.model_dump(mode="json"), fingerprints, wrapped.entry.digest])
    folder = Path(path)
    return finished(folder, digest, config) or run(Job(config, folder, digest, inputs, wrapped), encode_here)


def run(job: Job, encode_all: EncodeAll) -> TokenStore:
    """All steps of a job, under the lock of its folder."""
    with locked(job.folder) as lock, full_disk_reported(job.folder):
        if (store := finished(job.folder, job.digest, job.config)) is not None:
            files.remove_partial(job.folder)
            job.work.remove()  # killed after its manifest, or finished by another process while this one was looking
            return store
        tokenizer = begin(job)
        encode_all(job, tokenizer, lock)
        finish(job, tokenizer)
    return TokenStore.open(job.folder, packing=job.config.packing)
