"""The schedule against a plain transcription of the method, its invariants, and its errors."""

from __future__ import annotations

import itertools
import json
import logging
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doremi.errors import InputError, RunFailedError
from doremi.mixture import MixtureSchedule, RepetitionLimit
from doremi.mixture.apportion import to_fixed_point
from tests.mixture import transcription

COUNTS = {"web": 1000, "code": 40, "émails ../": 7, "one row": 1, "unused": 0}
WEIGHTS = {"web": 6.0, "code": 2.5, "émails ../": 1.0, "one row": 0.5}
HERE = Path(__file__).parent
PUBLISHED = HERE.parents[1] / "src" / "doremi" / "data" / "published_weights.json"


def schedule(counts=COUNTS, *, weights=WEIGHTS, global_batch_size=12, seed=0, **settings):
    return MixtureSchedule(counts, weights=weights, global_batch_size=global_batch_size, seed=seed, **settings)


def pairs(batch):
    return list(zip(batch.domain_ids.tolist(), batch.rows.tolist(), strict=True))


def draw(schedule, num_batches):
    return [schedule.next_batch() for _ in range(num_batches)]


def rows_of(name, counts, *, weights, num_rows, **settings):
    """The first rows of one domain in the order of its stream, which batches of one row leave as it is."""
    ours = schedule(counts, weights=weights, global_batch_size=1, **settings)
    index, rows = ours.names.index(name), []
    while len(rows) < num_rows:
        domain, row = pairs(ours.next_batch())[0]
        rows.extend([row] * (domain == index))
    return rows


@pytest.mark.parametrize("mode", ["balanced", "iid"])
def test_agrees_with_a_plain_transcription_of_the_method(mode):
    ours = schedule(global_batch_size=37, seed=2**64 - 1, mode=mode)
    fixed = to_fixed_point(np.array([*WEIGHTS.values(), 0.0])).tolist()
    expected = transcription.batches(COUNTS, fixed, 37, seed=2**64 - 1, mode=mode)
    for batch in itertools.islice(expected, 60):  # 20 epochs of the small domains
        assert pairs(ours.next_batch()) == batch


def test_golden_batches():
    """The first 3 batches, so that no upgrade of a library changes the order of the data unnoticed.

    A wanted change needs a new `ALGORITHM` tag, and this file written anew in the same commit.
    """
    golden = json.loads((HERE / "golden_batches.json").read_text())
    for case in golden:
        ours = schedule(
            case["sequence_counts"],
            weights=case["weights"],
            global_batch_size=case["global_batch_size"],
            seed=7,
            mode=case["mode"],
        )
        assert ours.state_dict()["algorithm"] == case["algorithm"]
        for batch in case["batches"]:
            assert [list(pair) for pair in pairs(ours.next_batch())] == batch


def test_every_row_once_before_any_twice():
    ours, seen = schedule(), {name: Counter() for name in COUNTS}
    for _ in range(200):
        for domain, row in pairs(ours.next_batch()):
            seen[ours.names[domain]][row] += 1
        for name, num_rows in COUNTS.items():
            epochs, rest = divmod(ours.delivered[name], max(num_rows, 1))
            times = Counter(seen[name][row] for row in range(num_rows))
            assert times == Counter({epochs: num_rows - rest, epochs + 1: rest})
    assert ours.epochs_seen == {
        "web": 1.44,
        "code": 15.0,
        "émails ../": pytest.approx(240 / 7),
        "one row": 120.0,
        "unused": 0.0,
    }


def test_a_domains_order_depends_on_seed_name_and_epoch_alone():
    first = rows_of("code", COUNTS, weights=WEIGHTS, num_rows=120)
    epochs = [first[:40], first[40:80], first[80:]]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    others = {"new": 3, "code": 40, "renamed": 1000}
    assert rows_of("code", others, weights={"code": 1, "new": 9}, num_rows=120) == first
    assert rows_of("code", {"code": 40}, weights={"code": 1}, num_rows=120, mode="iid") == first
    assert rows_of("edoc", {"edoc": 40}, weights={"edoc": 1}, num_rows=120) != first
    assert rows_of("code", COUNTS, weights=WEIGHTS, num_rows=120, seed=1) != first


