"""What cases begin with: a prepared corpus, its tokenizer, a model, a saved dataset and a finished run's results."""

from __future__ import annotations

import json
import shutil
from random import Random

from tests.hostile.bench import Bench
from tests.report.synthetic import make_results, write_run


def make_base(doremi, folder):
    from doremi.corpus.tokenizing import tokenizers

    base = folder / "base"
    base.mkdir()
    (folder / "work").mkdir()
    bench = Bench(folder / "work", base, Random(0))
    tokenizers.train([document["text"] for document in bench.documents()], vocab_size=280).save(base / "tokenizer")
    found = doremi(bench.run("prepare").arguments, folder / "work")
    assert found["code"] == 0, found["stderr"]
    shutil.copytree(folder / "work" / "out" / "corpus", base / "corpus")
    save_model(base / "model", json.loads((base / "corpus" / "manifest.json").read_text()))
    shutil.copytree(base / "tokenizer", base / "model", dirs_exist_ok=True)
    save_dataset(base / "saved", bench.documents())
    (base / "finished").mkdir()
    write_run(base / "finished", make_results(2, names=["code", "prose"], num_recorded=5))
    return base


def save_model(folder, manifest):
    from transformers import LlamaConfig, LlamaForCausalLM

    size = manifest["tokenizer"]["vocab_size"]
    config = LlamaConfig(vocab_size=size, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def save_dataset(folder, documents):
    import datasets

    datasets.Dataset.from_list(documents).save_to_disk(str(folder))
