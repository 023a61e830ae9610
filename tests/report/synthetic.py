"""A made-up but realistic experiment with any number of domains: what a run directory would hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

WORDS = (
    "stdlib", "ml-libraries", "cpp-headers", "generated-headers", "docstrings", "unit-tests", "type-stubs",
    "licences-and-readmes", "language-reference", "unicode-names", "codec-tables", "base64-binaries",
    "Pile-CC", "PubMed Central", "Books3", "OpenWebText2", "ArXiv", "GitHub", "FreeLaw", "StackExchange",
    "USPTO Backgrounds", "Gutenberg (PG-19)",
)  # fmt: skip
JUNK = 11  # index of the domain that nothing can be learned from
NUM_STEPS = 1200
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
    num_recorded: int = 240,
    seed: int = 0,
) -> dict[str, Any]:
    """The content of a `results.json`; consistent in itself, the same for the same arguments."""
    names = names or domain_names(num_domains)
    rng = np.random.default_rng(seed)
    tokens = (4e6 * rng.lognormal(0, 1.0, len(names))).astype(int) + 20_000
    reference = tokens / tokens.sum()
    trajectory = _trajectory(names, rng, num_recorded)
    doremi = np.array([trajectory["average_weights"][name][-1] for name in names])
    weights = {"baseline": reference, "main": doremi}
    for index, run in enumerate(run for run in runs if run not in weights):
        tempered = reference ** (0.3 * index)  # uniform first, then ever closer to the reference
        weights[run] = tempered / tempered.sum()
    curves = {run: _curves(names, weights[run], reference, seed=seed, is_main=run == "main") for run in runs}
    nats = {run: {name: curve["nats"][name][-1] for name in names} for run, curve in curves.items()}
    at_floor = [name for name, weight in zip(names, doremi, strict=True) if weight < 0.06 / len(names)]
    final = {key: {run: curves[run][key][-1] for run in runs} for key in SUMMARIES}
    num_better = sum(nats["main"][name] < nats["baseline"][name] for name in names)
    steps_to_match = _steps_to_match(curves)
    return {
        "format": 1,
        "domains": {
            name: {
                "tokens": int(tokens[i]),
                "held_out_tokens": int(tokens[i]) // 50,
                "reference_weight": float(reference[i]),
                "doremi_weight": float(doremi[i]),
                "nats": {run: nats[run][name] for run in runs},
                "bits_per_byte": {run: nats[run][name] / np.log(2) / 3.4 for run in runs},
            }
            for i, name in enumerate(names)
        },
        "runs": {run: _run(run, names, weights[run], tokens) for run in runs},
        **final,
        "worst_domain": {run: max(names, key=lambda name: nats[run][name]) for run in runs},
        "without_floor": _without_floor(names, at_floor, nats, reference) if at_floor else None,
        "steps_to_match": steps_to_match,
        "num_better": num_better,
        "num_worse": len(names) - num_better,
        "num_domains": len(names),
        "verdict": (
            f"Seed noise not measured: with one seed, main is lower than the baseline on {num_better} of {len(names)} "
            f"domains, by {final['uniform_mean_nats']['baseline'] - final['uniform_mean_nats']['main']:+.3f} nats per "
            "token in the uniform mean; whether that is more than chance, this run cannot say."
        ),
        "curves": curves,
        "trajectory": trajectory,
        "convergence": {
            "max_change": float(np.abs(doremi - reference).max()),
            "effective_num_domains": float(np.exp(-(doremi * np.log(doremi)).sum())),
        },
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
    }


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


def _curves(
    names: list[str], weights: np.ndarray, reference: np.ndarray, *, seed: int, is_main: bool
) -> dict[str, Any]:
    """Power-law learning curves; a domain's final loss falls with the logarithm of its weight."""
    num_domains, rng = len(names), np.random.default_rng(seed)
    steps = np.arange(0, NUM_STEPS + 1, 60)
    final = rng.uniform(2.4, 4.4, num_domains)
    if num_domains > JUNK:
        final[JUNK] = 5.6
    gain = 0.05 * np.log(np.maximum(weights, 1e-5) * num_domains) + (0.09 if is_main else 0.0)
    shape = (1 + steps / 90) ** -0.85
    nats = np.maximum(final - gain, 0.4)[:, None] + (7.6 - final)[:, None] * shape
    nats = nats + rng.normal(0, 0.012, nats.shape)
    return {
        "steps": steps.tolist(),
        "nats": {name: nats[i].tolist() for i, name in enumerate(names)},
        "uniform_mean_nats": nats.mean(axis=0).tolist(),
        "reference_mean_nats": (reference @ nats).tolist(),
        "worst_nats": nats.max(axis=0).tolist(),
    }


def _run(run: str, names: list[str], weights: np.ndarray, tokens: np.ndarray) -> dict[str, Any]:
    num_tokens = NUM_STEPS * 16 * 128
    label = {"baseline": "natural", "main": "doremi"}.get(run, run)
    return {
        "weights": label,
        "domain_weights": {name: float(w) for name, w in zip(names, weights, strict=True)},
        "seed": 1,
        "steps": NUM_STEPS,
        "num_parameters": 205_632,
        "num_tokens": num_tokens,
        "train_seconds": 71.4 + len(run),
        "epochs": {name: float(num_tokens * weights[i] / tokens[i]) for i, name in enumerate(names)},
        "folder": f"runs/{label}/seed-1",
    }


def _without_floor(
    names: list[str], at_floor: list[str], nats: dict[str, dict[str, float]], reference: np.ndarray
) -> dict[str, Any]:
    kept = [i for i, name in enumerate(names) if name not in at_floor]
    values = {run: np.array([by_name[names[i]] for i in kept]) for run, by_name in nats.items()}
    weights = reference[kept] / reference[kept].sum()
    return {
        "domains_at_floor": at_floor,
        "uniform_mean_nats": {run: float(v.mean()) for run, v in values.items()},
        "reference_mean_nats": {run: float(weights @ v) for run, v in values.items()},
        "worst_nats": {run: float(v.max()) for run, v in values.items()},
    }


def _steps_to_match(curves: dict[str, Any]) -> float | None:
    goal = curves["baseline"]["reference_mean_nats"][-1]
    main = curves["main"]
    reached = [s for s, v in zip(main["steps"], main["reference_mean_nats"], strict=True) if v <= goal]
    return float(reached[0]) if reached else None
