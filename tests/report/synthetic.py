"""A made-up but realistic experiment with any number of domains: what a run directory would hold."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from doremi.evaluation.task_results import TaskResult
from doremi.evidence.build import build
from doremi.evidence.comparing import pairs
from doremi.evidence.curves import HeldOutCurve
from doremi.evidence.few_shot import FewShot
from doremi.evidence.paired_documents import DocumentLosses
from doremi.evidence.schema import EvaluationSet, Results, Verify, mean
from doremi.evidence.searches import Convergence, StageCost, Trajectory
from doremi.evidence.study import FinishedSearch, Study, TrainedArm
from doremi.experiment import few_shot_runs

WORDS = (
    "stdlib", "ml-libraries", "cpp-headers", "generated-headers", "docstrings", "unit-tests", "type-stubs",
    "licences-and-readmes", "language-reference", "unicode-names", "codec-tables", "base64-binaries",
    "Pile-CC", "PubMed Central", "Books3", "OpenWebText2", "ArXiv", "GitHub", "FreeLaw", "StackExchange",
    "USPTO Backgrounds", "Gutenberg (PG-19)",
)  # fmt: skip
JUNK = 11  # index of the domain that nothing can be learned from
NUM_STEPS = 1200
NUM_PARAMETERS, NUM_TOKENS = 205_632, NUM_STEPS * 16 * 128  # of every model
PLAIN_ARM = "reference_without_floor"
STEP_SIZE, SMOOTHING = 1.0, 1e-3
SUMMARIES = ("uniform_mean", "reference_mean", "worst")
SALTS = {"natural": 8, "doremi": 4}  # of their own noise
ARMS = ("natural", "doremi", "uniform")


def domain_names(num_domains: int) -> list[str]:
    """Names of a real corpus first, then numbered ones."""
    return [WORDS[i] if i < len(WORDS) else f"crawl-{i:03d}" for i in range(num_domains)]


def make_results(num_domains: int = 12, **options: Any) -> dict[str, Any]:
    """The content of a `results.json`: see `make_study`."""
    return content(build(make_study(num_domains, **options)))


def content(results: Results) -> dict[str, Any]:
    """As it is read from a file."""
    return json.loads(json.dumps(results.model_dump()))


def nats(results: dict[str, Any], arm: str, name: str) -> float:
    """The mean loss over the seeds."""
    return mean(results["arms"][arm]["nats"][name])


def summary(results: dict[str, Any], arm: str, key: str) -> float:
    """One summary of an arm, a mean over the seeds."""
    return mean(results["arms"][arm]["summaries"][key])


def answer(results: dict[str, Any], arm: str = "doremi") -> dict[str, float]:
    """The weights of an arm."""
    return results["arms"][arm]["weights"]


def prior(results: dict[str, Any]) -> dict[str, float]:
    """The reference weights."""
    return {name: domain["prior"] for name, domain in results["domains"].items()}


def make_study(
    num_domains: int = 12,
    *,
    names: list[str] | None = None,
    arms: tuple[str, ...] = ARMS,
    num_seeds: int = 3,
    num_recorded: int = 240,
    seed: int = 0,
    **changes: Any,
) -> Study:
    """An experiment, consistent in itself, the same for the same arguments; the search is the one for ``doremi``.

    Losses of documents and curves are made up; all that is said about them comes from `doremi.evidence`.
    """
    names = names or domain_names(num_domains)
    rng = np.random.default_rng(seed)
    tokens = (4e6 * rng.lognormal(0, 1.0, len(names))).astype(int) + 20_000
    reference = dict(zip(names, (tokens / tokens.sum()).tolist(), strict=True))
    trajectory = _trajectory(names, rng, num_recorded)
    doremi = {name: trajectory["average_weights"][name][-1] for name in names}
    weights = _weights_by_arm(arms, reference, doremi)
    models = {arm: {s: _model(names, weights[arm], arm=arm, seed=s) for s in range(num_seeds)} for arm in arms}
    scored = {name: losses.num_tokens for name, losses in models[arms[0]][0].losses.items()}
    search = {"reference": 2.5e12, "proxy": 4.1e12}
    paid = {"doremi": sum(search.values())}
    study = Study(
        arms={arm: _arm(arm, weights[arm], tokens, models[arm], search_flops=paid.get(arm, 0.0)) for arm in arms},
        control=arms[0],
        target="uniform",
        prior=reference,
        tokens=dict(zip(names, tokens.tolist(), strict=True)),
        sets={
            name: EvaluationSet(tokens=int(found.sum()), bytes=round(3.4 * found.sum()), documents=len(found))
            for name, found in scored.items()
        },
        verify=Verify(size="main", seeds=num_seeds),
        searches={"doremi": _search(search, trajectory, reference, doremi, plain=PLAIN_ARM in arms)}
        if "doremi" in arms
        else {},
        provenance={
            "doremi": "0.1.0",
            "python": "3.11.7",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "corpus_digest": "0c9f6c1d7a2b4f43a8f7c30b7e1d5a96",
            "recipe_digest": "b7d0e7c2f1a94c26931f0a4a5f6e8d12",
            "tokenizer_digest": "5e2f8a90c4d34b0f8e6a7d1c2b3f4a5e",
            "command": "doremi run recipes/demo.yaml --out runs/demo --set seed=1",
        },
    )
    return replace(study, **changes)


def _search(
    flops: dict[str, float],
    trajectory: dict[str, Any],
    reference: dict[str, float],
    doremi: dict[str, float],
    *,
    plain: bool,
) -> FinishedSearch:
    return FinishedSearch(
        flops=flops,
        costs={
            stage: StageCost(
                train_seconds=found / 4e10, num_parameters=NUM_PARAMETERS, num_tokens=NUM_TOKENS, flops=found
            )
            for stage, found in flops.items()
        },
        convergence=Convergence(
            max_change=max(abs(doremi[name] - weight) for name, weight in reference.items()),
            effective_num_domains=float(np.exp(-sum(w * np.log(w) for w in doremi.values()))),
            status="stopped at the maximum",
            changes=[0.2171, 0.0312],
            spread={name: 0.1 * weight for name, weight in doremi.items()},
        ),
        trajectory=Trajectory(**trajectory),
        floor=[name for name, weight in reference.items() if doremi[name] < 0.1 * weight],
        plain_arm=PLAIN_ARM if plain else None,
    )


def make_tasks(arms: tuple[str, ...], *, num_seeds: int = 3) -> dict[str, Any]:
    """The ``tasks`` of a `results.json`, through `doremi.experiment.few_shot_runs`."""
    rng = np.random.default_rng(0)
    answers = {
        arm: {seed: {task: _answers(task, 0.3 + 0.1 * place, rng) for task in ("lambada", "squad")}
              for seed in range(num_seeds)}
        for place, arm in enumerate(arms)
    }  # fmt: skip
    found = few_shot_runs.summary(answers, pairs(arms, control=arms[0], searched=["doremi"]))
    curves = {arm: {"steps": [400, 1200], "average": [0.2, 0.3]} for arm in arms}
    tasks = FewShot.model_validate({**found, "num_fewshot": 1, "limit": None, "curves": curves})
    return json.loads(tasks.model_dump_json())


def _answers(task: str, share: float, rng: np.random.Generator) -> TaskResult:
    scores = {f"{i}": float(right) for i, right in enumerate(rng.random(400) < share)}
    mean = float(np.mean(list(scores.values())))
    return TaskResult(
        task=task, metric="acc", value=mean, standard_error=(mean * (1 - mean) / 400) ** 0.5, num_documents=400,
        num_fewshot=1, num_truncated=0, higher_is_better=True, version="1", prompts_digest="", scores=scores,
    )  # fmt: skip


def write_run(run_dir: Path, results: dict[str, Any]) -> Path:
    """Write a run directory that `write_report` reads."""
    run_dir.mkdir(parents=True, exist_ok=True)
    weights = results["arms"].get("doremi", {}).get("weights")
    (run_dir / "results.json").write_text(json.dumps(results, indent=1))
    (run_dir / "weights.json").write_text(
        json.dumps({"train_domain_weights": weights, "eval_domain_weights": weights}, indent=1)
    )
    (run_dir / "recipe.yaml").write_text(RECIPE)
    return run_dir


RECIPE = """\
corpus:
  inputs:
  - path: corpus/text
    domain_field: meta.pile_set_name
  tokenizer:
    train: true
    vocab_size: 2048
