"""A model is loaded whole or refused: no tensor is made up, none is dropped, and no pickle is read."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, GPT2LMHeadModel, LlamaForCausalLM

from doremi.errors import InputError
from doremi.models import pretrained
from tests.conformance import zoo
from tests.processes import ROOT, environment

# kinds that differ in how their tensors are stored: tied, fused, experts that are stacked when they are loaded
KINDS = ("gpt2", "llama", "mixtral", "gemma3_text", "mamba", "opt")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of each kind, made once."""
    root = tmp_path_factory.mktemp("saved")

    def of(model_type):
        if not (root / model_type).exists():
            zoo.model(model_type).save_pretrained(root / model_type)
        return root / model_type

    return of


def changed(model, folder, change):
    """A copy of a model's folder; ``change`` works on the mapping of its tensors."""
    shutil.copytree(model, folder)
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def largest(tensors):
    return max(tensors, key=lambda name: (tensors[name].numel(), name))


def drop(tensors):
    """All of what one layer's largest tensor is made of may be needed to make it: one is enough."""
    tensors.pop(largest(tensors))


def add(tensors):
    tensors["something.else.weight"] = torch.ones(3, 4)


def reshape(tensors):
    name = largest(tensors)
    tensors[name] = torch.cat([tensors[name], tensors[name][:1]])


@pytest.fixture(params=["load", "check"])
def accept(request):
    """Both must agree: what is found early, from the headers, and what is found when the model is needed."""
    return getattr(pretrained, request.param)


def refusal(accept, folder):
    with pytest.raises(InputError) as error:
        accept(folder)
    message = str(error.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


# ---- tensors ----


@pytest.mark.parametrize("model_type", KINDS)
def test_what_was_saved_is_accepted_and_comes_back_bit_for_bit(saved, model_type):
    folder = saved(model_type)
    pretrained.check(folder)
    loaded, original = pretrained.load(folder), zoo.model(model_type)
    assert not loaded.training
    for name, tensor in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize("model_type", KINDS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, "missing|incomplete|of another shape"),
        (add, r"1 tensor is not the model's \(something\.else\.weight\)"),
        (reshape, "of another shape|different shapes"),
    ],
)
def test_a_tensor_that_is_missing_left_over_or_misshapen_is_refused(
    saved, tmp_path, accept, model_type, change, message
):
    found = refusal(accept, changed(saved(model_type), tmp_path / "model", change))
    assert re.search(message, found), found


def test_the_message_counts_names_the_first_and_says_what_to_do(saved, tmp_path, accept):
    folder = changed(saved("llama"), tmp_path / "model", lambda tensors: [tensors.pop(n) for n in sorted(tensors)[2:7]])
    assert refusal(accept, folder) == (
        f"{folder}: its weights are not those of its configuration: 5 tensors are missing "
        "(model.layers.0.input_layernorm.weight, model.layers.0.mlp.down_proj.weight, "
        "model.layers.0.mlp.gate_proj.weight and 2 more). Use a checkpoint that was saved whole, with its own "
        "config.json and without overrides of its size"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 3}, "9 tensors are missing"),
        ({"num_hidden_layers": 1}, "9 tensors are not the model's"),
        ({"vocab_size": 310}, "2 tensors are of another shape (lm_head.weight 300×32 instead of 310×32"),
        ({"model_type": "mistral", "hidden_size": 64}, "of another shape"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"model_type": "nope"}, "nope"),
        ({"model_type": "t5"}, "not a causal LM"),
        ({"transformers_weights": "../../other.safetensors"}, "transformers_weights names other files"),
    ],
)
def test_a_configuration_of_another_model_is_refused(saved, tmp_path, accept, change, message):
    folder = shutil.copytree(saved("llama"), tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | change))
    assert message in refusal(accept, folder)


