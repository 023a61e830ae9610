"""Every format read back: names and numbers survive, whatever a domain is called, and each says what it counts."""

from __future__ import annotations

import ast
import csv
import io
import json
import shlex
from collections.abc import Callable
from dataclasses import replace

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from doremi import DomainWeights, files
from doremi.exporters import FORMATS, Export, Mixture, TokenizerFacts, export, retokenized
from doremi.exporters.levanter import MAX_BLOCK_SIZE, block_size
from tests.exporters.conftest import by_hand

HOSTILE = (
    "Gutenberg (PG-19)", "Wikipedia (en)", "a: b", "null", "1e3", "it's \"so\" #1", "../x", "${y}", "=1+1", "\n- z",
    '"""\nimport os', "Bücher \U0001f4da\u202e", "\x00", "- a\r", "{b}", "%41",
)  # fmt: skip


def _name(path: str) -> str:
    return next(files.decode_name(part) for part in path.split("/") if part.startswith("domain="))


def _literal(text: str, variable: str) -> dict[str, float]:
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == variable:
            return ast.literal_eval(node.value)
    raise AssertionError(variable)


def _megatron(text: str) -> dict[str, float]:
    words = json.loads(text)["train"]
    return {_name(prefix): float(weight) for weight, prefix in zip(words[::2], words[1::2], strict=True)}


def _bridge(text: str) -> dict[str, float]:
    prefixes, weights = yaml.safe_load(text)["dataset"]["blend_per_split"][0]
    return dict(zip(map(_name, prefixes), weights, strict=True))


def _nanotron(text: str) -> dict[str, float]:
    dataset = yaml.safe_load(text)["data_stages"][0]["data"]["dataset"]
    return dict(zip(map(_name, dataset["dataset_folder"]), dataset["dataset_weights"], strict=True))


def _mosaicml(text: str) -> dict[str, float]:
    streams = yaml.safe_load(text)["streams"]
    assert all(_name(stream["local"]) == name for name, stream in streams.items())
    return {name: stream["proportion"] for name, stream in streams.items()}


def _olmo_core(text: str) -> dict[str, float]:
    sources = yaml.safe_load(text)["sources"]
    assert all(_name(source["paths"][0]) == source["source_name"] for source in sources)
    return {source["source_name"]: source["target_ratio"] for source in sources}


def _csv(text: str) -> dict[str, float]:
    return {row["domain"]: float(row["weight"]) for row in csv.DictReader(io.StringIO(text, newline=""))}


READ: dict[str, Callable[[str], dict[str, float]]] = {
    "megatron": _megatron,
    "megatron-bridge": _bridge,
    "mosaicml": _mosaicml,
    "litgpt": lambda text: _literal(text, "WEIGHTS"),
    "levanter": lambda text: yaml.safe_load(text)["data"]["train_weights"],
    "nanotron": _nanotron,
    "torchtitan": lambda text: _literal(text, "WEIGHTS"),
    "olmo-core": _olmo_core,
    "hf": lambda text: _literal(text, "PROBABILITIES"),
    "upstream": lambda text: json.loads(text)["train_domain_weights"],
    "csv": _csv,
}


def _first(made: Export) -> str:
    return next(iter(made.files.values()))


def test_every_format_is_read_back():
    assert list(READ) == list(FORMATS)


domain_names = st.text(min_size=1, max_size=20).filter(lambda name: bool(name.strip()))


@pytest.mark.parametrize("format_id", FORMATS)
@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.dictionaries(domain_names, st.floats(1e-6, 1), min_size=1, max_size=5))
@example({name: 1.0 + i for i, name in enumerate(HOSTILE)})
def test_names_and_numbers_survive(format_id, weights):
    mixture = by_hand(weights, documents={name: 1 + i for i, name in enumerate(weights)})
    mixture = mixture.warn(*(f"beware of {name}" for name in weights))
    unit = FORMATS[format_id].units[0]
    found = READ[format_id](_first(export(mixture, format_id)))
    assert list(found) == list(weights)
    assert found == pytest.approx(mixture.draws(unit), rel=1e-12)


