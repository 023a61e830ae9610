"""Evaluation sets are scored with the domains, by name, and move no number of theirs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from doremi import DomainWeights, files
from doremi.corpus import prepare
from doremi.corpus.config import CorpusConfig, SetConfig
from doremi.errors import RunFailedError
from doremi.evaluation import checkpoints, loss_files, perplexity
from doremi.experiment import finished, held_out_curve, recipe, runs
from doremi.experiment.runs import TrainingRun
from tests.training.fakes import tiny_model

TRAINED = {"prose": [f"the river {i} walked slowly to the house" for i in range(40)]}
TRAINED |= {"code": [f"return {i} if x else y" for i in range(40)]}
HELD_OUT = {"prose": ["a garden in the evening light", "the stone"], "code": ["print ( x )"]}
CLIENT = ["Dear river, your house is late.", "Yours, the stone", "P.S. light"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sets")


def write(path, texts):
    path.write_text("".join(json.dumps({"text": t, "d": name}) + "\n" for name, of in texts.items() for t in of))
    return str(path)


@pytest.fixture(scope="module")
def config(folder):
    train, held_out = write(folder / "train.jsonl", TRAINED), write(folder / "held.jsonl", HELD_OUT)
    return CorpusConfig(
        inputs=[{"path": train, "domain_field": "d"}],
        held_out_inputs=[{"path": held_out, "domain_field": "d"}],
        tokenizer={"vocab_size": 257},
    )


@pytest.fixture(scope="module")
def plain(folder, config):
    return prepare(config, folder / "plain")


@pytest.fixture(scope="module")
def store(folder, config):
    path = write(folder / "client.jsonl", {"whatever": CLIENT})
    return prepare(config, folder / "store", sets=[SetConfig(name="client", path=path)])


def collected(store, *, cap=None):
    return perplexity.collect(store, store.names, sequence_length=12, max_tokens_per_domain=cap)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return tiny_model(dtype=torch.float32, vocab_size=257)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_domains_keep_every_bit(plain, store, model, batch_size):
    """Batches of a domain hold its own windows alone, and what is scored before it is the same."""
    before = perplexity.document_losses(model, collected(plain), batch_size=batch_size)
    after = perplexity.document_losses(model, collected(store), batch_size=batch_size)
    assert list(after) == [*before, "client"]
    for name, losses in before.items():
        np.testing.assert_array_equal(after[name].nats, losses.nats)
        np.testing.assert_array_equal(after[name].num_tokens, losses.num_tokens)
    in_training = [perplexity.nats_sums(model, collected(part), batch_size=batch_size) for part in (plain, store)]
    np.testing.assert_array_equal(in_training[1][:2], in_training[0])


def test_a_set_is_scored_as_its_documents_alone(store, model):
    held_out = collected(store)
    found = perplexity.document_losses(model, held_out, batch_size=4)["client"]
    stored = list(store.documents("client", split="set"))
    documents = [stored[place] for place in held_out.documents[-1]]
    for document, nats, num_tokens in zip(documents, *found, strict=True):
        windows = perplexity.rolling_windows(document, sequence_length=12, prefix_token=store.eos_token_id)
        expected = 0.0
        for window in windows:
            with torch.no_grad():
                logits = model(torch.from_numpy(window.inputs)[None]).logits[0].double()
            chosen = torch.log_softmax(logits, -1)[-len(window.targets) :]
            expected -= float(chosen[torch.arange(len(window.targets)), torch.from_numpy(window.targets)].sum())
        assert nats == pytest.approx(expected, rel=1e-5)
        assert num_tokens == len(document)


def test_what_is_known_of_what_is_scored(plain, store):
    found = perplexity.describe(collected(store))
    client, prose = found["client"], found["prose"]
    assert (client.documents, client.trained_on) == (3, False)
    assert client.bytes == sum(len(text.encode()) for text in CLIENT)
    assert client.tokens == store.num_tokens("client", split="set") - 3
    assert (prose.documents, prose.trained_on) == (2, True)
    assert list(found) == ["code", "prose", "client"]
    sizes = perplexity.set_sizes(collected(store))
    assert sizes.sets == ("client",)
    assert sizes.bytes_per_token["client"] == client.bytes / client.tokens
    assert perplexity.set_sizes(collected(plain)).sets == ()


def test_the_cap_holds_for_sets_too(store):
    held_out = checkpoints.with_bytes_of_scored_text(collected(store, cap=7), store)
    assert held_out.num_tokens.tolist() == [7, 7, 7]
    assert perplexity.describe(held_out)["client"].bytes == 7  # of a byte-level tokenizer without merges


def test_shares_of_several_processes_have_sets(store, model):
    shares = [perplexity.share(collected(store), rank=rank, world_size=2) for rank in range(2)]
    sums = sum(perplexity.nats_sums(model, share, batch_size=2) for share in shares)
    np.testing.assert_allclose(sums, perplexity.nats_sums(model, collected(store), batch_size=2), rtol=1e-6)
    assert shares[0].sets == ("client",)


def test_losses_of_sets_are_in_the_file(store, model, tmp_path):
    held_out = collected(store)
    losses = perplexity.document_losses(model, held_out, batch_size=4)
    documents = dict(zip(held_out.names, held_out.documents, strict=True))
    loss_files.write(tmp_path / "losses.parquet", losses, documents=documents, key="k")
    back = loss_files.read(tmp_path / "losses.parquet", held_out.names, key="k")
    np.testing.assert_array_equal(back["client"].nats, losses["client"].nats)


def test_a_diverged_model_is_named(store):
    broken = tiny_model(dtype=torch.float32, vocab_size=257)
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    held_out = collected(store)
    alone = perplexity.HeldOutSet(
        ("client",), held_out.windows[2:], held_out.documents[2:], held_out.num_tokens[2:],
        held_out.bytes_per_token[2:], ("client",),
    )  # fmt: skip
    with pytest.raises(RunFailedError, match="the loss of evaluation set 'client' is nan"):
        perplexity.nats_per_token(broken, alone, batch_size=4)


def test_a_model_that_is_trained_has_a_curve_of_each_set(store, tmp_path):
    content = recipe.parse(
        {
            "corpus": {"inputs": [{"path": "x"}]},
            "models": {"main": {"preset": "tiny", "overrides": {"hidden_size": 8, "intermediate_size": 8}}},
            "training": {"steps": 4, "sequence_length": 12, "global_batch_size": 2, "eval_steps": 2, "num_threads": 1},
        }
    )
    run = TrainingRun(
        name="main",
        folder=tmp_path / "main",
        model=content.models.main,
        training=content.training.for_run("main"),
        evaluation=content.evaluation.during_training(),
        names=store.names,
        sampling_weights=DomainWeights(dict.fromkeys(store.names, 1.0)),
        seed=0,
    )
    runs.train(run, store)
    curve = held_out_curve.curve_from_log(finished.load_history(run.folder, run.names), run.names)
    assert curve["steps"] == [2, 4]
    assert list(curve["nats"]) == [*store.names, "client"]
    losses = perplexity.document_losses(checkpoints.load_model(run.folder), collected(store), batch_size=64)
    client = losses["client"]
    assert curve["nats"]["client"][-1] == pytest.approx(client.nats.sum() / client.num_tokens.sum(), rel=1e-5)
    assert files.read_marker(run.folder)["epochs"].keys() == set(store.names)  # nothing of the set was drawn
