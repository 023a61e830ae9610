"""A made-up but realistic experiment with any number of domains: what a run directory would hold."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from doremi.experiment.planned_runs import pairs

from doremi.evaluation.task_results import TaskResult
from doremi.evidence.comparing import Evidence, SummaryCurve, compare, explained, mean_over_seeds
from doremi.evidence.comparison import summarise
from doremi.evidence.paired_documents import DocumentLosses
from doremi.evidence.speed_up import cost
from doremi.evidence.targets import Targets
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
CONTROL = "reference_without_floor"
STEP_SIZE, SMOOTHING = 1.0, 1e-3
SUMMARIES = ("uniform_mean_nats", "reference_mean_nats", "worst_nats")


def domain_names(num_domains: int) -> list[str]:
    """Names of a real corpus first, then numbered ones."""
    return [WORDS[i] if i < len(WORDS) else f"crawl-{i:03d}" for i in range(num_domains)]


def make_results(
    num_domains: int = 12,
    *,
    names: list[str] | None = None,
    runs: tuple[str, ...] = ("baseline", "main", "uniform"),
    num_seeds: int = 3,
    num_recorded: int = 240,
    seed: int = 0,
) -> dict[str, Any]:
    """The content of a `results.json`; consistent in itself, the same for the same arguments.

    Losses of documents and curves are made up; all that is said about them comes from `doremi.evaluation`.
    """
    names = names or domain_names(num_domains)
    rng = np.random.default_rng(seed)
    tokens = (4e6 * rng.lognormal(0, 1.0, len(names))).astype(int) + 20_000
    reference = dict(zip(names, (tokens / tokens.sum()).tolist(), strict=True))
    trajectory = _trajectory(names, rng, num_recorded)
    doremi = {name: trajectory["average_weights"][name][-1] for name in names}
    weights = _weights_by_run(runs, reference, doremi)
    seeds = range(num_seeds)
    models = {run: {s: _model(names, weights[run], run=run, seed=s) for s in seeds} for run in runs}
    evidence = {run: _evidence(by_seed, reference) for run, by_seed in models.items()}
    nats = {run: mean_over_seeds(found.nats) for run, found in evidence.items()}
    search = {"reference": 2.5e12, "proxy": 4.1e12}
    compared = _comparisons(evidence, reference, search_flops=sum(search.values()))
    at_floor = [name for name in names if doremi[name] < 0.1 * reference[name]]
    headline = compared[0]
    return {
        "format": 1,
        "domains": {
            name: {
                "tokens": int(tokens[i]),
                "held_out_tokens": int(models["main"][0].losses[name].num_tokens.sum()),
                "held_out_documents": len(models["main"][0].losses[name].num_tokens),
                "reference_weight": reference[name],
                "doremi_weight": doremi[name],
                "nats": {run: nats[run][name] for run in runs},
                "bits_per_byte": {run: nats[run][name] / np.log(2) / 3.4 for run in runs},
            }
            for i, name in enumerate(names)
        },
        "runs": {
            run: _run(run, names, np.array(list(weights[run].values())), tokens, evidence[run], reference)
            for run in runs
        },
        **_summaries(evidence, reference, names),
        "worst_domain": {run: max(nats[run], key=nats[run].__getitem__) for run in runs},
        "without_floor": {"domains_at_floor": at_floor}
        | _summaries(evidence, reference, [name for name in names if name not in at_floor])
        if at_floor
        else None,
        "steps_to_match": headline["speed_up"]["steps_to_match"]["value"],
        "num_better": sum(found["value"] < 0 for found in headline["domains"].values()),
        "num_worse": sum(found["value"] > 0 for found in headline["domains"].values()),
        "num_domains": len(names),
        "verdict": headline["verdict"]["sentence"],
        "comparisons": compared,
        "control": explained(
            evidence, baseline="baseline", control=CONTROL, tuned="main", targets=Targets(reference)
        )
        if CONTROL in runs
        else None,
        "curves": {run: _mean_curve(names, by_seed, reference) for run, by_seed in models.items()},
        "trajectory": trajectory,
        "convergence": {
            "max_change": max(abs(doremi[name] - reference[name]) for name in names),
            "effective_num_domains": float(np.exp(-sum(w * np.log(w) for w in doremi.values()))),
            "status": "stopped at the maximum",
            "changes": [0.2171, 0.0312],
            "spread": {name: 0.1 * doremi[name] for name in names},
        },
        "alarms": [],
        "costs": {
            stage: {"train_seconds": flops / 4e10, "num_parameters": NUM_PARAMETERS, "num_tokens": NUM_TOKENS,
                    "flops": flops}
            for stage, flops in search.items()
        },
        "cost": asdict(cost(search, main=6.0 * NUM_PARAMETERS * NUM_TOKENS)),
        "provenance": {
            "doremi": "0.1.0",
            "python": "3.11.7",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "corpus_digest": "0c9f6c1d7a2b4f43a8f7c30b7e1d5a96",
            "recipe_digest": "b7d0e7c2f1a94c26931f0a4a5f6e8d12",
            "tokenizer_digest": "5e2f8a90c4d34b0f8e6a7d1c2b3f4a5e",
            "command": "doremi run recipes/demo.yaml --out runs/demo --set seed=1",
        },
    }  # fmt: skip


def make_tasks(runs: tuple[str, ...], *, num_seeds: int = 3) -> dict[str, Any]:
    """The ``tasks`` of a `results.json`, through `doremi.experiment.few_shot_runs`."""
    rng = np.random.default_rng(0)
    asked = {
        run: {seed: {task: _answers(task, 0.3 + 0.1 * place, rng) for task in ("lambada", "squad")}
              for seed in range(num_seeds)}
        for place, run in enumerate(runs)
    }  # fmt: skip
    return {
        "num_fewshot": 1,
        "limit": None,
        "tasks": few_shot_runs.summarise(asked),
        "average": few_shot_runs.averages(asked),
        "comparisons": few_shot_runs.compare_all(asked),
        "curves": {run: {"steps": [400, 1200], "average": [0.2, 0.3]} for run in runs},
    }


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
    weights = {name: domain["doremi_weight"] for name, domain in results["domains"].items()}
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


def _weights_by_run(
    runs: tuple[str, ...], reference: dict[str, float], doremi: dict[str, float]
) -> dict[str, dict[str, float]]:
    weights = {"baseline": reference, "main": doremi}
    for index, run in enumerate(run for run in runs if run not in weights):
        tempered = {name: w ** (0.3 * index) for name, w in reference.items()}  # uniform first, then ever closer
        if run == CONTROL:
            tempered = {name: w if doremi[name] >= 0.1 * w else 0.0 for name, w in reference.items()}
        weights[run] = {name: w / sum(tempered.values()) for name, w in tempered.items()}
    return weights


def _model(names: list[str], weights: dict[str, float], *, run: str, seed: int) -> Model:
    """Power-law learning curves; a domain's final loss falls with the logarithm of its weight."""
    num_domains, shared, own = len(names), np.random.default_rng(0), np.random.default_rng([seed, len(run)])
    steps = np.arange(0, NUM_STEPS + 1, 60)
    final = shared.uniform(2.4, 4.4, num_domains)
    if num_domains > JUNK:
        final[JUNK] = 5.6
    shares = np.array(list(weights.values()))
    gain = 0.05 * np.log(np.maximum(shares, 1e-4) * num_domains) + {"main": 0.1, CONTROL: 0.05}.get(run, 0.0)
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


