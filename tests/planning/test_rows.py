"""Expected rows of each domain against what the loader's schedule draws, step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest

from doremi.experiment.stored_losses import expected_distinct
from doremi.mixture import MixtureSettings, RepetitionLimit
from doremi.mixture.inspect import forecast
from doremi.planning.rows import expected_rows
from tests.mixture.memory_store import MemoryStore


def drawn(weights, available, repetition, *, steps, batch):
    store = MemoryStore(available)
    settings = MixtureSettings(sequence_length=8, repetition=repetition)
    schedule = settings.schedule(store, tuple(available), weights=weights, global_batch_size=batch, seed=0)
    return {domain.name: domain.drawn_rows for domain in forecast(schedule, num_steps=steps).domains}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("repetition", [RepetitionLimit(2, "warn"), RepetitionLimit(2, "renormalise")])
@pytest.mark.filterwarnings("ignore")
def test_against_the_schedule(seed, repetition):
    rng = np.random.default_rng(seed)
    names = [f"d{i}" for i in range(rng.integers(2, 9))]
    weights = dict(zip(names, rng.dirichlet(np.ones(len(names))).tolist(), strict=True))
    available = {name: int(rng.integers(40, 900)) for name in names}
    batch = 16
    steps = min(150, int(1.5 * sum(available.values())) // batch)  # less than two epochs of everything
    expected = expected_rows(weights, num_rows=steps * batch, available=available, repetition=repetition)
    found = drawn(weights, available, repetition, steps=steps, batch=batch)
    assert math.fsum(expected.values()) == pytest.approx(steps * batch)
    # a domain is left out before the batch that would pass its limit, so up to a batch early
    tolerance = batch + len(names) if repetition.action == "renormalise" else len(names)
    assert expected == pytest.approx(found, abs=tolerance)


def test_others_take_over_by_hand():
    """a (10 rows, weight 1/2) is at 2 epochs after 40 rows: 20 a, 10 b, 10 c; 60 more are shared by b and c."""
    limit = RepetitionLimit(2, "renormalise")
    weights, available = {"a": 0.5, "b": 0.25, "c": 0.25}, {"a": 10, "b": 1000, "c": 1000}
    rows = expected_rows(weights, num_rows=100, available=available, repetition=limit)
    assert rows == pytest.approx({"a": 20, "b": 40, "c": 40})
    everything = expected_rows(weights, num_rows=10**6, available=available, repetition=limit)
    assert everything == pytest.approx({"a": 20, "b": 2000, "c": 2000})
    warned = expected_rows(weights, num_rows=100, available=available, repetition=RepetitionLimit(2, "warn"))
    assert warned == {"a": 50, "b": 25, "c": 25}


def test_distinct_rows_by_counting():
    rng = np.random.default_rng(0)
    seen = [len(set(np.concatenate([rng.permutation(200)[:120] for _ in range(3)]))) for _ in range(300)]
    assert expected_distinct([120] * 3, available=200) == pytest.approx(np.mean(seen), rel=0.01)
    assert expected_distinct([500], available=200) == 200
    assert expected_distinct([50], available=200) == pytest.approx(50)
    assert expected_distinct([5], available=0) == 0
