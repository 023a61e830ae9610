"""Models and tokenizers that cannot be loaded, or are not what they say."""

from __future__ import annotations

import json
import struct

from tests.hostile.bench import WRONG_JSON, Case

WRONG_FILES = (*WRONG_JSON, b"\x00", b'{"model_type": 3}')


def wrong_config_value(bench):
    """A value of ``config.json`` that has another type or is impossible."""
    folder = bench.copy("model")
    config = json.loads((folder / "config.json").read_text())
    key, value = bench.pick(
        ("model_type", 3), ("model_type", "nonsense"), ("model_type", None), ("vocab_size", "x"), ("vocab_size", -1),
        ("vocab_size", 10**18), ("hidden_size", "x"), ("hidden_size", 0), ("hidden_size", 1.5), ("hidden_size", [1]),
        ("num_hidden_layers", "two"), ("num_hidden_layers", 10**12), ("num_attention_heads", 0), ("num_attention_heads", 3),
        ("intermediate_size", None), ("hidden_act", "nope"), ("hidden_act", 3), ("rms_norm_eps", "x"), ("rope_parameters", "x"),
        ("num_key_value_heads", 7), ("hidden_size", 64), ("intermediate_size", 5), ("num_hidden_layers", 9), ("vocab_size", 17),
        ("quantization_config", {"quant_method": "nope"}), ("model_type", "t5"), ("model_type", "bert"),
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    return _use(bench, folder)


def no_config(bench):
    """A ``config.json`` that is none."""
    folder = bench.copy("model")
    (folder / "config.json").write_bytes(bench.pick(*WRONG_FILES))
    return _use(bench, folder)


def spoiled_weights(bench):
    """A checkpoint that is cut, foreign, empty, or lies about its lengths."""
    folder = bench.copy("model")
    path = folder / "model.safetensors"
    data = path.read_bytes()
    kind = bench.pick(
        "cut", "cut in header", "absurd header", "foreign", "gone", "empty", "other names", "bad header", "pickle"
    )
    if kind == "gone":
        path.unlink()
    elif kind == "pickle":
        path.unlink()
        (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    elif kind == "other names":
        (length,) = struct.unpack("<Q", data[:8])
        header = data[8 : 8 + length].replace(b"model.layers", b"model.mayors")
        path.write_bytes(data[:8] + header + data[8 + length :])
    else:
        path.write_bytes({
            "cut": data[: len(data) // 2], "cut in header": data[:50], "absurd header": struct.pack("<Q", 1 << 60) + data[8:],
            "foreign": b"GGUF" + data[4:], "empty": b"", "bad header": data[:8] + b"\xff" * 200 + data[208:],
        }[kind])  # fmt: skip
    return _use(bench, folder)


def bad_index(bench):
    """An index of shards that names none, or some elsewhere."""
    folder = bench.copy("model")
    (folder / "model.safetensors").unlink()
    index = bench.pick(
        {"weight_map": {"a": "../x"}}, {"weight_map": 3}, {}, {"weight_map": {"a": 3}}, [], {"weight_map": {}}
    )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}} | index if index else index))
    return _use(bench, folder)


def wrong_tokenizer(bench):
    """A value of ``tokenizer.json`` with another type."""
    folder = bench.copy("tokenizer")
    content = json.loads((folder / "tokenizer.json").read_text())
    part = bench.pick("model", "added_tokens", "pre_tokenizer", "decoder")
    if bench.rng.random() < 0.5:
        content[part] = bench.pick(3, "x", [3], {"type": "nonsense"}, {"type": 3}, [[]])
    else:
        key = bench.pick("vocab", "merges", "type")
        content["model"][key] = bench.pick(3, "x", [3], {"a": "b"}, {"a": -1}, [["a", "b", "c"]])
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return _tokenize(bench, folder)


def no_tokenizer(bench):
    """A ``tokenizer.json`` that is none."""
    folder = bench.copy("tokenizer")
    (folder / "tokenizer.json").write_bytes(bench.pick(*WRONG_FILES, b"\x0a\x05spiece"))
    return _tokenize(bench, folder)


def wrong_companion(bench):
    """Files beside the tokenizer that are not what transformers writes."""
    folder = bench.copy("tokenizer")
    name = bench.pick("tokenizer_config.json", "special_tokens_map.json")
    content = bench.pick(*WRONG_FILES[:9], b'{"eos_token": 3}', b'{"eos_token": []}', b'{"eos_token": {}}',
                         b'{"eos_token": {"content": 3}}', b'{"eos_token": "nope"}', b'{"eos_token": "\\u001b[2J"}')  # fmt: skip
    (folder / "tokenizer_config.json").unlink()
    (folder / name).write_bytes(content)
    return _tokenize(bench, folder)


def bad_eos(bench):
    """An EOS token that the vocabulary does not have, or that text would spell."""
    name = bench.pick("nope", '"\\e[2J"', '""', "the", "3", "null3", '"\\0"', "x" * 5000)
    return bench.run("prepare", **{"corpus.tokenizer.eos_token": name})


def no_model(bench):
    """A path that is no model."""
    path = bench.pick(
        bench.bad_path(), bench.bad_path(), str(bench.folder), "no/such", "", "a b/c", "../..", "/dev/null"
    )
    return _use(bench, path)


CLASSES = (wrong_config_value, no_config, spoiled_weights, bad_index, wrong_tokenizer, no_tokenizer, wrong_companion,
           bad_eos, no_model)  # fmt: skip


def _use(bench, folder):
    """As a model to score, or of a recipe that begins with it."""
    if bench.rng.random() < 0.5 or not str(folder):
        return Case(["perplexity", str(folder), "--corpus", str(bench.base / "corpus")])
    bench.recipe["models"][bench.pick("main", "proxy")] = {"path": f"{folder}/", "init": "pretrained"}
    return bench.run("run")


def _tokenize(bench, folder):
    bench.recipe["corpus"]["tokenizer"] = {"path": str(folder)}
    return bench.run(bench.pick("prepare", "run", "plan"))