def test_weights_apply_to_the_very_next_batch_and_leave_the_rows_alone():
    ours = schedule({"a": 500, "b": 500}, weights={"a": 1}, global_batch_size=8)
    expected = rows_of("a", {"a": 500}, weights={"a": 1}, num_rows=16)
    first = ours.next_batch()
    ours.set_weights({"a": 1, "b": 3})
    second = ours.next_batch()
    ours.set_weights({"b": 1e-300})
    third = ours.next_batch()
    counts = [np.bincount(batch.domain_ids, minlength=2).tolist() for batch in (first, second, third)]
    assert counts == [[8, 0], [2, 6], [0, 8]]
    assert ours.weights == {"a": 0.0, "b": 1.0}
    assert sorted(first.rows.tolist()) == sorted(expected[:8])
    assert sorted(second.rows[second.domain_ids == 0].tolist()) == sorted(expected[8:10])


def test_planning_changes_nothing():
    ours, twin = schedule(), schedule()
    start = ours.state
    ahead = draw(ours, 800)  # 9,600 rows: more than are worked out at a time, so the first are to be worked out again
    again = ours.plan(start)
    assert pairs(again.batch) == pairs(ahead[0])
    assert pairs(ours.next_batch()) == pairs(draw(twin, 801)[-1])


def test_iid_draws_follow_the_weights_and_are_not_balanced():
    """Each count of 40,000 draws within 4 binomial standard deviations; they are not all within 3 rows, as balanced."""
    ours = schedule(weights={"web": 0.6, "code": 0.3, "one row": 0.1}, global_batch_size=400, mode="iid")
    ours.repetition = RepetitionLimit(math.inf)
    per_batch = np.array([np.bincount(ours.next_batch().domain_ids, minlength=5) for _ in range(100)])
    probabilities = np.array([0.6, 0.3, 0, 0.1, 0])
    spread = np.sqrt(40_000 * probabilities * (1 - probabilities))
    errors = np.abs(per_batch.sum(axis=0) - 40_000 * probabilities)
    assert (errors <= 4 * spread).all()
    assert errors.max() > 3
    assert 0.7 < per_batch[:, 0].std() / np.sqrt(400 * 0.6 * 0.4) < 1.3
    assert ours.state.credits.tolist() == [0] * 5


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    k=st.integers(1, 40),
    batch_size=st.integers(1, 100),
    seed=st.integers(0, 2**63),
    mode=st.sampled_from(["balanced", "iid"]),
)
def test_a_batch_is_valid_and_a_state_through_json_is_a_seek(k, batch_size, seed, mode):
    rng = np.random.default_rng(seed)
    counts = {f"d{i}": int(n) for i, n in enumerate(rng.integers(1, 60, k))}
    unlimited = RepetitionLimit(math.inf)

    def make():
        return schedule(
            counts, weights={"d0": 1}, global_batch_size=batch_size, seed=seed, mode=mode, repetition=unlimited
        )

    ours, sizes = make(), np.array(list(counts.values()))
    for _ in range(12):
        ours.set_weights(dict(zip(counts, rng.dirichlet(np.full(k, 0.3)) + 1e-9, strict=True)))
        saved = json.loads(json.dumps(ours.state_dict()))
        batch = ours.next_batch()
        assert batch.domain_ids.shape == batch.rows.shape == (batch_size,)
        assert (batch.rows < sizes[batch.domain_ids]).all()
        resumed = make()
        resumed.load_state_dict(saved)
        assert pairs(resumed.next_batch()) == pairs(batch)
        assert resumed.state_dict() == ours.state_dict()