weights:
  reference: natural
models:
  reference: {preset: tiny, init: random}
  proxy: {preset: tiny, init: random}
  main: {preset: tiny, init: random}
training:
  steps: 1200
  sequence_length: 128
  global_batch_size: 16
  learning_rate: 0.005
reweighting:
  step_size: 1.0
  smoothing: 0.001
seed: 1
"""


def _trajectory(names: list[str], rng: np.random.Generator, num_recorded: int) -> dict[str, Any]:
    """Algorithm 1 of the paper driven by made-up excess losses that shrink as the proxy learns."""
    num_domains, alpha = len(names), np.full(len(names), 1 / len(names))
    level = rng.gamma(3.0, 0.02, num_domains)
    if num_domains > JUNK:
        level[JUNK] = 0.001
    total, kept = np.zeros(num_domains), []
    every = max(1, NUM_STEPS // num_recorded)
    for step in range(1, NUM_STEPS + 1):
        pull = (1 / num_domains / alpha) ** 0.35  # a domain with much weight is learned, and lags less
        excess = level * np.clip(pull, 0.2, 3) * (0.3 + np.exp(-step / 500)) * rng.lognormal(0, 0.35, num_domains)
        alpha = alpha * np.exp(STEP_SIZE * excess)
        alpha = (1 - SMOOTHING) * alpha / alpha.sum() + SMOOTHING / num_domains
        total += alpha
        if step % every == 0:
            kept.append((step, alpha, total / step, excess))
    series = {
        key: {name: [float(row[column][i]) for row in kept] for i, name in enumerate(names)}
        for column, key in ((1, "dro_weights"), (2, "average_weights"), (3, "excess_losses"))
    }
    return {"steps": [row[0] for row in kept], **series}


@dataclass(frozen=True)
class Model:
    """One seed of one run."""

    steps: list[int]
    nats: np.ndarray  # [domain, evaluation], nats per token
    losses: dict[str, DocumentLosses]  # at the end


def _weights_by_arm(
    arms: tuple[str, ...], reference: dict[str, float], doremi: dict[str, float]
) -> dict[str, dict[str, float]]:
    weights = {"natural": reference, "doremi": doremi}
    for index, arm in enumerate(arm for arm in arms if arm not in weights):
        tempered = {name: w ** (0.3 * index) for name, w in reference.items()}  # uniform first, then ever closer
        if arm == PLAIN_ARM:
            tempered = {name: w if doremi[name] >= 0.1 * w else 0.0 for name, w in reference.items()}
        weights[arm] = {name: w / sum(tempered.values()) for name, w in tempered.items()}
    return weights


def _model(names: list[str], weights: dict[str, float], *, arm: str, seed: int) -> Model:
    """Power-law learning curves; a domain's final loss falls with the logarithm of its weight."""
    num_domains, shared, own = (
        len(names),
        np.random.default_rng(0),
        np.random.default_rng([seed, SALTS.get(arm, len(arm))]),
    )
    steps = np.arange(0, NUM_STEPS + 1, 60)
    final = shared.uniform(2.4, 4.4, num_domains)
    if num_domains > JUNK:
        final[JUNK] = 5.6
    shares = np.array(list(weights.values()))
    gain = 0.05 * np.log(np.maximum(shares, 1e-4) * num_domains) + {"doremi": 0.1, PLAIN_ARM: 0.05}.get(arm, 0.0)
    shape = (1 + steps / 90) ** -0.85
    nats = np.maximum(final - gain, 0.4)[:, None] + (7.6 - final)[:, None] * shape
    nats = nats + own.normal(0, 0.012, (num_domains, 1)) + own.normal(0, 0.006, nats.shape)
    documents = np.random.default_rng(1)
    losses = {name: _documents(float(nats[i, -1]), documents, own, few=i % 12 == 7) for i, name in enumerate(names)}
    nats[:, -1] = [found.nats.sum() / found.num_tokens.sum() for found in losses.values()]
    return Model(steps.tolist(), nats, losses)


