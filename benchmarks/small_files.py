"""Speed of preparing many small files: ``python -m benchmarks.small_files [--files N] [--json FILE]``.

N files of JSON lines, 1 kB each with two documents of 13 domains; words are made up, and a byte-level BPE of 2,048
tokens is trained on some of them beforehand. Every contestant gets the same files, in a process of its own on one core,
one after the other; ours writes a shard for each domain, the others do not route by domain. Contestants run in
``.venv-bench`` (see ``peers-prepare.txt``); one that does not run fails the benchmark.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.prepare_contestant import cpu_seconds, peak_rss_mb

ROOT = Path(__file__).parents[1]
NUM_DOMAINS = 13
WORDS_PER_DOCUMENT = 75
CONTESTANTS = ("doremi", "doremi, fastokens", "datatrove", "datasets.map")


def write_files(folder: Path, num_files: int) -> None:
    """The files, and the tokenizer beside them."""
    from doremi.corpus.tokenizing import tokenizers

    source = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(source.choices(letters, k=source.randrange(2, 9))) for _ in range(2000)]
    (folder / "in").mkdir()
    for number in range(num_files):
        texts = [" ".join(source.choices(words, k=WORDS_PER_DOCUMENT)) for _ in range(2)]
        records = [{"text": text, "set": f"domain-{source.randrange(NUM_DOMAINS):02d}"} for text in texts]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / "in" / f"{number:06d}.jsonl").write_text(lines)
    sample = [" ".join(source.choices(words, k=WORDS_PER_DOCUMENT)) for _ in range(500)]
    tokenizers.train(sample, vocab_size=2048).save(folder / "tokenizer")


def doremi(folder: Path, out: Path, backend: str) -> Callable[[], int]:
    """Our preparation: read, route, encode, write, digest, manifest."""
    from doremi.corpus import prepare
    from doremi.corpus.config import CorpusConfig

    tokenizer = {"path": str(folder / "tokenizer"), "backend": backend}
    inputs = [{"path": str(folder / "in"), "domain_field": "set"}]
    config = CorpusConfig.model_validate({"inputs": inputs, "tokenizer": tokenizer})

    def work() -> int:
        store = prepare(config, out)
        return sum(store.num_documents(name, split=split) for name in store.names for split in ("train", "held_out"))

    return work


def datatrove(folder: Path, out: Path) -> Callable[[], int]:
    """DocumentTokenizer over the folder."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from loguru import logger

    logger.remove()
    tokenizer = str(folder / "tokenizer" / "tokenizer.json")

    def work() -> int:
        tokenise = DocumentTokenizer(
            str(out / "tokens"),
            tokenizer_name_or_path=tokenizer,
            eos_token="<|endoftext|>",
            shuffle_documents=False,
        )
        LocalPipelineExecutor([JsonlReader(str(folder / "in")), tokenise], logging_dir=str(out / "logs")).run()
        return int(json.loads((out / "logs" / "stats.json").read_text())[0]["stats"]["documents"]["total"])

    return work


def datasets_map(folder: Path, out: Path) -> Callable[[], int]:
    """load_dataset over all files, then a map of the tokenizer."""
    import datasets
    from transformers import PreTrainedTokenizerFast

    datasets.disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer" / "tokenizer.json"))

    def work() -> int:
        paths = [str(path) for path in sorted((folder / "in").iterdir())]
        dataset = datasets.load_dataset("json", data_files=paths, split="train", cache_dir=str(out / "cache"))
        ids = dataset.map(lambda batch: tokenizer(batch["text"]), batched=True, remove_columns=dataset.column_names)
        ids.save_to_disk(out / "saved")
        return len(ids)

    return work


def measure(name: str, folder: Path) -> dict[str, Any]:
    """One contestant in this process; the time of imports does not count."""
    num_files = sum(1 for _ in (folder / "in").iterdir())
    with tempfile.TemporaryDirectory(dir=folder) as out:
        makers: dict[str, Callable[[], Callable[[], int]]] = {
            "doremi": lambda: doremi(folder, Path(out), "tokenizers"),
            "doremi, fastokens": lambda: doremi(folder, Path(out), "fastokens"),
            "datatrove": lambda: datatrove(folder, Path(out)),
            "datasets.map": lambda: datasets_map(folder, Path(out)),
        }
        work = makers[name]()
        began, cpu_began = time.perf_counter(), cpu_seconds()
        num_documents = work()
        cpu, wall = cpu_seconds() - cpu_began, time.perf_counter() - began
        return {
            "files_per_cpu_second": num_files / cpu,
            "files_per_second": num_files / wall,
            "documents": num_documents,
            "files_written": sum(1 for path in Path(out).rglob("*") if path.is_file()),
            "peak_rss_mb": peak_rss_mb(),
        }


def run(python: str, name: str, folder: str) -> dict[str, Any]:
    """One contestant in a process of its own on one core.

    Raises:
        SystemExit: it does not run here.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1", "RAYON_NUM_THREADS": "1"}
    command = [python, "-W", "ignore", "-m", "benchmarks.small_files", "--contestant", name, "--folder", folder]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} does not run here: {done.stderr.strip().splitlines()[-1]}; `rm -r .venv-bench` and try again")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_files", description=__doc__)
    parser.add_argument("--files", type=int, default=20_000, help="number of them (default: 20,000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--python", default=str(ROOT / ".venv-bench" / "bin" / "python"), help="of all contestants")
    parser.add_argument("--folder", type=Path, help="where everything is written, and deleted in the end")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        print(json.dumps(measure(arguments.contestant, arguments.folder)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        write_files(Path(folder), arguments.files)
        results = {name: run(arguments.python, name, folder) for name in CONTESTANTS}
    if len({result["documents"] for result in results.values()}) != 1:
        sys.exit(f"contestants dealt with different numbers of documents: {results}")
    for name, result in results.items():
        print(f"{name:20}" + "".join(f"{value:>12,.0f} {key}" for key, value in result.items()))
    if arguments.json:
        load = round(os.getloadavg()[0], 1)
        report = {"files": arguments.files, "load_average": load, "contestants": results}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