def _evidence(by_seed: dict[int, Model], reference: dict[str, float]) -> Evidence:
    weights = np.array(list(reference.values()))
    return Evidence(
        losses={seed: model.losses for seed, model in by_seed.items()},
        curves={seed: SummaryCurve(model.steps, (weights @ model.nats).tolist()) for seed, model in by_seed.items()},
        steps=NUM_STEPS,
        flops_per_step=6.0 * NUM_PARAMETERS * NUM_TOKENS / NUM_STEPS,
    )


def _comparisons(
    evidence: dict[str, Evidence], reference: dict[str, float], *, search_flops: float
) -> list[dict[str, Any]]:
    return [
        compare(
            evidence,
            tuned=tuned,
            baseline=baseline,
            targets=Targets(reference),
            search_flops=search_flops if tuned == "main" else 0.0,
        )
        for tuned, baseline in pairs(evidence)
    ]


def _summaries(evidence: dict[str, Evidence], reference: dict[str, float], names: list[str]) -> dict[str, Any]:
    found = {
        run: [summarise({name: nats[name] for name in names}, reference) for nats in models.nats.values()]
        for run, models in evidence.items()
    }
    return {
        f"{key}_nats": {run: float(np.mean([getattr(s, key) for s in seeds])) for run, seeds in found.items()}
        for key in ("uniform_mean", "reference_mean", "worst")
    }


def _curve(names: list[str], nats: np.ndarray, reference: dict[str, float]) -> dict[str, Any]:
    return {
        "uniform_mean_nats": nats.mean(axis=0).tolist(),
        "reference_mean_nats": (np.array(list(reference.values())) @ nats).tolist(),
        "worst_nats": nats.max(axis=0).tolist(),
    }


def _mean_curve(names: list[str], by_seed: dict[int, Model], reference: dict[str, float]) -> dict[str, Any]:
    nats = np.mean([model.nats for model in by_seed.values()], axis=0)
    curves = {str(seed): _curve(names, model.nats, reference) for seed, model in by_seed.items()}
    means = {key: np.mean([curve[key] for curve in curves.values()], axis=0).tolist() for key in SUMMARIES}
    return {
        "steps": by_seed[0].steps,
        "nats": {name: nats[i].tolist() for i, name in enumerate(names)},
        **means,
        **({"by_seed": curves} if len(curves) > 1 else {}),
    }


def _run(
    run: str,
    names: list[str],
    weights: np.ndarray,
    tokens: np.ndarray,
    evidence: Evidence,
    reference: dict[str, float],
) -> dict[str, Any]:
    label = {"baseline": "natural", "main": "doremi"}.get(run, run)
    by_seed = {
        str(seed): {
            "folder": f"runs/{label}/seed-{seed}",
            "train_seconds": 71.4 + len(run),
            "nats": nats,
            **{key: getattr(summarise(nats, reference), key.removesuffix("_nats")) for key in SUMMARIES},
            "worst_domain": summarise(nats, reference).worst_domain,
        }
        for seed, nats in evidence.nats.items()
    }  # fmt: skip
    return {
        "weights": label,
        "domain_weights": {name: float(w) for name, w in zip(names, weights, strict=True)},
        "seed": 0,
        "seeds": list(evidence.losses),
        "steps": NUM_STEPS,
        "num_parameters": NUM_PARAMETERS,
        "num_tokens": NUM_TOKENS,
        "flops": 6.0 * NUM_PARAMETERS * NUM_TOKENS,
        "train_seconds": sum(found["train_seconds"] for found in by_seed.values()),
        "epochs": {name: float(NUM_TOKENS * weights[i] / tokens[i]) for i, name in enumerate(names)},
        "folder": by_seed["0"]["folder"],
        "by_seed": by_seed,
    }
