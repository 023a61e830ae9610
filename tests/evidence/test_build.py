"""From a study to results: what is recommended, and what a verdict may say, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from doremi.errors import InputError
from doremi.evidence.build import build, planned_pairs
from doremi.evidence.curves import HeldOutCurve
from doremi.evidence.paired_documents import DocumentLosses
from doremi.evidence.schema import EvaluationSet, Verify
from doremi.evidence.study import FinishedSearch, Study, TrainedArm

PRIOR = {"a": 0.75, "b": 0.25}
NOISE = (-0.01, 0.0, 0.01)


def arm(shift, *, noise=NOISE, weights=None, **changes):
    """Two domains and a set of letters, 40 documents each; all losses shifted alike, give or take the seed's noise."""
    tokens = np.full(40, 10)
    nats = {"a": 3.0, "b": 2.0, "letters": 5.0}
    found = TrainedArm(
        method="by hand",
        weights=PRIOR if weights is None else weights,
        losses={
            seed: {name: DocumentLosses((value + shift + extra) * tokens, tokens) for name, value in nats.items()}
            for seed, extra in enumerate(noise)
        },
        curves={
            seed: HeldOutCurve([1, 2], {name: [value + 1, value + shift + extra] for name, value in nats.items()})
            for seed, extra in enumerate(noise)
        },
        steps=2,
        num_parameters=7,
        num_tokens=100,
        train_flops=60.0,
        train_seconds=dict.fromkeys(range(len(noise)), 1.5),
        folders={seed: f"runs/{seed}" for seed in range(len(noise))},
        epochs={"a": 1.0},
    )
    return replace(found, **changes)


def study(arms, **changes):
    texts = {name: EvaluationSet(tokens=400, bytes=1600, documents=40) for name in PRIOR}
    texts["letters"] = EvaluationSet(tokens=400, bytes=800, documents=40, trained_on=False)
    found = Study(
        arms=arms,
        control="natural",
        target="uniform",
        prior=PRIOR,
        tokens={"a": 300, "b": 100},
        sets=texts,
        verify=Verify(size="main", seeds=3),
    )
    return replace(found, **changes)


NATURAL = arm(0.0, noise=(0.0, 0.0, 0.0))


def test_an_arm_that_is_shown_to_be_better_is_recommended():
    weights = {"a": 0.5, "b": 0.5}
    found = build(
        study({"natural": NATURAL, "found": arm(-0.1, weights=weights)}, searches={"found": FinishedSearch()})
    )
    assert (found.recommendation.arm, found.recommendation.weights) == ("found", weights)
    assert found.recommendation.reason == "found is better than natural."
    assert found.verdict == found.headline.verdict.sentence
    assert found.verdict.startswith("Better: found minus natural is -0.1 nats per token in the uniform mean")


def test_the_lowest_of_several_better_arms_is_called_selected():
    arms = {"natural": NATURAL, "one": arm(-0.1), "two": arm(-0.2), "three": arm(0.2)}
    found = build(study(arms))
    assert found.recommendation.arm == "two"
    assert found.recommendation.reason == (
        "two is better than natural after Holm's correction over 3 arms; of 2 arms that are, the one with the lowest "
        "loss."
    )


def test_what_many_arms_would_show_by_chance_is_not_recommended():
    """p = .0422 alone; Holm's p among four arms, three of which show nothing, is four times that."""
    arms = {"natural": NATURAL, "lucky": arm(-0.0272)} | {f"other {i}": arm(-0.001 * i) for i in range(3)}
    alone = build(study(dict(list(arms.items())[:2])))
    assert (alone.recommendation.arm, alone.headline.among_arms.holm_p_value) == (
        "lucky",
        pytest.approx(0.0422, abs=1e-4),
    )
    found = build(study(arms))
    assert found.headline.among_arms.holm_p_value == pytest.approx(4 * alone.headline.among_arms.p_value)
    assert found.recommendation.arm == "natural"
    assert found.recommendation.reason == "natural, the control: no other arm is shown to be better."
    assert found.headline.verdict.outcome == "better"
    assert found.verdict.endswith(" Corrected for asking about 4 arms at once (Holm): no difference, p = 0.17.")


