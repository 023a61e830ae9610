"""The forecast against what is then drawn."""

from __future__ import annotations

import json

import numpy as np
import pytest

from doremi.errors import InputError, RunFailedError
from doremi.mixture import MixtureSchedule, RepetitionLimit
from doremi.mixture.inspect import forecast

COUNTS = {"web": 300, "tiny": 7, "unused": 50}


def make_schedule(**settings):
    return MixtureSchedule(COUNTS, weights={"web": 0.75, "tiny": 0.25}, global_batch_size=10, seed=0, **settings)


def test_forecast_is_what_is_then_drawn():
    schedule = make_schedule()
    for _ in range(3):
        schedule.next_batch()
    state = schedule.state
    told = forecast(schedule, num_steps=13, num_first_rows=4)
    assert schedule.state is state
    drawn = [schedule.next_batch() for _ in range(13)]
    counts = np.bincount(np.concatenate([batch.domain_ids for batch in drawn]), minlength=3)
    assert [domain.drawn_rows for domain in told.domains] == counts.tolist()
    assert [tuple(domain)[:3] for domain in told.domains] == [
        ("web", 0.75, 97.5), ("tiny", 0.25, 32.5), ("unused", 0.0, 0.0),
    ]  # fmt: skip
    assert [domain.available_rows for domain in told.domains] == [300, 7, 50]
    assert {domain.name: domain.epochs for domain in told.domains} == schedule.epochs_seen
    assert told.repeated == ("tiny",)
    assert (told.num_steps, told.num_rows) == (13, 130)
    first = zip(drawn[0].domain_ids[:4].tolist(), drawn[0].rows[:4].tolist(), strict=True)
    assert told.first_rows == tuple((schedule.names[domain], row) for domain, row in first)


def test_forecast_is_json():
    told = forecast(make_schedule(), num_steps=1, num_first_rows=1)
    content = json.loads(json.dumps(told.to_dict()))
    assert content["domains"][1] == {
        "name": "tiny", "weight": 0.25, "expected_rows": 2.5, "drawn_rows": 2, "available_rows": 7, "epochs": 2 / 7,
    }  # fmt: skip
    assert content["repeated"] == []
    assert content["num_rows"] == 10
    assert len(content["first_rows"]) == 1


def test_forecast_follows_a_domain_that_is_retired():
    """tiny runs out after 2 epochs; its weight over 100 steps is what was asked until then."""
    told = forecast(make_schedule(repetition=RepetitionLimit(2, "renormalise")), num_steps=59)
    web, tiny, _ = told.domains
    assert tiny.drawn_rows <= 14
    assert tiny.epochs <= 2
    assert abs(tiny.drawn_rows - tiny.expected_rows) < 1
    assert web.expected_rows + tiny.expected_rows == pytest.approx(590)


def test_forecast_names_what_goes_beyond_the_limit():
    once = RepetitionLimit(1)  # 7.5 rows of web a step: 300 after 40 steps
    assert forecast(make_schedule(repetition=once), num_steps=40).repeated == ("tiny",)
    assert forecast(make_schedule(repetition=once), num_steps=41).repeated == ("web", "tiny")


def test_forecast_refuses():
    with pytest.raises(InputError, match="the number of steps to inspect is 0; it must be at least 1"):
        forecast(make_schedule(), num_steps=0)
    with pytest.raises(RunFailedError, match="stopped before step 4: domain 'tiny', which has 7 rows, goes"):
        forecast(make_schedule(repetition=RepetitionLimit(1, "error")), num_steps=5)