def test_state_is_small_and_far_positions_are_reached_at_once():
    """22 domains of the Pile after 1e10 rows: under 2 kB of JSON, and the next batch needs no history."""
    published = json.loads(PUBLISHED.read_text())["upstream-120m"]["weights"]
    counts = {name: 210_000_000 + i for i, name in enumerate(published)}
    ours = schedule(counts, weights=published, global_batch_size=512, repetition=RepetitionLimit(math.inf))
    ours.next_batch()
    state = ours.state_dict()
    state["step"] = 10**10 // 512
    for values in state["domains"].values():
        values[1] = int(values[3] / 2**40 * 10**10)
    text = json.dumps(state)
    assert len(text.encode()) < 2000
    resumed = schedule(counts, weights={"ArXiv": 1}, global_batch_size=512)
    resumed.load_state_dict(json.loads(text))
    arxiv = resumed.names.index("ArXiv")
    drawn = state["domains"]["ArXiv"][1]
    batch = resumed.next_batch()
    key = transcription.stream(transcription.key(0, "rows:ArXiv"), drawn // counts["ArXiv"])
    rows = batch.rows[batch.domain_ids == arxiv].tolist()
    assert transcription.permute(drawn % counts["ArXiv"], counts["ArXiv"], key) in rows


# ---- repetition ----


def test_repetition_is_warned_of_once_per_domain(caplog):
    caplog.set_level(logging.WARNING, logger="doremi")
    ours = schedule({"a": 10, "b": 1000}, weights={"a": 1, "b": 1}, global_batch_size=10)
    messages = []
    for step in range(1, 30):
        ours.next_batch()
        messages += [(step, record.getMessage()) for record in caplog.records]
        caplog.clear()
    assert [step for step, _ in messages] == [9]  # 40 rows are 4 epochs exactly, the 45th is beyond
    assert "step 9: domain 'a', which has 10 rows, goes beyond 4 epochs; lower its weight" in messages[0][1]
    resumed = schedule({"a": 10, "b": 1000}, weights={"a": 1, "b": 1}, global_batch_size=10)
    resumed.load_state_dict(ours.state_dict())
    resumed.next_batch()
    assert not caplog.records


def test_repetition_as_an_error_stops_before_the_batch():
    ours = schedule(
        {"a": 10, "b": 1000}, weights={"a": 1, "b": 1}, global_batch_size=10, repetition=RepetitionLimit(1.5, "error")
    )
    draw(ours, 3)
    with pytest.raises(RunFailedError, match=r"before step 4: domain 'a', which has 10 rows, .* beyond 1\.5 epochs"):
        ours.next_batch()
    assert ours.delivered == {"a": 15, "b": 15}


@pytest.mark.parametrize("mode", ["balanced", "iid"])
def test_repetition_renormalised_never_passes_the_limit(mode):
    counts = {"a": 10, "b": 100, "c": 300}
    limit = RepetitionLimit(2, "renormalise")
    ours = schedule(counts, weights={"a": 2, "b": 1, "c": 1}, global_batch_size=7, mode=mode, repetition=limit)
    for step in range(100):
        if step == 20:  # both new weights and a resume leave an exhausted domain exhausted
            assert ours.weights == {"a": 0.0, "b": 0.5, "c": 0.5}
            ours.set_weights({"a": 8, "b": 1, "c": 1})
            assert ours.weights == {"a": 0.0, "b": 0.5, "c": 0.5}
            state = json.loads(json.dumps(ours.state_dict()))
            ours = schedule(counts, weights={"a": 1}, global_batch_size=7, mode=mode, repetition=limit)
            ours.load_state_dict(state)
        ours.next_batch()
        assert all(epochs <= 2 for epochs in ours.epochs_seen.values())
    assert ours.delivered["a"] >= 14  # retired at the first batch that would have gone beyond 20
    with pytest.raises(RunFailedError, match="every domain with a weight has reached 2 epochs"):
        draw(ours, 20)
    assert 800 <= sum(ours.delivered.values()) <= 820
    with pytest.raises(RunFailedError, match="every domain with a weight"):
        ours.set_weights({"a": 1})


# ---- errors ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"web": 1, "wbe": 1}}, r"no such domain in the corpus: 'wbe'; it has 'code', .*'web'"),
        ({"weights": {"web": 1, "unused": 1}}, r"the sampling weight of 'unused' is 0\.5, but it has no rows"),
        ({"weights": {"web": -1}}, r"the weight of 'web' is -1; it must be finite and >= 0"),
        ({"weights": {"web": math.nan}}, "the weight of 'web' is nan"),
        ({"weights": {"web": 0}}, "all weights are 0"),
        ({"weights": {}}, "no domain has a weight"),
        ({"global_batch_size": 0}, r"the global batch size is 0; it must be in \[1, 2\^20\]"),
        ({"global_batch_size": 2**20 + 1}, "the global batch size is 1048577"),
        ({"seed": -1}, r"the seed is -1; it must be in \[0, 2\^64\)"),
        ({"mode": "random"}, r"the sampling mode is 'random'; it must be one of \('balanced', 'iid'\)"),
        ({"counts": {"web": -3}}, "domain 'web' has -3 rows"),
    ],
)
def test_refuses(changes, message):
    changes = dict(changes)
    with pytest.raises(InputError, match=message):
        schedule(changes.pop("counts", COUNTS), **changes)