@pytest.mark.parametrize("format_id", FORMATS)
def test_each_says_what_it_refers_to(format_id):
    mixture = by_hand({"x": 1, "y": 3}, source="my\nweights.json").warn("look out")
    text = _first(export(mixture, format_id))
    assert "d" * 32 in text
    if format_id == "csv":  # a comment would be a row
        assert csv.DictReader(io.StringIO(text)).fieldnames[-2:] == ["tokenizer_digest", "corpus_digest"]
        return
    assert "shares of training tokens under the tokenizer below" in text
    assert "look out" in text
    assert "c" * 32 in text
    assert "\nweights.json" not in text


@pytest.mark.parametrize("format_id", [name for name, form in FORMATS.items() if len(form.units) > 1])
def test_documents_and_sequences_are_told_apart(format_id):
    mixture = by_hand({"short": 1, "long": 1}, tokens=100, documents={"short": 10, "long": 2})
    expected = {"documents": {"short": 5 / 6, "long": 1 / 6}, "sequences": {"short": 0.5, "long": 0.5}}
    said = {"documents": "draws of whole documents", "sequences": "draws of sequences of one length"}
    for unit, weights in expected.items():
        text = _first(export(mixture, format_id, unit=unit))
        assert READ[format_id](text) == pytest.approx(weights)
        assert said[unit] in text


def test_megatron_shares_a_weight_out_over_files(mixture):
    made = export(mixture, "megatron")
    blend = json.loads(made.files["megatron-blend.json"])
    words = blend["train"]
    by_file = dict(zip(words[1::2], map(float, words[::2]), strict=True))
    gutenberg = mixture.domains[0]
    assert [by_file[shard.prefix] for shard in gutenberg.shards] == pytest.approx([0.45 * 0.4, 0.45 * 0.6])
    assert sum(by_file.values()) == pytest.approx(1)
    assert blend["valid"] == [shard.prefix for domain in mixture.domains for shard in domain.held_out]
    assert blend["test"] is None
    assert made.files["megatron-data-args.txt"].split() == words
    per_split = yaml.safe_load(export(mixture, "megatron-bridge").files["megatron-bridge.yaml"])["dataset"]
    assert per_split["blend_per_split"] == [[list(by_file), list(by_file.values())], [blend["valid"], None], None]
    assert per_split["split"] is per_split["blend"] is None


def test_megatron_files_have_their_weights_under_another_tokenizer_too(mixture):
    names = [domain.name for domain in mixture.domains]
    converted = retokenized(mixture, dict.fromkeys(names, 3.0), tokenizer=TokenizerFacts("other", "e" * 32, 9))
    assert _sums(export(converted, "megatron")) == pytest.approx(_sums(export(mixture, "megatron")))


def _sums(made: Export) -> list[float]:
    words = json.loads(_first(made))["train"]
    return [float(word) for word in words[::2]]


def test_megatron_without_held_out_files_or_with_white_space_in_a_path():
    made = export(_in_folder(by_hand({"x": 1}), "/my corpus"), "megatron")
    blend = json.loads(made.files["megatron-blend.json"])
    assert blend["train"] == ["1.0", "/my corpus/0"]
    assert blend["valid"] is None
    assert list(made.files) == ["megatron-blend.json"]
    assert made.warnings[-1].startswith("no megatron-data-args.txt: the path of the corpus contains white space")
    bridge = yaml.safe_load(_first(export(_in_folder(by_hand({"x": 1}), "/c"), "megatron-bridge")))
    assert bridge["dataset"]["blend_per_split"] == [[["/c/0"], [1.0]], None, None]


