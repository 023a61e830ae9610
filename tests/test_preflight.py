"""A mistake in any key of a recipe is found before a corpus is prepared, and so before anything is trained."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, BertConfig, LlamaConfig, LlamaForCausalLM, TrainingArguments

from doremi import planning, slurm
from doremi.cli.main import main
from doremi.config import RUNS
from doremi.corpus.tokenizing import tokenizers
from doremi.errors import InputError
from doremi.experiment import pipeline, preflight, recipe
from doremi.experiment.opening import open_experiment
from doremi.training import argument_checks, passed_through, trackers
from tests.end_to_end.conftest import write_corpus, write_recipe

SIZES = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 64,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A recipe, never prepared, and a tiny Llama with the tokenizer that the recipe names."""
    folder = tmp_path_factory.mktemp("preflight")
    write_corpus(folder)
    model = folder / "model"
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(model)
    tokenizers.train(["the a of and river stone walked slowly"], vocab_size=300).save(model)
    return write_recipe(folder)


def parsed(written, *settings):
    return recipe.load(written, settings)


def copied(model, folder, *, change):
    """The model with other tensors; ``change`` works on the mapping of names to tensors."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def refused(capsys, written, *settings, verb=("run",)):
    """The one line that a command ends with, after checking that nothing was prepared."""
    out = written.parent / "out"
    code = main([verb[0], str(written), *verb[1:], "--out", str(out), *(p for s in settings for p in ("--set", s))])
    stderr = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in stderr
    assert not (out / "corpus").exists()
    assert not (out / "rounds").exists()
    (line,) = [line for line in stderr.splitlines() if line.startswith("doremi: ")]
    return line


# ---- training.arguments ----

# of each, a value that transformers would accept or refuse much later
WRONG_ARGUMENTS = [
    ("optim", "adamw_nope", "adamw_nope is not a valid OptimizerNames"),
    ("optim_args", "nonsense", "not enough values"),
    ("optim", "galore_adamw", "galore"),
    ("optim", "adamw_bnb_8bit", "bitsandbytes"),
    ("report_to", "wandbb", "'wandbb' is not one of azure_ml"),
    ("report_to", ["tensorboard", "nope"], "'nope' is not one of azure_ml"),
    ("log_level", "loud", "'loud' is not one of critical"),
    ("log_level_replica", "loud", "'loud' is not one of critical"),
    ("ddp_backend", "carrier_pigeon", "'carrier_pigeon' is not one of"),
    ("ddp_timeout", "long", "should be a valid integer"),
    ("ddp_bucket_cap_mb", "25", "should be a valid integer"),
    ("bf16", "yes", "should be a valid boolean"),
    ("neftune_noise_alpha", "1e-1", "should be a valid number"),
    ("tf32", True, "requires Ampere"),
    ("debug", "nope", "nope is not a valid DebugOption"),
    ("torch_empty_cache_steps", -1, "bigger than 0"),
    ("accelerator_config", {"nope": 1}, "unexpected keyword argument 'nope'"),
    ("deepspeed", "absent.json", "deepspeed"),
    ("torch_compile_backend", "nope", "nope"),
    ("torch_compile_mode", "nope", "nope"),
    ("use_liger_kernel", True, "liger-kernel is not installed"),
    ("fp16", True, "on a GPU only"),
    ("hub_token", 17, "should be a valid string"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG_ARGUMENTS, ids=[f"{k}-{v}" for k, v, _ in WRONG_ARGUMENTS])
@pytest.mark.parametrize("run", RUNS)
def test_an_argument_is_tried_before_the_first_step(written, key, value, message, run):
    given = {"torch_compile": True} if key.startswith("torch_compile") else {}
    setting = json.dumps({run: {"arguments": {key: value} | given}})
    loaded = parsed(written, f"training.overrides={setting}")
    with pytest.raises(InputError, match=rf"training\.arguments.*{re.escape(message)}") as error:
        preflight.check_machine(loaded)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("verb", [("run",), ("run", "--slurm", "1"), ("run", "--dry-run"), ("prepare",),
                                  ("train", "--run", "reference"), ("plan",)], ids=" ".join)  # fmt: skip
@pytest.mark.parametrize("setting", ["training.overrides={main: {arguments: {optim: adamw_nope}}}", "models.main=bert"])
def test_every_verb_refuses_it_in_a_line(capsys, written, verb, setting):
    BertConfig(**{k: v for k, v in SIZES.items() if k != "num_key_value_heads"}).save_pretrained(written.parent / "ae")
    setting = setting.replace("main=bert", "main={path: " + str(written.parent / "ae") + ", attn_implementation: nope}")
    line = refused(capsys, written, setting, "training.global_batch_size=8", verb=verb)
    assert "adamw_nope is not" in line or "'nope'" in line


def test_a_tracker_that_is_not_installed_is_noticed(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("transformers.integrations.integration_utils.is_wandb_available", lambda: False)
    with pytest.raises(InputError, match=r"training\.arguments\.report_to: .*wandb"):
        preflight.check_machine(parsed(written, "training.arguments={report_to: wandb}"))


@pytest.mark.parametrize(
    ("main", "expected"),
    [("{steps: 7}", [["tensorboard"]]), ("{arguments: {report_to: none}}", [["tensorboard"], "none"])],
)
def test_a_tracker_is_asked_once(written, tmp_path, monkeypatch, main, expected):
    asked = []
    monkeypatch.setattr(trackers, "log_in", lambda arguments: asked.append(arguments["report_to"]))
    given = "training.arguments={report_to: [tensorboard]}"
    pipeline.check_devices(parsed(written, given, f"training.overrides={{main: {main}}}"), tmp_path / "out")
    assert asked == expected


def test_what_is_cheap_to_know_is_known_before_anything_is_downloaded(written, tmp_path, monkeypatch):
    """A tracker's login asks the network, and the weights of a hub id come as a whole."""
    asked = []
    monkeypatch.setattr(trackers, "log_in", lambda arguments: asked.append("tracker"))
    monkeypatch.setattr(preflight, "check_machine", lambda *_: asked.append("machine"))
    with pytest.raises(InputError, match="'naturall' is neither a file nor one of natural"):
        pipeline.check_devices(parsed(written, "methods=[naturall]"), tmp_path / "out")
    assert asked == []
    pipeline.check_devices(parsed(written), tmp_path / "out")
    assert asked == ["tracker", "machine"]