def test_tied_weights_and_what_is_no_parameter_do_not_count(saved, tmp_path, accept):
    """As in checkpoints of years ago: the tied head stored as well, causal masks, and the values that fill them."""

    def change(tensors):
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
        tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, 4, 4, dtype=torch.bool)
        tensors["transformer.h.1.attn.some_mask"] = torch.ones(1, 1, 4, 4, dtype=torch.uint8)
        tensors["transformer.h.1.attn.masked_fill"] = torch.tensor(-1e4)

    assert "lm_head.weight" not in load_file(saved("gpt2") / "model.safetensors")
    accept(changed(saved("gpt2"), tmp_path / "model", change))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_what_is_asked_for(saved, tmp_path, dtype):
    LlamaForCausalLM.from_pretrained(saved("llama")).to(dtype).save_pretrained(tmp_path)
    pretrained.check(tmp_path)
    assert {p.dtype for p in pretrained.load(tmp_path).parameters()} == {torch.float32}
    assert {p.dtype for p in pretrained.load(tmp_path, dtype="bfloat16").parameters()} == {torch.bfloat16}


def test_checking_reads_no_weight(saved, tmp_path, monkeypatch):
    """A header of 4 TB of weights would do: the file here has none behind its header but zeros."""
    monkeypatch.setattr(pretrained, "safe_open", guarded := _without_tensors(safe_open))
    pretrained.check(saved("llama"))
    assert guarded.opened == 1


def _without_tensors(real):
    class Guarded:
        opened = 0

        def __init__(self, file, framework):
            type(self).opened += 1
            self._file = real(file, framework=framework)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def keys(self):
            return self._file.keys()

        def get_slice(self, name):
            return self._file.get_slice(name)  # not get_tensor

    return Guarded


# ---- files ----


@pytest.fixture
def in_shards(saved, tmp_path):
    LlamaForCausalLM.from_pretrained(saved("llama")).save_pretrained(tmp_path / "model", max_shard_size="20KB")
    assert len([*(tmp_path / "model").glob("*.safetensors")]) > 2
    return tmp_path / "model"


def test_a_model_in_several_files(saved, in_shards, accept):
    accept(in_shards)
    whole = pretrained.load(saved("llama"))
    assert all(
        torch.equal(a, b) for a, b in zip(pretrained.load(in_shards).parameters(), whole.parameters(), strict=True)
    )


def test_a_file_that_the_index_names_and_that_is_not_there(in_shards, accept):
    shard = sorted(in_shards.glob("*.safetensors"))[1]
    shard.unlink()
    assert f"{shard}: no such file, though model.safetensors.index.json names it" in refusal(accept, in_shards)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "its weight_map must give"),
        ('{"weight_map": {}}', "its weight_map must give"),
        ('{"weight_map": {"a": 3}}', "its weight_map must give"),
        ('{"weight_map": {"a": "../../etc/x.safetensors"}}', "a file beside it"),
        ('{"weight_map": {"a": "pytorch_model.bin"}}', "a file beside it"),
        (
            '{"weight_map": {"model.norm.weightier": "SHARD"}}',
            "1 tensor is in none of its files (model.norm.weightier)",
        ),
    ],
)
def test_an_index_that_is_none(in_shards, accept, index, message):
    shard = sorted(in_shards.glob("*.safetensors"))[0].name
    (in_shards / "model.safetensors.index.json").write_text(index.replace("SHARD", shard))
    assert message in refusal(accept, in_shards)


@pytest.mark.parametrize("content", [b"", b"x" * 500, b"\xff" * 8 + b"{}", "half"])
def test_a_file_that_is_cut_short_or_no_safetensors(saved, tmp_path, accept, content):
    folder = shutil.copytree(saved("llama"), tmp_path / "model")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    assert "model.safetensors: not a whole safetensors file" in refusal(accept, folder)


class Program:
    """What a pickle may do."""

    def __reduce__(self):
        return (open, ("/tmp/doremi-unpickled", "w"))


def test_a_pickle_is_never_read(saved, tmp_path, accept):
    folder = shutil.copytree(saved("llama"), tmp_path / "model")
    torch.save({"a": Program()}, folder / "pytorch_model.bin")
    accept(folder)  # beside safetensors it is left alone
    (folder / "model.safetensors").unlink()
    message = refusal(accept, folder)
    assert "only a pickle (pytorch_model.bin), which is never read" in message
    assert "save_pretrained" in message


