"""Prepared corpora and run directories that were tampered with."""

from __future__ import annotations

import json

from tests.hostile.bench import WRONG_JSON, Case, _places

WRONG_FILES = (*WRONG_JSON, b'{"a": NaN}', b"\x00")


def wrong_type(bench):
    """A value of the manifest with another type."""
    folder = bench.copy("corpus")
    content = json.loads((folder / "manifest.json").read_text())
    bench.spoil_json(content)
    (folder / "manifest.json").write_text(json.dumps(content))
    return _use(bench, folder)


def missing_value(bench):
    """A manifest that lacks something."""
    folder = bench.copy("corpus")
    content = json.loads((folder / "manifest.json").read_text())
    # these two a store may lack: it need not come from a recipe's settings, and is packed where nothing is said
    places = [(c, k) for c, k in _places(content) if isinstance(c, dict) and k not in ("config_digest", "packing")]
    container, key = bench.rng.choice(places)
    del container[key]
    (folder / "manifest.json").write_text(json.dumps(content))
    return _use(bench, folder)


def no_json(bench):
    """A manifest that is something else."""
    folder = bench.copy("corpus")
    (folder / "manifest.json").write_bytes(bench.pick(*WRONG_FILES))
    return _use(bench, folder)


def path_outside(bench):
    """Shards that lie elsewhere."""
    folder = bench.copy("corpus")
    text = (folder / "manifest.json").read_text()
    content = json.loads(text)
    shard = content["domains"][0]["train"][0]
    key = next(key for key, value in shard.items() if isinstance(value, str) and "/" in value)
    shard[key] = bench.pick("/dev/zero", "../../x", "x\0y", "x" * 5000, "", "\x1b[2J", "/proc/self/mem")
    (folder / "manifest.json").write_text(json.dumps(content))
    return _use(bench, folder)


def damaged_index(bench):
    """An ``.idx`` or ``.bin`` file that is cut, missing or foreign."""
    folder = bench.copy("corpus")
    path = bench.rng.choice(sorted(p for p in folder.rglob("*") if p.suffix in (".idx", ".bin")))
    data = path.read_bytes()
    kind = bench.pick("cut", "gone", "foreign", "folder")
    if kind == "cut":
        path.write_bytes(bench.cut(data))
    elif kind == "foreign":
        path.write_bytes(b"\xff" * (len(data) + 7))
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
    return _use(bench, folder)


def bad_weights_file(bench):
    """Weights that are no weights, wherever a command reads some."""
    content = bench.pick(
        *WRONG_FILES, b'{"a": -1}', b'{"a": NaN}', b'{"a": "x"}', b'{"a": true}', b'{"a": 1e999}', b'{"a": 0}', b'{"a": [1]}',
        b'{"train_domain_weights": 3}', b'{"train_domain_weights": {}}', b'{"a": ' + b"9" * 5000 + b"}", b'{"a": null}',
        b'{"a": 1, "a": 2}', b'{"a": ' + b"9" * 400 + b"}", b'{"a": {"b": 1}}', b'{"train_domain_weights": {"a": "1"}}',
    )  # fmt: skip
    path = str(bench.text("weights.json", content))
    corpus = str(bench.base / "corpus")
    return Case(bench.pick(
        ["weights", "show", path], ["weights", "compare", path, path], ["weights", "compare", "pile-doremi-280m", path],
        ["weights", "baseline", path, "--corpus", corpus], ["weights", "baseline", "natural", "--corpus", corpus, "--epochs", path],
        ["weights", "export", path, "--format", "nanotron", "--corpus", corpus, "--out", "o"],
    ))  # fmt: skip


def bad_results(bench):
    """Results that the report cannot be made of."""
    folder = bench.copy("finished")
    content = json.loads((folder / "results.json").read_text())
    required = ("domains", "arms", "comparisons", "sets", "provenance")
    if bench.rng.random() < 0.5:
        content[bench.pick(*required[:3])] = bench.pick(3, "x", [3], True, None, [None])
        data = json.dumps(content).encode()
    else:
        data = bench.pick(*WRONG_FILES)
    (folder / "results.json").write_bytes(data)
    return Case(["report", *([str(bench.base / "finished")] if bench.rng.random() < 0.3 else []), str(folder)])


def foreign_run_directory(bench):
    """``--out`` with files of another kind in it."""
    name = bench.pick("recipe.yaml", "corpus/manifest.json", "corpus/work/plan.json", "corpus", "runs")
    if name in ("corpus", "runs"):
        bench.text(f"out/{name}", "a file")
    else:
        bench.text(f"out/{name}", bench.pick(*WRONG_FILES))
    if name != "runs":
        bench.text("out/runs/reference-0123456789ab/complete.json", bench.pick(*WRONG_FILES))
    return bench.run("run")


CLASSES = (wrong_type, missing_value, no_json, path_outside, damaged_index, bad_weights_file, bad_results,
           foreign_run_directory)  # fmt: skip


def _use(bench, folder):
    if bench.rng.random() < 0.3:
        bench.recipe["corpus"] = {"store": str(folder)}
        return bench.run(bench.pick("plan", "run"))
    return Case(bench.pick(
        ["corpus", "show", str(folder)], ["weights", "baseline", "natural", "--corpus", str(folder)],
        ["corpus", "export", str(folder), "--out", "o"], ["perplexity", str(bench.base / "model"), "--corpus", str(folder)],
    ))  # fmt: skip
