"""``from_datasets``: whatever a Python program has of a domain, or a clear word on why not."""

from __future__ import annotations

import datasets
import pytest

from doremi.corpus import TokenStore, from_datasets
from doremi.errors import InputError

TEXTS = {name: [f"{name} {index} sat on the mat" for index in range(60)] for name in ("a", "b")}


def dataset(texts, column="text"):
    return datasets.Dataset.from_dict({column: texts})


FORMS = {
    "a list of texts": lambda texts: texts,
    "a tuple of texts": tuple,
    "a list of datasets": lambda texts: [dataset(texts[:20]), dataset(texts[20:])],
    "a part of a dataset": lambda texts: dataset([*texts, "another"]).select(range(len(texts))),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_store(tokenizer_folder, tmp_path, form):
    as_dataset = from_datasets(
        {name: dataset(texts) for name, texts in TEXTS.items()}, str(tokenizer_folder), tmp_path / "one"
    )
    given = {name: FORMS[form](texts) for name, texts in TEXTS.items()}
    store = from_datasets(given, str(tokenizer_folder), tmp_path / "two")
    assert store.names == ("a", "b")
    assert store.digest == as_dataset.digest
    assert from_datasets(given, str(tokenizer_folder), tmp_path / "two").digest == store.digest  # opened, not refused


def test_other_texts_are_not_mistaken_for_the_store(tokenizer_folder, tmp_path):
    from_datasets(TEXTS, str(tokenizer_folder), tmp_path / "s")
    with pytest.raises(InputError, match="holds a corpus prepared with other settings"):
        from_datasets(TEXTS | {"a": [*TEXTS["a"], "more"]}, str(tokenizer_folder), tmp_path / "s")


def test_another_column(tokenizer_folder, tmp_path):
    """A list has no columns: its texts go where they are looked for."""
    given = {"a": TEXTS["a"], "b": dataset(TEXTS["b"], "body")}
    store = from_datasets(given, str(tokenizer_folder), tmp_path / "s", text_column="body")
    assert store.digest == from_datasets(TEXTS, str(tokenizer_folder), tmp_path / "t").digest
    assert TokenStore.open(tmp_path / "s").names == ("a", "b")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no dataset given; give {domain name: dataset}, each a datasets.Dataset, a list of texts or a list of"),
        ([["a"], ["b"]], "got a list; give {domain name: dataset}"),
        (dataset(["a"]), "got a Dataset; give {domain name: dataset}"),
        ({1: ["x"]}, "the domain name 1 is a int, not a string"),
        ({"a": []}, "'a' is an empty list; leave the domain out, or give texts"),
        ({"a": "one text"}, "'a' is a str; give"),
        ({"a": None}, "'a' is a NoneType; give"),
        ({"a": (text for text in "xy")}, "'a' is a generator; give"),
        ({"a": ["x", 3]}, "item 1 of 'a' is a int, expected a str; give"),
        ({"a": [{"text": "x"}]}, "item 0 of 'a' is a dict, expected a str"),
        ({"a": [dataset(["x"]), "y"]}, "item 1 of 'a' is a str, expected a Dataset"),
        (
            {"a": datasets.DatasetDict(test=dataset(["x"]))},
            r"with the splits 'test'; give one of them, such as dataset\['t",
        ),
        ({"a": datasets.IterableDataset.from_generator(lambda: iter(()))}, "'a' is streamed, .*Dataset.from_list"),
        ({"a": [dataset(["x"]), dataset([1])]}, "the datasets of 'a' do not fit together: "),
        ({"a": dataset(["x"], "body")}, "text"),
    ],
)
def test_the_rest_is_refused_and_nothing_is_written(tokenizer_folder, tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        from_datasets(given, str(tokenizer_folder), tmp_path / "s")
    assert not (tmp_path / "s" / "manifest.json").exists()