def test_a_folder_without_weights_or_without_anything_and_a_name_without_a_folder(saved, tmp_path, accept):
    folder = shutil.copytree(saved("llama"), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    assert "no weights there: neither model.safetensors nor" in refusal(accept, folder)
    (tmp_path / "empty").mkdir()
    assert "not a causal LM that transformers loads" in refusal(accept, tmp_path / "empty")
    refusal(accept, tmp_path / "nowhere")


def test_code_that_comes_with_a_model_is_neither_run_nor_asked_about(saved, tmp_path, accept):
    folder = shutil.copytree(saved("llama"), tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    code = {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}, "model_type": "evil"}
    (folder / "config.json").write_text(json.dumps(content | code))
    (folder / "evil.py").write_text("raise SystemExit('it ran')")
    refusal(accept, folder)


# ---- what the user sees ----


def test_transformers_table_is_not_shown_and_its_logger_is_left_as_it_was(saved, tmp_path, accept, caplog, capfd):
    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    refusal(accept, changed(saved("gpt2"), tmp_path / "model", drop))
    assert logger.level == level
    assert "LOAD REPORT" not in caplog.text + capfd.readouterr().err


def test_hostile_names_do_not_reach_the_terminal(saved, tmp_path, accept):
    name = "\x1b[2J\n" + "x" * 3000
    message = refusal(
        accept,
        changed(saved("gpt2"), tmp_path / "model", lambda tensors: tensors.update({name: torch.ones(2)})),
    )
    assert message.isprintable()
    assert len(message) < 600


def test_our_own_loading_of_hidden_layers_is_not_mistaken(saved):
    """The model of a configuration that was given instead of the one beside the weights."""
    config = AutoConfig.from_pretrained(saved("gpt2"))
    assert isinstance(pretrained.load(saved("gpt2"), hf_config=config, attention="eager"), GPT2LMHeadModel)
    config.n_layer = 5
    with pytest.raises(InputError, match="tensors are missing"):
        pretrained.load(saved("gpt2"), hf_config=config)


# ---- every type ----

NOT_LOADED_BY_TRANSFORMERS = {"emu3", "mllama"}  # what it saves has a type of which it has no causal LM

# qwen4_exp moves a weight to the CPU while it is loaded, so that it cannot be looked at by its headers
EVERY_TYPE = """
import json, sys, tempfile, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import torch
from safetensors.torch import load_file, save_file
from doremi.errors import InputError
from doremi.models import pretrained
from tests.conformance import zoo
from tests.training.test_pretrained import add, changed, drop, reshape

def accepted(folder):
    try:
        pretrained.check(folder)
    except InputError as error:
        early = str(error)
    else:
        early = None
    try:
        loaded = pretrained.load(folder)
    except InputError as error:
        late = str(error)
    else:
        late = None
    assert (early is None) == (late is None) or model_type.startswith("qwen4_exp"), (early, late)
    return late

for model_type in sys.argv[1:]:
    result = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "whole"
        try:
            model = zoo.model(model_type)
            model.save_pretrained(folder)
        except Exception as error:
            result["unbuildable"] = f"{type(error).__name__}: {error}"[:300]
        else:
            try:
                result["whole"] = accepted(folder)
                for change in (drop, add, reshape):
                    result[change.__name__] = accepted(changed(folder, Path(scratch) / change.__name__, change))
            except Exception as error:
                import traceback
                result["crash"] = traceback.format_exc()[-600:]
    print(json.dumps([model_type, result]), flush=True)
"""


def examine(*types):
    """What became of the whole model, and of it with a tensor dropped, added and reshaped; None: accepted."""
    command = [sys.executable, "-c", EVERY_TYPE, *types]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=550, check=False
    )
    return dict(json.loads(line) for line in done.stdout.splitlines()), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("types", [zoo.TYPES[at : at + 20] for at in range(0, len(zoo.TYPES), 20)], ids=lambda t: t[0])
def test_every_model_type_is_accepted_whole_and_refused_otherwise(types):
    """No tied weight, legacy name or reversible conversion of any type is taken for a fault."""
    found, stderr = examine(*types)
    assert found.keys() == {*types}, stderr[-2000:]
    for model_type, result in found.items():
        assert "crash" not in result, (model_type, result)
        if "unbuildable" not in result:
            if model_type in NOT_LOADED_BY_TRANSFORMERS:
                assert "Unrecognized configuration class" in result["whole"], (model_type, result)
                continue
            assert result["whole"] is None, (model_type, result)
            assert all(result[change] for change in ("drop", "add", "reshape")), (model_type, result)
