"""One preparation as three steps: plan it once, encode its units anywhere in any order, put them together."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from doremi import __version__, files, redaction
from doremi.corpus.config import CorpusConfig, SetConfig
from doremi.corpus.preparing.progress import Progress
from doremi.corpus.preparing.units import EncoderSettings
from doremi.corpus.preparing.work import WorkFolder
from doremi.corpus.reading.batches import read_unit
from doremi.corpus.reading.grouping import Unit, units
from doremi.corpus.reading.inputs import InputFile, input_files
from doremi.corpus.reading.split import TextSample, read_hashes, write_hashes
from doremi.corpus.storing import indexed, manifest
from doremi.corpus.storing.contents import check_names, check_not_empty, collect
from doremi.corpus.storing.store import TOKENIZER_FOLDER, TokenStore
from doremi.corpus.tokenizing import tokenizers as corpus_tokenizers
from doremi.corpus.tokenizing.tokenizers import CorpusTokenizer
from doremi.errors import InputError

# A change of these does not change a byte of the store.
FREE_SETTINGS: dict[str, Any] = {"packing": True, "num_workers": True, "tokenizer": {"backend"}}

CheckDomains = Callable[[Collection[str]], None]


@dataclass(frozen=True)
class Job:
    """A corpus to prepare in a folder, with its evaluation sets."""

    config: CorpusConfig
    folder: Path
    digest: str  # of what decides the bytes of the store
    inputs: Sequence[InputFile]
    tokenizer: CorpusTokenizer | None = None  # given as an object
    check_domains: CheckDomains | None = None  # called with the names of the domains once they are known
    sets: Sequence[SetConfig] = ()

    @classmethod
    def of(
        cls,
        config: CorpusConfig,
        folder: Path,
        *,
        sets: Sequence[SetConfig] = (),
        check_domains: CheckDomains | None = None,
    ) -> Job:
        """The preparation of a recipe's corpus and evaluation sets. Lists its inputs; raises what `input_files` does.

        Datasets of the hub are those of the commits that a preparation in ``folder`` was begun with.
        """
        inputs = input_files(config, sets=sets, commits=WorkFolder(folder).commits())
        return cls(config, folder, config_digest(config, sets), inputs, check_domains=check_domains, sets=sets)

    @property
    def set_names(self) -> tuple[str, ...]:
        """The evaluation sets in the order of the recipe, each once."""
        return tuple(dict.fromkeys(item.name for item in self.sets))

    @property
    def work(self) -> WorkFolder:
        """What is finished of it."""
        return WorkFolder(self.folder)

    @property
    def encoder_settings(self) -> EncoderSettings:
        """For whoever encodes its input files."""
        return EncoderSettings(
            self.folder,
            held_out_fraction=0.0 if self.config.held_out_inputs else self.config.held_out_fraction,
            on_bad_record=self.config.on_bad_record,
            encode_with=self.config.tokenizer.backend,
        )

    @cached_property
    def units(self) -> list[Unit]:
        """The units of its input files, of the size that it was begun with; to be asked for once it was begun."""
        return units(self.inputs, unit_bytes=self.work.unit_bytes())

    def left(self) -> dict[int, Unit]:
        """The units that are not finished, by ordinal."""
        return {ordinal: unit for ordinal, unit in enumerate(self.units) if not self.work.is_finished(ordinal)}


def config_digest(config: CorpusConfig, sets: Sequence[SetConfig] = ()) -> str:
    """Of what decides the bytes of a store."""
    content = config.model_dump(mode="json", exclude=FREE_SETTINGS)
    of_sets = {"sets": [item.model_dump(mode="json") for item in sets]} if sets else {}
    return files.digest_json(redaction.identity(content | of_sets))


def finished(folder: Path, digest: str, config: CorpusConfig) -> TokenStore | None:
    """The store in ``folder``, if it is finished.

    Raises:
        InputError: it is, but for other settings.
    """
    if not (folder / manifest.NAME).is_file():
        return None
    if manifest.read(folder).get("config_digest") != digest:
        raise InputError(
            f"{folder}: holds a corpus prepared with other settings; use another folder, or delete this one to prepare "
            "it again"
        )
    return TokenStore.open(folder, packing=config.packing)


def begin(job: Job) -> CorpusTokenizer:
    """Claim the folder, read what is evaluated on as a whole, and load or train the tokenizer. Idempotent.

    Raises:
        InputError: the folder belongs to a preparation of something else, or the tokenizer or an input cannot be used.
    """
    check_names((), sets=job.set_names)
    _check_domains(job, [file.domain for file in job.inputs if not file.is_evaluated])
    if job.work.has_only_a_plan() and job.work.difference(job.digest, job.inputs) is not None:
        job.work.remove()  # most often a mistake in the recipe, mended
        shutil.rmtree(job.folder / TOKENIZER_FOLDER, ignore_errors=True)
    job.work.claim(job.digest, job.inputs)
    _hash_evaluated(job)
    return _tokenizer(job)


def _check_domains(job: Job, names: Iterable[str | None]) -> None:
    """Where inputs or their folders say all of them; None: it is the records that do."""
    known = set(names)
    check_names([name for name in known if name is not None], sets=job.set_names)
    if job.check_domains is not None and None not in known:
        job.check_domains([name for name in known if name is not None])


def finish(job: Job, tokenizer: CorpusTokenizer) -> None:
    """Write the manifest of a job whose units are all encoded, and remove what was only for the work.

    Raises:
        InputError: what only the whole corpus shows, such as a domain without held-out text.
    """
    files.write_json(job.folder / manifest.NAME, _manifest(job, tokenizer))
    job.work.remove()


def _hash_evaluated(job: Job) -> None:
    """Read the files that are evaluated on as a whole, so that no training document equals one of theirs.

    Raises:
        InputError: an evaluation set has no document.
    """
    num_hashes = dict.fromkeys(job.set_names, 0)
    for ordinal, unit in enumerate(job.units):
        if not unit.is_evaluated:
            continue
        path = job.work.hashes(ordinal, unit)
        if not path.is_file():
            batches = read_unit(unit, on_bad_record=job.config.on_bad_record)
            write_hashes(path, [document.hash for batch in batches for document, _ in batch.documents()])
        if unit.evaluation_set is not None:
            num_hashes[unit.evaluation_set] += len(read_hashes([path]))
    for name, number in num_hashes.items():
        check_not_empty(name, number)


def _tokenizer(job: Job) -> CorpusTokenizer:
    """The tokenizer in the store, put there now if it is not yet."""
    folder, settings = job.folder / TOKENIZER_FOLDER, job.config.tokenizer
    if (folder / "tokenizer.json").is_file():
        return corpus_tokenizers.load(str(folder), encode_with=settings.backend)
    if job.tokenizer is not None:
        tokenizer = job.tokenizer
    elif settings.path is not None:
        tokenizer = corpus_tokenizers.load(settings.path, eos_token=settings.eos_token, encode_with=settings.backend)
    else:
        texts = _training_texts(job)
        tokenizer = corpus_tokenizers.train(texts, vocab_size=settings.vocab_size, encode_with=settings.backend)
    tokenizer.save(folder)
    return tokenizer


def _training_texts(job: Job) -> list[str]:
    rule = job.work.rule(job.encoder_settings.held_out_fraction)
    sample = TextSample(job.config.tokenizer.train_megabytes * 1e6)
    training = [unit for unit in job.units if not unit.is_evaluated]
    names: set[str | None] = set()
    with Progress("sample text for the tokenizer", training) as progress:
        for unit in training:
            for batch in read_unit(unit, on_bad_record=job.config.on_bad_record):
                for document, file in batch.documents():
                    names.add(document.domain)
                    if rule.side(document, file.split) == "train":
                        sample.add(document)
                progress.advance(batch)
            progress.finish(unit)
    _check_domains(job, names)
    texts = sample.texts()
    if not texts:
        raise InputError(
            "corpus: no text to train a tokenizer on; if the inputs hold token ids, set corpus.tokenizer.path to the "
            "tokenizer that made them, else check that they are not empty"
        )
    return texts


def _manifest(job: Job, tokenizer: CorpusTokenizer) -> dict[str, Any]:
    markers = [job.work.marker(ordinal) for ordinal in range(len(job.units))]
    settings = {
        "config_digest": job.digest,
        "packing": job.config.packing,
        "prepared_by": f"doremi {__version__}",
        "encoded_by": sorted({marker["encoded_by"] for marker in markers}),
    }
    inputs = [
        {"name": item["short_name"], "skipped": item["skipped"]} for marker in markers for item in marker["inputs"]
    ]
    found = collect(markers, sets=job.set_names)
    return manifest.build(
        tokenizer=tokenizer.entry,
        dtype=indexed.dtype_for(tokenizer.entry.vocab_size),
        domains=found.domains,
        sets=found.sets,
        inputs=inputs,
        settings=settings,
    )
