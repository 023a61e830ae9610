"""What the README shows works as it stands: its Python is run, its commands exist, its numbers of keys are real."""

from __future__ import annotations

import json
import re
from pathlib import Path

import datasets
import pytest
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from doremi.cli.main import build_parser
from doremi.corpus import from_datasets
from doremi.corpus.tokenizing import tokenizers
from doremi.experiment import recipe

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SHORTER = {"max_steps=1000": "max_steps=3", "1024": "32", "batch_size=64": "batch_size=4"}
DOMAINS = {
    "web": "the cat sat on the mat and looked at the river. ",
    "code": "def f(x):\n    return x + 1\n",
    "books": "It was a bright cold day, and the clocks were striking. ",
}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def user_folder(tmp_path, monkeypatch):
    """A reference model with its tokenizer, three datasets and a prepared corpus, where the README has them."""
    monkeypatch.chdir(tmp_path)
    texts = {name: [f"{index} {text * (5 + index % 7)}" for index in range(120)] for name, text in DOMAINS.items()}
    for name, documents in texts.items():
        datasets.Dataset.from_dict({"text": documents}).save_to_disk(f"data/{name}")
    tokenizers.train([text for each in texts.values() for text in each], vocab_size=300).save(Path("my-reference"))
    config = LlamaConfig(vocab_size=300, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                         num_attention_heads=2, bos_token_id=0, eos_token_id=0)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained("my-reference")
    from_datasets(
        {name: datasets.load_from_disk(f"data/{name}") for name in DOMAINS}, "my-reference", "runs/mine/corpus"
    )
    return tmp_path


@pytest.mark.parametrize("index", range(len(blocks("python"))))
def test_python_runs(user_folder, index):
    code = blocks("python")[index]
    for long, short in SHORTER.items():
        code = code.replace(long, short)
    exec(compile(code, "README.md", "exec"), {})
    if "weights.json" in code:
        weights = json.loads((user_folder / "weights.json").read_text())
        assert set(weights["train_domain_weights"]) == set(DOMAINS)


def test_the_recipe_is_valid():
    for block in blocks("yaml"):
        recipe.parse({"corpus": {"inputs": [{"path": "data"}]}} | yaml.safe_load(block))  # some show a part only


def test_every_command_exists():
    commands = re.findall(r"^doremi (.*?)(?:\s+#.*)?$", "\n".join(blocks("sh")), flags=re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        build_parser().parse_args(command.split(" > ")[0].split())