def test_olmo_core_repeats_what_is_too_small():
    """1,000 tokens each: 0.9 of 2,000 tokens is 1.8 epochs, 0.1 of them a fifth of one."""
    weights = {"often": 0.9, "once": 0.1}
    text = _first(export(by_hand(weights, num_tokens=2000), "olmo-core"))
    assert [source["max_repetition_ratio"] for source in yaml.safe_load(text)["sources"]] == [1.89, 1.0]
    made = export(by_hand(weights), "olmo-core")
    assert made.warnings[-1].startswith("no source may be repeated")
    assert {source["max_repetition_ratio"] for source in yaml.safe_load(_first(made))["sources"]} == {1.0}
    assert "NumpyDatasetDType.uint16" in text
    assert "NumpyDatasetDType.uint32" in _first(export(by_hand(weights, token_bytes=4), "olmo-core"))


@pytest.mark.parametrize(("weight", "size"), [(0.5, 2048), (0.004, 4096), (1e-3, 16384), (1e-6, MAX_BLOCK_SIZE)])
def test_levanter_block_draws_the_smallest_domain(weight, size):
    """⌊w · size⌋ ≥ 10, as far as Levanter's limit of 2¹⁶ allows; 2,048 · 0.004 would be 8."""
    assert block_size(weight) == size


def test_levanter_names_what_it_will_never_draw():
    made = export(by_hand({"x": 1, "tiny": 1e-5}), "levanter")
    assert made.warnings == ("below 1/32768 of the sequences, so never drawn by Levanter: 'tiny'",)
    assert export(by_hand({"x": 1, "small": 1e-3}), "levanter").warnings == ()


def test_nanotron_links_are_quoted():
    lines = (
        export(_in_folder(by_hand({"it's $(x)": 1}), "/my corpus"), "nanotron").files["nanotron-links.sh"].splitlines()
    )
    folder = "domain=it%27s%20%24%28x%29"
    assert [shlex.split(line) for line in lines[3:]] == [
        ["mkdir", "-p", f"nanotron/{folder}"],
        ["ln", "-sf", "/my corpus/0.bin", f"nanotron/{folder}/00000.ds"],
    ]


def _in_folder(mixture: Mixture, folder: str) -> Mixture:
    """The only domain has one file, in ``folder``, and nothing held out."""
    [domain] = mixture.domains
    moved = replace(domain, shards=(replace(domain.shards[0], prefix=f"{folder}/0"),), held_out=())
    return replace(mixture, domains=(moved,))


def test_upstream_is_read_by_us(tmp_path):
    made = export(by_hand({"x": 1, "y": 3}), "upstream")
    path = tmp_path / "w.json"
    path.write_text(_first(made))
    assert dict(DomainWeights.from_json(path)) == {"x": 0.25, "y": 0.75}
    assert json.loads(_first(made))["eval_domain_weights"] == {"x": 0.25, "y": 0.75}


def test_csv_of_a_corpus(mixture):
    rows = list(csv.DictReader(io.StringIO(_first(export(mixture, "csv")))))
    # per token: 1/100, 1/10 and 59/4650... of a document; 10 bytes for each token but EOS
    assert [(row["tokens"], row["documents"], row["bytes"]) for row in rows] == [
        ("10000", "100", "99000"),
        ("2000", "200", "18000"),
        ("4250", "15", "42350"),
    ]
    expected = DomainWeights({"g": 0.45 * 100 / 10000, "w": 0.3 * 200 / 2000, "a": 0.25 * 15 / 4250})
    assert [float(row["document_weight"]) for row in rows] == pytest.approx(list(expected.values()))
    expected = DomainWeights({"g": 0.45 * 9.9, "w": 0.3 * 9, "a": 0.25 * 42350 / 4250})
    assert [float(row["byte_weight"]) for row in rows] == pytest.approx(list(expected.values()))


def test_csv_without_bytes():
    [row] = csv.DictReader(io.StringIO(_first(export(by_hand({"x": 1}, text_bytes=0), "csv"))))
    assert (row["bytes"], row["byte_weight"], row["document_weight"]) == ("", "", "1.0")