def _documents(
    nats_per_token: float, shared: np.random.Generator, own: np.random.Generator, *, few: bool
) -> DocumentLosses:
    """The same documents for every model: their lengths, and how hard each is."""
    num_documents = 12 if few else 48
    tokens = shared.integers(60, 900, num_documents)
    hardness = shared.normal(0, 0.3, num_documents)
    nats = tokens * (nats_per_token + hardness - np.average(hardness, weights=tokens))
    noise = tokens * own.normal(0, 0.05, num_documents)
    return DocumentLosses(nats + noise - tokens * noise.sum() / tokens.sum(), tokens)


def _arm(
    arm: str, weights: dict[str, float], tokens: np.ndarray, by_seed: dict[int, Model], *, search_flops: float
) -> TrainedArm:
    return TrainedArm(
        method=arm,
        weights=weights,
        losses={seed: model.losses for seed, model in by_seed.items()},
        curves={
            seed: HeldOutCurve(model.steps, dict(zip(weights, model.nats.tolist(), strict=True)))
            for seed, model in by_seed.items()
        },
        steps=NUM_STEPS,
        num_parameters=NUM_PARAMETERS,
        num_tokens=NUM_TOKENS,
        train_flops=6.0 * NUM_PARAMETERS * NUM_TOKENS,
        train_seconds=dict.fromkeys(by_seed, 71.4 + len(arm)),
        folders={seed: f"runs/{arm}/seed-{seed}" for seed in by_seed},
        epochs={
            name: float(NUM_TOKENS * weight / size)
            for (name, weight), size in zip(weights.items(), tokens, strict=True)
        },
        search_flops=search_flops,
    )
