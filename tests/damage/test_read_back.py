"""JSON that was written here and is read back: of another form it is one error, whatever the form."""

from __future__ import annotations

import copy
import json

import pytest

from doremi import files
from doremi.corpus.preparing.work import WorkFolder
from doremi.errors import InputError
from doremi.experiment import finished
from doremi.training.reference_cache import ReferenceCache

MARKER = {
    "digest": "d",
    "steps": 3,
    "num_parameters": 10,
    "num_tokens": 30,
    "train_seconds": 1.5,
    "epochs": {"a": 0.5},
    "rows": {"a": 3},
    "passes": {"trained": 3},
    "objective": {"names": ["a"]},
}
HISTORY = [{"step": 1, "loss": 2.0}, {"step": 2, "held_out_nats/a": 1.0, "held_out_nats/b": 2.0}]
PLAN = {"config": "c", "unit_bytes": 64, "inputs": [["a.jsonl", {"size": 3}]], "commits": {}}
ENTRY = {"file": "train/a/0", "documents": 1, "tokens": 2, "bytes": 3, "bin_digest": "b", "idx_digest": "i"}
UNIT = {
    "inputs": [{"name": "a.jsonl", "short_name": "a.jsonl", "skipped": {"empty": 1}}],
    "encoded_by": "tokenizers",
    "shards": [{"domain": "a", "split": "train", "entry": ENTRY}],
}
FAILURE = {"is_input_error": True, "message": "m"}
CACHE = {
    "format": "doremi-reference-nats-2",
    "dtype": "float32",
    "sequence_length": 4,
    "key": {"reference": "r"},
    "row_counts": {"a": 2},
}

READERS = {
    "marker": (MARKER, "complete.json", finished.facts),
    "objective": (MARKER, "complete.json", finished.objective_state),
    "history": (HISTORY, "history.json", lambda folder: finished.load_history(folder, ["a", "b"])),
    "plan": (PLAN, "work/plan.json", lambda folder: WorkFolder(folder).commits()),
    "unit": (UNIT, "work/finished/00000.json", lambda folder: WorkFolder(folder).marker(0)),
    "failure": (FAILURE, "work/failed/00000.json", lambda folder: WorkFolder(folder).failures()),
    "cache": (
        CACHE,
        "manifest.json",
        lambda folder: ReferenceCache.open(folder, row_counts={"a": 2}, sequence_length=4, key={"reference": "r"}),
    ),
}
WRONG = [None, "x", 3, -1, 1.5, True, [], {}, [[]], {"x": []}]


def mutations(value, path=()):
    """(where, the content without it or with something else there) for every place in a JSON value."""
    yield path, "without"
    for wrong in WRONG:
        yield path, wrong
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from mutations(child, (*path, key))


def mutate(content, path, wrong):
    if not path:
        return wrong
    content = copy.deepcopy(content)
    place = content
    for key in path[:-1]:
        place = place[key]
    if wrong == "without":
        del place[path[-1]]
    else:
        place[path[-1]] = wrong
    return content


@pytest.mark.parametrize("kind", READERS)
def test_another_form_is_one_line_or_does_no_harm(tmp_path, kind):
    """Every place of each file without its value, and with values of every other type."""
    content, name, read = READERS[kind]
    files.write_json(tmp_path / name, content)
    if kind == "cache":
        (tmp_path / "nats.bin").write_bytes(bytes(2 * 4 * 4))
    read(tmp_path)
    refusals = []
    for path, wrong in mutations(content):
        (tmp_path / name).write_text(json.dumps(mutate(content, path, wrong)))
        try:
            read(tmp_path)
        except InputError as error:
            refusals.append(str(error))
    assert len(refusals) >= 20
    assert not [text for text in refusals if "\n" in text or str(tmp_path) not in text or len(text) > 600]


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000, "1" * 5_000, '{"step": NaN', "\x00", "3"])
@pytest.mark.parametrize("kind", READERS)
def test_no_json_at_all(tmp_path, kind, text):
    _, name, read = READERS[kind]
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
