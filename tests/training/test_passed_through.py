"""Arguments of transformers that would be ignored, or change what the losses mean, are refused."""

from __future__ import annotations

import pytest
from transformers import TrainingArguments

from doremi.errors import InputError
from doremi.mixture import MixtureSettings
from doremi.training import DoReMiTrainer, TokenMean, passed_through
from tests.training.fakes import SEQUENCE_LENGTH, InMemoryStore, arguments, tiny_model


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("label_smoothing_factor", 0.1, "0.1 would have no effect or a wrong one: the loss is that of each token"),
        ("dataloader_num_workers", 2, "reading: ahead"),
        ("eval_strategy", "steps", "training.eval_steps"),
        ("load_best_model_at_end", True, "training.eval_steps"),
        ("include_for_metrics", ["loss"], "training.eval_steps"),
        ("train_sampling_strategy", "group_by_length", "the mixture's"),
        ("auto_find_batch_size", True, "training.micro_batch_size"),
        ("save_only_model", True, "running the recipe again"),
        ("push_to_hub", True, "same repository"),
        ("save_strategy", "epoch", "set training.save_steps instead"),
        ("lr_scheduler_kwargs", {"num_cycles": 2}, "set training.schedule"),
        ("label_smoothing", 0.1, "no such argument; did you mean label_smoothing_factor"),
    ],
)
def test_refused(key, value, message):
    with pytest.raises(InputError, match=rf"training\.arguments\.{key}: .*{message}"):
        passed_through.check({key: value})


def test_what_holds_anyway_is_accepted():
    passed_through.check(
        {"label_smoothing_factor": 0.0, "remove_unused_columns": False, "push_to_hub": False, "bf16": True}
        | {"neftune_noise_alpha": 5.0, "report_to": "wandb", "optim": "adamw_torch_fused", "dataloader_num_workers": 0}
    )


def test_every_name_is_an_argument_of_transformers(tmp_path):
    made = vars(TrainingArguments(output_dir=str(tmp_path), use_cpu=True))
    gone = {"warmup_ratio"}  # of earlier versions of transformers
    assert passed_through.UNUSED.keys() | passed_through.OWNED.keys() <= made.keys() | gone
    assert not passed_through.UNUSED.keys() & passed_through.OWNED.keys()


@pytest.mark.parametrize("setting", [{"label_smoothing_factor": 0.1}, {"dataloader_num_workers": 1}])
def test_the_trainer_in_python(tmp_path, setting):
    store = InMemoryStore()
    with pytest.raises(InputError, match=f"TrainingArguments.{next(iter(setting))} is"):
        DoReMiTrainer(
            tiny_model(),
            objective=TokenMean(store.names),
            corpus=store,
            args=arguments(tmp_path, **setting),
            mixture=MixtureSettings(sequence_length=SEQUENCE_LENGTH),
        )