def test_one_seed_recommends_the_control():
    found = build(study({"natural": arm(0.0, noise=(0.0,)), "found": arm(-1.0, noise=(0.0,))}))
    assert found.recommendation.arm == "natural"
    assert found.recommendation.reason == (
        "natural, the control: seed noise is not measured (1 of the 3 seeds that an interval needs)."
    )


def test_the_proxys_size_claims_nothing_about_the_main_one():
    found = build(study({"natural": NATURAL, "found": arm(-0.1)}, verify=Verify(size="proxy", seeds=3)))
    for sentence in (found.verdict, found.recommendation.reason):
        assert sentence.endswith(" The models are of the proxy's size: nothing is claimed about the main model's.")


def test_arms_with_the_models_of_another_leave_pairs_and_family():
    twin = arm(-0.1, same_as="found")
    arms = {"natural": NATURAL, "found": arm(-0.1), "twin": twin}
    assert planned_pairs(study(arms)) == [("found", "natural")]
    found = build(study(arms))
    assert found.headline.among_arms.holm_p_value == found.headline.among_arms.p_value
    assert found.arms["twin"].same_as == "found"


def test_the_control_alone_is_a_study_too():
    found = build(study({"natural": NATURAL}))
    assert (found.verdict, found.headline, found.lead) == ("Nothing was compared.", None, "natural")
    assert found.recommendation.reason == "natural, the control: no other arm was compared with it."


def test_everything_is_about_a_target_of_weighed_sets():
    """letters are 2 bytes a token, a is 4: (3 · 5/2 + 3/4) / 4 bits per byte but for ln 2, and its curve alike."""
    found = build(study({"natural": NATURAL, "found": arm(-0.1)}, target={"letters": 3, "a": 1}))
    assert (found.unit, next(iter(found.summary_labels))) == ("bits per byte", "target")
    expected = (3 * 5 / 2 + 3 / 4) / 4 / np.log(2)
    natural = found.arms["natural"]
    assert natural.summaries["target"] == pytest.approx([expected] * 3)
    assert natural.curve.summaries["target"][-1] == pytest.approx(expected)
    assert found.headline.verdict.primary == "target"
    assert found.headline.summaries["target"].value == pytest.approx(-0.1 * (3 / 2 + 1 / 4) / 4 / np.log(2))
    assert found.headline.speed_up.steps_to_match.value == pytest.approx(1 + 1 / 1.1, abs=1e-4)
    assert found.arms["found"].bits_per_byte["letters"] == pytest.approx(4.9 / 2 / np.log(2))
    assert (natural.worst_domain, list(natural.nats)) == ("a", ["a", "b", "letters"])


def test_a_target_that_is_no_set_of_the_study():
    with pytest.raises(InputError, match="no such set: 'lettres'"):
        build(study({"natural": NATURAL}, target={"lettres": 1.0}))


def test_the_floor_leaves_domains_out_of_the_summaries():
    search = FinishedSearch(floor=["b"], flops={"proxy": 120.0})
    found = build(study({"natural": NATURAL, "found": arm(-0.1, search_flops=120.0)}, searches={"found": search}))
    floor, cost = found.searches["found"].floor, found.searches["found"].cost
    assert floor.summaries["found"] == pytest.approx({"uniform_mean": 2.9, "reference_mean": 2.9, "worst": 2.9})
    assert (cost.search_over_main, found.arms["found"].search_flops) == (2.0, 120.0)
    assert found.headline.speed_up.factor_with_search.value < found.headline.speed_up.factor.value
    everything = replace(search, floor=["a", "b"])
    nothing_left = build(study({"natural": NATURAL, "found": arm(-0.1)}, searches={"found": everything}))
    assert nothing_left.searches["found"].floor is None