def test_what_the_model_must_be_able_to_do_is_asked_of_the_model(written, monkeypatch):
    settings = "training.arguments={activation_checkpointing: true}"
    preflight.check_machine(parsed(written, settings))
    monkeypatch.setattr(LlamaForCausalLM, "supports_gradient_checkpointing", False)
    with pytest.raises(InputError, match="gradient_checkpointing: models of type llama cannot do it"):
        preflight.check_machine(parsed(written, settings))


def test_what_only_another_machine_lacks_is_not_asked_where_nothing_is_trained(written):
    """A corpus is prepared, and a job script written, where there is no GPU."""
    preflight.check(parsed(written, "training.arguments={tf32: true, fp16: true, optim: adamw_bnb_8bit}"))
    preflight.check(parsed(written, "training.arguments={bf16: true, torch_compile_backend: nope}"))


def test_arguments_that_work_are_let_through(written):
    loaded = parsed(
        written,
        "training.arguments={bf16: true, optim: adafactor, report_to: [tensorboard], disable_tqdm: true, "
        "fsdp_config: null, ddp_timeout: 60, log_level: warning, debug: [underflow_overflow]}",
    )
    preflight.check(loaded)
    preflight.check_machine(loaded)


def test_every_default_of_transformers_is_of_its_own_type():
    """Else the check of types would refuse what is right."""
    types = argument_checks._types()
    defaults = TrainingArguments(output_dir="x")
    assert len(types) > 100
    skipped = {"fsdp_config", "accelerator_config", "include_for_metrics", "warmup_ratio"}
    for key in types.keys() - passed_through.OWNED.keys() - skipped:
        argument_checks._check_type(key, argument_checks.inspect.signature(TrainingArguments).parameters[key].default)
    assert defaults.optim


def test_the_value_of_a_token_is_not_repeated(written):
    with pytest.raises(InputError) as error:
        preflight.check(parsed(written, "training.arguments={hub_token: {a: hf_secret}}"))
    assert "hf_secret" not in str(error.value)


