"""Weights over a corpus: what is left out, what is refused, and the three countings."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doremi import DomainWeights
from doremi.corpus import TokenStore, open_arrow, to_datasets
from doremi.corpus.tokenizing import tokenizers
from doremi.errors import InputError
from doremi.exporters import FORMATS, TokenizerFacts, count_again, export, retokenized
from doremi.exporters.from_corpus import from_store
from tests.exporters.conftest import WEIGHTS, by_hand


def test_draws_by_hand():
    """Documents of 10 and 50 tokens, the same share: the short ones are drawn 5 times as often."""
    mixture = by_hand({"short": 1, "long": 1}, tokens=100, documents={"short": 10, "long": 2})
    assert mixture.draws("tokens") == mixture.draws("sequences") == {"short": 0.5, "long": 0.5}
    assert mixture.draws("documents") == pytest.approx({"short": 5 / 6, "long": 1 / 6})
    mixture = by_hand({"x": 0.25, "y": 0.75}, tokens={"x": 1000, "y": 2000}, text_bytes=4000)
    assert mixture.draws("bytes") == pytest.approx({"x": 0.25 * 4 / (0.25 * 4 + 0.75 * 2), "y": 0.6})


@settings(derandomize=True)
@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.tuples(st.floats(0.01, 1), st.integers(1, 500), st.integers(1, 400)),
        min_size=1,
    )
)
def test_draws_of_documents_bring_the_weights_in_tokens(given_domains):
    mixture = by_hand(
        {name: weight for name, (weight, _, _) in given_domains.items()},
        documents={name: number for name, (_, number, _) in given_domains.items()},
        tokens={name: number * mean for name, (_, number, mean) in given_domains.items()},
    )
    drawn = {name: p * given_domains[name][2] for name, p in mixture.draws("documents").items()}
    assert dict(DomainWeights(drawn)) == pytest.approx({d.name: d.weight for d in mixture.domains})


def test_bytes_that_are_not_known():
    with pytest.raises(InputError, match="domain 'x': its bytes are not known"):
        by_hand({"x": 1}, text_bytes=0).draws("bytes")


def test_sizes_and_files_of_a_store(mixture, store):
    gutenberg, wikipedia, _ = mixture.domains
    assert (gutenberg.documents, gutenberg.tokens, gutenberg.bytes) == (100, 10_000, 99_000)
    assert [shard.tokens for shard in gutenberg.shards] == [4000, 6000]
    assert gutenberg.shards[1].prefix == f"{store.path}/train/domain=Gutenberg%20%28PG-19%29/00001"
    assert [shard.tokens for shard in wikipedia.held_out] == [30]
    assert mixture.token_bytes == 2
    assert mixture.tokenizer.vocab_size == 1000
    assert mixture.warnings == ()


def test_zero_is_left_out_and_what_has_no_weight_is_named(store):
    weights = DomainWeights({"Gutenberg (PG-19)": 1, "Wikipedia (en)": 0})
    mixture = from_store(weights, store, source="w.json")
    assert [domain.name for domain in mixture.domains] == ["Gutenberg (PG-19)"]
    assert mixture.warnings == ("""without a weight, so never drawn: 'a: b/"c" #1'""",)


def test_a_domain_that_the_corpus_lacks(store):
    with pytest.raises(InputError, match=r"w\.json: no such domain in the corpus: 'Books', 'Code'; it has 'Gutenberg"):
        from_store(DomainWeights({"Code": 1, "Books": 1}), store, source="w.json")


def test_a_domain_without_training_tokens(build_store):
    store = build_store({"x": [[[1, 2]]]}, {"y": [[[3]]]})
    with pytest.raises(InputError, match="domain 'y' has no training tokens"):
        from_store(DomainWeights({"x": 1, "y": 1}), store, source="w.json")


def test_a_padded_corpus_is_warned_of(store):
    padded = TokenStore.open(store.path, packing="pad")
    [warning] = from_store(DomainWeights(WEIGHTS), padded, source="w.json").warnings
    assert warning.startswith("the corpus pads documents to whole sequences")


def test_formats_that_name_files_refuse_a_corpus_read_in_place(store, tokenizer_folder, tmp_path):
    names = {"Gutenberg (PG-19)": 1.0, "Wikipedia (en)": 1.0}
    tree = to_datasets(store, tmp_path / "tree", sequence_length=50)
    arrow = open_arrow(tree, tokenizer=tokenizer_folder)
    mixture = from_store(DomainWeights(names), arrow, source="w.json")
    for name, form in FORMATS.items():
        if form.names_files:
            with pytest.raises(InputError, match=f"{name} names the .bin and .idx files of a corpus"):
                export(mixture, name)
    assert export(mixture, "csv").files["domain-weights.csv"].startswith('"domain",')


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format_id": "megatorn"}, "format is 'megatorn'; it must be one of 'megatron'"),
        ({"format_id": "litgpt", "unit": "documents"}, "unit is 'documents'; litgpt counts sequences"),
        ({"format_id": "hf", "unit": "bytes"}, "unit is 'bytes'; hf counts documents or sequences"),
    ],
)
def test_refused(mixture, arguments, message):
    with pytest.raises(InputError, match=message):
        export(mixture, **arguments)


def test_retokenized_by_hand():
    """Twice the tokens for code: its share grows, what is drawn of documents and bytes stays."""
    mixture = by_hand({"code": 0.5, "text": 0.5}, documents={"code": 4, "text": 10})
    facts = TokenizerFacts("other", "e" * 32, 32_000)
    converted = retokenized(mixture, {"code": 2.0, "text": 1.0}, tokenizer=facts)
    assert converted.draws("tokens") == pytest.approx({"code": 2 / 3, "text": 1 / 3})
    assert [domain.tokens for domain in converted.domains] == [2000, 1000]
    for unit in ("documents", "bytes"):
        assert converted.draws(unit) == pytest.approx(mixture.draws(unit))
    assert converted.tokenizer is facts
    assert f"found under tokenizer {'d' * 32}" in converted.warnings[-1]


def test_count_again_against_bytes(build_store, tmp_path):
    """A tokenizer without merges has a token for each byte: the ratio is known from the text."""
    texts = {"prose": ["the cat sat on the mat é", "the dog"], "code": ["x = 1\n", "the = (cat)"]}
    own = tokenizers.train(["the cat sat on the mat and the dog"] * 4, vocab_size=290)
    ids = {name: [ids.tolist() for ids in own.encode(of).split()] for name, of in texts.items()}
    store = build_store({name: [of] for name, of in ids.items()}, {"prose": [ids["prose"]]})
    own.save(store.tokenizer_path)
    plain = tokenizers.train([""], vocab_size=257)
    found = count_again(store, plain, texts)
    for name, of in texts.items():
        after = sum(len(text.encode()) + 1 for text in of)
        assert found[name] == pytest.approx(after / sum(len(document) + 1 for document in ids[name]))
    assert found["prose"] > found["code"] > 1
    first = count_again(store, plain, ["prose"], max_tokens=1)["prose"]
    assert first == pytest.approx((len(texts["prose"][0].encode()) + 1) / (len(ids["prose"][0]) + 1))