def test_refused_weights_leave_the_schedule_as_it_was():
    ours, twin = schedule(), schedule()
    with pytest.raises(InputError, match="no such domain"):
        ours.set_weights({"nowhere": 1})
    assert pairs(ours.next_batch()) == pairs(twin.next_batch())


@pytest.mark.parametrize(("epochs", "action", "message"), [(0, "warn", "max_epochs is 0"), (1, "stop", "is 'stop'")])
def test_repetition_limit_refuses(epochs, action, message):
    with pytest.raises(InputError, match=message):
        RepetitionLimit(epochs, action)


def test_resume_refuses_other_settings_naming_both_values():
    state = json.loads(json.dumps(schedule().state_dict()))
    with pytest.raises(InputError, match=r"seed was 0 and is now 1\. Go back .* accept=\['seed'\]"):
        schedule(seed=1).load_state_dict(state)
    with pytest.raises(InputError, match="mode was 'balanced' and is now 'iid'; global_batch_size was 12 and is now 6"):
        schedule(mode="iid", global_batch_size=6).load_state_dict(state)
    with pytest.raises(InputError, match="sequence_counts of 'code' was 40 and is now 41"):
        schedule(COUNTS | {"code": 41}).load_state_dict(state)
    with pytest.raises(InputError, match="sequence_counts of 'new' was None and is now 5"):
        schedule(COUNTS | {"new": 5}).load_state_dict(state)
    with pytest.raises(InputError, match="sequence_counts of 2 more differ"):
        schedule({"web": 1}, weights={"web": 1}).load_state_dict(state)
    with pytest.raises(InputError, match="the order of sequence_counts has changed"):
        schedule(dict(reversed(COUNTS.items()))).load_state_dict(state)


def test_resume_refuses_another_algorithm_even_if_accepted():
    state = schedule().state_dict() | {"algorithm": "doremi-mixture-0"}
    with pytest.raises(
        InputError, match="data order 'doremi-mixture-0', this version of doremi has 'doremi-mixture-1'"
    ):
        schedule().load_state_dict(state, accept=["algorithm"])


def test_resume_with_an_accepted_change_goes_on_from_the_same_counts():
    ours = schedule()
    draw(ours, 10)
    counts = {"code": 40, "web": 900, "new": 5}
    other = schedule(counts, weights={"web": 1, "new": 1}, global_batch_size=4, seed=3)
    other.load_state_dict(ours.state_dict(), accept=["seed", "sequence_counts", "global_batch_size"])
    assert other.delivered == {"code": 30, "web": 72, "new": 0}
    assert other.weights == {"code": 0.0, "web": 0.5, "new": 0.5}
    assert other.state.credits.sum() == 0
    other.next_batch()
    assert other.step == 11
    assert sum(other.delivered.values()) == 106


@pytest.mark.parametrize("broken", [{}, {"domains": {"web": [1]}}, {"domains": None}, {"step": "x"}, {"exhausted": 3}])
def test_a_broken_state_is_refused(broken):
    state = schedule().state_dict() | broken
    if not broken:
        del state["step"]
    with pytest.raises(InputError, match="not a saved state of a mixture"):
        schedule().load_state_dict(state)


def test_the_schedule_does_not_import_torch():
    code = "import sys, doremi.mixture, doremi.mixture.inspect; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