def test_no_process_group_is_made_and_no_device_taken(written, monkeypatch):
    """There may be hours until the training, and the other processes wait without a group."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    loaded = parsed(written)
    preflight.check(loaded)
    preflight.check_machine(loaded)
    assert not torch.distributed.is_initialized()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(argument_checks, "check_values", pytest.fail)
    preflight.check(loaded)  # one of several is enough
    preflight.check_machine(loaded)


# ---- models ----

WRONG_MODELS = [
    ("{preset: gigantic}", "no preset 'gigantic'"),
    ("{path: MODEL, attn_implementation: fast}", "'fast'"),
    ("{preset: tiny, overrides: {hidden_size: many}}", "hidden_size"),
    ("{preset: tiny, overrides: {num_attention_heads: 0}}", "models"),
    ("{preset: tiny, overrides: {hidden_act: nope}}", "nope"),
    ("{path: MODEL, init: pretrained, overrides: {num_hidden_layers: 3}}", "9 tensors are missing"),
    ("{path: MODEL, init: pretrained, overrides: {num_hidden_layers: 1}}", "9 tensors are not the model's"),
    ("{path: MODEL, init: pretrained, overrides: {intermediate_size: 25}}", "6 tensors are of another shape"),
    ("{path: TRUNCATED, init: pretrained}", "model.safetensors: not a whole safetensors file"),
    ("{path: NOWHERE, init: pretrained}", "neither a path nor a model"),
]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("model", "message"), WRONG_MODELS, ids=[message for _, message in WRONG_MODELS])
def test_every_model_is_built_and_its_checkpoint_looked_at(written, run, model, message):
    truncated = written.parent / "truncated"
    if not truncated.exists():
        copied(written.parent / "model", truncated, change=lambda tensors: None)
        whole = (truncated / "model.safetensors").read_bytes()
        (truncated / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    for name in ("model", "truncated", "nowhere"):
        model = model.replace(name.upper(), str(written.parent / name))
    with pytest.raises(InputError, match=re.escape(message)) as error:
        preflight.check(parsed(written, f"models.{run}={model}"))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_a_trained_reference_is_looked_at(written):
    model = written.parent / "model"
    tokenizer = f"corpus.tokenizer={{path: {model}}}"
    preflight.check(parsed(written, tokenizer, f"models.reference={{path: {model}, init: trained}}"))
    if not (dropped := written.parent / "dropped").exists():
        copied(model, dropped, change=lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(InputError, match=r"dropped: .* 1 tensor is missing \(model\.norm\.weight\)"):
        preflight.check(parsed(written, f"models.reference={{path: {dropped}, init: trained}}"))
    tokenizers.train(["quite another text"], vocab_size=270).save(written.parent / "other")
    with pytest.raises(InputError, match="losses of different tokens cannot be compared"):
        preflight.check(parsed(written, f"corpus.tokenizer={{path: {written.parent / 'other'}}}",
                               f"models.reference={{path: {model}, init: trained}}"))  # fmt: skip
    with pytest.raises(InputError, match="used as it is; drop them"):
        preflight.check(parsed(written, f"models.reference={{path: {model}, init: trained, overrides: {{x: 1}}}}"))


def test_a_vocabulary_that_is_known_is_compared_and_one_that_is_not_is_not_guessed(written):
    model = written.parent / "model"
    tokenizers.train([Path(__file__).read_text()], vocab_size=400).save(written.parent / "larger")
    with pytest.raises(InputError, match="has a vocabulary of 300, the corpus was tokenised with one of 400"):
        preflight.check(parsed(written, f"corpus.tokenizer={{path: {written.parent / 'larger'}}}",
                               f"models.main={{path: {model}, init: pretrained}}"))  # fmt: skip
    trained = "corpus.tokenizer={vocab_size: 5000}"  # at most: a small text gives fewer
    preflight.check(parsed(written, trained, f"models.main={{path: {model}, init: pretrained}}"))


def test_a_model_of_any_size_takes_no_memory(written):
    preflight.check(parsed(written, "models.main=8b"))


@pytest.mark.parametrize(
    "verb", [("run", "--slurm", "1"), ("run", "--dry-run"), ("prepare",), ("evaluate",), ("plan",)], ids=" ".join
)
def test_every_verb_tries_each_model(capsys, written, verb):
    encoder = written.parent / "encoder"
    BertConfig(**{k: v for k, v in SIZES.items() if k != "num_key_value_heads"}).save_pretrained(encoder)
    line = refused(capsys, written, f"models.main={{path: {encoder}}}", "training.global_batch_size=8", verb=verb)
    assert "bert is not causal" in line
    assert not (written.parent / "out" / "slurm").exists()


@pytest.fixture
def hub(written, monkeypatch):
    """Lets ``org/model`` be configured as the model in the folder; the list of what was downloaded, all in vain."""
    asked, original = [], AutoConfig.from_pretrained

    def from_pretrained(path, *args, **kwargs):
        return original(written.parent / "model" if path == "org/model" else path, *args, **kwargs)

    def snapshot_download(name, **_):
        asked.append(name)
        raise OSError("no weights today")

    monkeypatch.setattr(AutoConfig, "from_pretrained", from_pretrained)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return asked


@pytest.mark.parametrize("setting", ["main={path: org/model, init: pretrained}",
                                     "reference={path: org/model, init: trained}"])  # fmt: skip
def test_weights_on_the_hub_are_downloaded_only_where_they_are_trained_with(written, tmp_path, hub, setting):
    tokenizer = f"corpus.tokenizer={{path: {written.parent / 'model'}}}"
    loaded = parsed(written, tokenizer, f"models.{setting}", "training.global_batch_size=8")
    planning.make(loaded, tmp_path / "out")
    slurm.write(loaded, tmp_path / "out", num_nodes=1)
    preflight.check(loaded)
    assert not hub
    with pytest.raises(InputError, match=r"org/model: .*no weights today"):
        preflight.check_machine(loaded)
    assert hub == ["org/model"]


# ---- a prepared corpus ----


def test_a_prepared_corpus_needs_the_tokenizer_no_more_that_it_was_made_with(written, tmp_path):
    given = tmp_path / "tokenizer"
    tokenizers.train(["the a of and river stone walked slowly"], vocab_size=300).save(given)
    loaded = parsed(written, f"corpus.tokenizer={{path: {given}}}", "training.global_batch_size=8")
    out = tmp_path / "out"
    open_experiment(loaded, out)
    shutil.rmtree(given)
    preflight.check_machine(loaded, out)
    open_experiment(loaded, out)
    planning.make(loaded, out)
    slurm.write(loaded, out, num_nodes=1)
    with pytest.raises(InputError, match="no such tokenizer folder or file"):
        preflight.check(loaded, tmp_path / "elsewhere")


# ---- the rest ----


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("methods=[natural, nope, doremi]", "'nope' is neither a file nor one of"),
        ("methods=[natural, temperature, doremi]", "temperature takes a number"),
        ("methods=[natural, unimax(x), doremi]", "unimax takes a number"),
        ("methods=[natural, uniform(2), doremi]", "uniform takes no argument"),
        ("prior=natural(bytes)", "it counts tokens, or sequences"),
        ("prior={a: -1, b: 1}", "weight of 'a' is -1"),
        ("seed=4294967296", "seeds up to 4294967296; they must be below 4294967296"),
        ("corpus.tokenizer={path: /nowhere/tokenizer}", "no such tokenizer folder or file"),
    ],
)
def test_weights_seeds_and_tokenizer(written, setting, message):
    with pytest.raises(InputError, match=re.escape(message)):
        preflight.check(parsed(written, setting))


def test_the_last_of_several_seeds_counts(written):
    preflight.check(parsed(written, "seed=4294967293", "verify.seeds=3"))
    with pytest.raises(InputError, match="seeds up to 4294967296"):
        preflight.check(parsed(written, "seed=4294967293", "verify.seeds=2", "methods.doremi.seeds=4"))


def test_a_prior(written):
    with pytest.raises(InputError, match="'nope' is neither a file nor one of"):
        preflight.check(parsed(written, "methods.doremi.prior=nope", "methods.doremi.prior_pull=0.1"))
    with pytest.raises(InputError, match=r"^doremi\.prior: all weights are 0"):
        preflight.check(parsed(written, "methods.doremi.prior={web: 0, code: 0}", "methods.doremi.prior_pull=0.1"))
    with pytest.raises(InputError, match=r"^prior: all weights are 0"):
        preflight.check(parsed(written, "prior={web: 0, code: 0}"))


def test_shots_that_a_task_does_not_have(written, tmp_path):
    from tests.evaluation.test_downstream import write_task

    path = write_task(tmp_path / "tasks")
    settings = [f"evaluation.tasks=[{path}]", "evaluation.num_fewshot=4"]
    with pytest.raises(InputError, match="'capitals' has 4 examples to show, too few for 4 shots"):
        open_experiment(parsed(written, *settings), tmp_path / "out")
    assert not (tmp_path / "out").exists()
