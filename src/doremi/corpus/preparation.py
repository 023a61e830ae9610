"""From a recipe's corpus section to a finished `TokenStore`: idempotent, resumable, one input file after the other."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doremi import __version__, files
from doremi.corpus import in_place, indexed, manifest
from doremi.corpus import tokenizers as corpus_tokenizers
from doremi.corpus.contents import check_names, collect
from doremi.corpus.documents import read
from doremi.corpus.inputs import InputFile, Kind, input_files
from doremi.corpus.lock import full_disk_reported, locked
from doremi.corpus.progress import Progress
from doremi.corpus.split import HeldOutRule, TextSample
from doremi.corpus.store import TOKENIZER_FOLDER, TokenStore
from doremi.corpus.tokenizers import CorpusTokenizer
from doremi.corpus.units import Encoder, EncoderSettings, encode_in_processes
from doremi.corpus.work import WorkFolder
from doremi.errors import InputError
from doremi.recipe import CorpusConfig, InputConfig

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

# A change of these does not change a byte of the store.
FREE_SETTINGS: dict[str, Any] = {"packing": True, "num_workers": True, "tokenizer": {"backend"}}


@dataclass(frozen=True)
class _Job:
    config: CorpusConfig
    folder: Path
    digest: str  # of what decides the bytes of the store
    inputs: Sequence[InputFile]
    tokenizer: CorpusTokenizer | None = None  # given as an object


def prepare(config: CorpusConfig, folder: str | Path) -> TokenStore:
    """Tokenise a corpus into ``folder``, or open it if that was done before.

    An interrupted preparation goes on with the input files that are not finished, and ends with the same bytes as an
    undisturbed one. The result does not depend on where the inputs lie, on the time or on the number of threads.

    Raises:
        MissingFileError: an input or the tokenizer does not exist.
        InputError: an input cannot be used (the message begins with file:line), the folder holds another corpus or is
            being prepared by another process, the disk is full, or a domain ends without training or held-out text.
    """
    folder = Path(folder)
    digest = files.digest_json(config.model_dump(mode="json", exclude=FREE_SETTINGS))
    if not WorkFolder(folder).exists() and (store := _finished(folder, digest, config)) is not None:
        return store
    if config.store is not None:
        return in_place.refer(config, folder, config_digest=digest)
    return _run(_Job(config, folder, digest, input_files(config)))


def from_datasets(
    domains: Mapping[str, Dataset],
    tokenizer: Any,
    path: str | Path,
    *,
    text_column: str = "text",
    held_out_fraction: float = 0.05,
) -> TokenStore:
    """Tokenise Hugging Face datasets, one per domain, into a store at ``path``; like `prepare` in every other respect.

    Args:
        domains: domain name to dataset, with a column of text or, without one, of token ids in ``input_ids``.
        tokenizer: a fast tokenizer of transformers, one of tokenizers, or the path of one.
        path: folder of the store.
        text_column: name of the column of text.
        held_out_fraction: share of each domain's documents held out, by content hash.

    Raises:
        InputError: as `prepare`.
    """
    if not domains:
        raise InputError("from_datasets: no dataset given; give {domain name: dataset}")
    items = {name: InputConfig(path="(in memory)", text_field=text_column, domain=name) for name in domains}
    inputs = [InputFile(Kind.DATASET, items[name], domain=name, dataset=domains[name]) for name in domains]
    config = CorpusConfig(inputs=list(items.values()), held_out_fraction=held_out_fraction)
    wrapped = corpus_tokenizers.wrap(tokenizer)
    fingerprints = {name: dataset._fingerprint for name, dataset in domains.items()}
    digest = files.digest_json([config.model_dump(mode="json"), fingerprints, wrapped.entry.digest])
    folder = Path(path)
    return _finished(folder, digest, config) or _run(_Job(config, folder, digest, inputs, wrapped))


def _finished(folder: Path, digest: str, config: CorpusConfig) -> TokenStore | None:
    if not (folder / manifest.NAME).is_file():
        return None
    if manifest.read(folder).get("config_digest") != digest:
        raise InputError(
            f"{folder}: holds a corpus prepared with other settings; use another folder, or delete this one to prepare "
            "it again"
        )
    return TokenStore.open(folder, packing=config.packing)


def _run(job: _Job) -> TokenStore:
    with locked(job.folder), full_disk_reported(job.folder):
        work = WorkFolder(job.folder)
        if (store := _finished(job.folder, job.digest, job.config)) is not None:
            work.remove()  # killed after its manifest, or finished by another process while this one was looking
            return store
        work.claim(job.digest, job.inputs)
        _hash_held_out(job, work)
        fraction = 0.0 if job.config.held_out_inputs else job.config.held_out_fraction
        tokenizer = _tokenizer(job, HeldOutRule(fraction, work.held_out_hashes()))
        _encode(job, work, fraction, tokenizer)
        files.write_json(job.folder / manifest.NAME, _manifest(job, work, tokenizer))
        work.remove()
    return TokenStore.open(job.folder, packing=job.config.packing)


def _hash_held_out(job: _Job, work: WorkFolder) -> None:
    """Read the files that are held out as a whole, so that no training document equals one of theirs."""
    for ordinal, file in enumerate(job.inputs):
        if file.split == "held_out" and not work.has_hashes(ordinal):
            chunks = read(file, on_bad_record=job.config.on_bad_record)
            work.write_hashes(ordinal, [document.hash for chunk in chunks for document in chunk.documents])


def _tokenizer(job: _Job, rule: HeldOutRule) -> CorpusTokenizer:
    """The tokenizer in the store, put there now if it is not yet."""
    folder, settings = job.folder / TOKENIZER_FOLDER, job.config.tokenizer
    if (folder / "tokenizer.json").is_file():
        return corpus_tokenizers.load(str(folder), encode_with=settings.backend)
    if job.tokenizer is not None:
        tokenizer = job.tokenizer
    elif settings.path is not None:
        tokenizer = corpus_tokenizers.load(settings.path, eos_token=settings.eos_token, encode_with=settings.backend)
    else:
        texts = _training_texts(job, rule)
        tokenizer = corpus_tokenizers.train(texts, vocab_size=settings.vocab_size, encode_with=settings.backend)
    tokenizer.save(folder)
    return tokenizer


def _training_texts(job: _Job, rule: HeldOutRule) -> list[str]:
    sample = TextSample(job.config.tokenizer.train_megabytes * 1e6)
    inputs = [file for file in job.inputs if file.split != "held_out"]
    with Progress("sample text for the tokenizer", inputs) as progress:
        for file in inputs:
            for chunk in read(file, on_bad_record=job.config.on_bad_record):
                for document in chunk.documents:
                    if rule.side(document, file.split) == "train":
                        sample.add(document)
                progress.advance(chunk)
            progress.finish(file)
    texts = sample.texts()
    if not texts:
        raise InputError(
            "corpus: no text to train a tokenizer on; if the inputs hold token ids, set corpus.tokenizer.path to the "
            "tokenizer that made them, else check that they are not empty"
        )
    return texts


def _encode(job: _Job, work: WorkFolder, fraction: float, tokenizer: CorpusTokenizer) -> None:
    settings = EncoderSettings(
        job.folder, fraction, on_bad_record=job.config.on_bad_record, encode_with=job.config.tokenizer.backend
    )
    left = {ordinal: file for ordinal, file in enumerate(job.inputs) if not work.is_finished(ordinal)}
    with Progress("tokenise", job.inputs) as progress:
        for file in (file for ordinal, file in enumerate(job.inputs) if ordinal not in left):
            progress.finish(file)
        names: set[str] = set()
        for ordinal in _encoded(left, settings, job.config.num_workers, progress, tokenizer):
            progress.finish(job.inputs[ordinal])
            names.update(work.domains(ordinal))
            check_names(names)  # now, not after the last of a thousand files


def _encoded(
    left: dict[int, InputFile],
    settings: EncoderSettings,
    num_workers: int,
    progress: Progress,
    tokenizer: CorpusTokenizer,
) -> Iterator[int]:
    if num_workers > 1 and len(left) > 1:
        yield from encode_in_processes(left, settings, num_workers=min(num_workers, len(left)))
    elif left:
        encoder = Encoder(settings, tokenizer)
        for ordinal, file in left.items():
            encoder.encode(ordinal, file, advance=progress.advance)
            yield ordinal


def _manifest(job: _Job, work: WorkFolder, tokenizer: CorpusTokenizer) -> dict[str, Any]:
    markers = [work.marker(ordinal) for ordinal in range(len(job.inputs))]
    settings = {
        "config_digest": job.digest,
        "packing": job.config.packing,
        "prepared_by": f"doremi {__version__}",
        "encoded_by": sorted({marker["encoded_by"] for marker in markers}),
    }
    inputs = [{"name": Path(marker["name"]).name, "skipped": marker["skipped"]} for marker in markers]
    return manifest.build(
        tokenizer=tokenizer.entry,
        dtype=indexed.dtype_for(tokenizer.entry.vocab_size),
        domains=collect(markers),
        inputs=inputs,
        settings=settings,
    )
