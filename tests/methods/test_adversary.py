"""DoReMi's options as bounds, averages and pulls by domain, by hand."""

from __future__ import annotations

import pytest

from doremi.errors import InputError
from doremi.methods import adversary
from doremi.methods.doremi import DoReMi
from doremi.methods.group_dro_options import GroupDROOptions
from tests.methods import made_up

TOKENS = {"web": 6000, "code": 3000, "books": 1000}


def options(*, num_steps=100, main_tokens=10_000, prior=None, **section):
    section = section | ({"prior": "uniform"} if prior else {})
    bench = made_up.bench(tokens=TOKENS, steps={"proxy": num_steps}, main_tokens=main_tokens)
    return adversary.options(DoReMi(**section), bench, prior=prior)


def test_the_default_section_adds_nothing():
    assert options() == GroupDROOptions()


def test_bounds_by_domain_and_for_all_come_in_the_order_of_the_weights():
    found = options(min_weight=0.02, max_weight={"books": 0.1, "web": 0.7}, projection="euclidean")
    assert found.minimum == (0.02, 0.02, 0.02)
    assert found.maximum == (0.7, 1.0, 0.1)
    assert found.projection == "euclidean"
    assert options(min_weight={"code": 0.2}).minimum == (0.0, 0.2, 0.0)
    assert options(min_weight={"code": 0.2}).maximum is None
    assert options(max_weight=0.5).maximum == (0.5, 0.5, 0.5)


def test_a_number_of_epochs_is_a_bound_on_the_share_of_the_main_run():
    """2 epochs of 6,000, 3,000 and 1,000 tokens in 10,000: shares of 1.2, 0.6 and 0.2."""
    assert options(max_main_epochs=2).maximum == pytest.approx((1.0, 0.6, 0.2))
    both = options(max_main_epochs=2, max_weight={"code": 0.5, "books": 0.3})
    assert both.maximum == pytest.approx((1.0, 0.5, 0.2))
    assert options(max_main_epochs=20).maximum is None  # more than anything could ask for
    assert options(max_main_epochs=1).maximum == pytest.approx((0.6, 0.3, 0.1))  # leaves no choice


@pytest.mark.parametrize(
    ("num_steps", "fraction", "average_after"), [(100, 1.0, 0), (100, 0.25, 75), (10, 0.27, 7), (3, 0.01, 2)]
)
def test_the_tail_is_the_last_share_of_the_steps_and_never_empty(num_steps, fraction, average_after):
    assert options(num_steps=num_steps, tail_fraction=fraction).average_after == average_after


def test_the_prior_is_in_the_order_of_the_weights():
    found = options(prior={"books": 0.5, "web": 0.2, "code": 0.3}, prior_pull=0.25)
    assert (found.prior, found.prior_pull) == ((0.2, 0.3, 0.5), 0.25)
    with pytest.raises(InputError, match="must be above 0 for every domain"):
        options(prior={"books": 0.5, "web": 0.5}, prior_pull=0.1)


def test_the_other_settings_are_passed_on():
    found = options(step_size_schedule="inverse_sqrt", excess_ema=0.5)
    assert (found.step_size_schedule, found.excess_ema) == ("inverse_sqrt", 0.5)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"min_weight": {"wiki": 0.1}}, "doremi.min_weight: no such domain: 'wiki'; there are 'web', 'code', 'bo"),
        ({"max_weight": {"wiki": 0.1}}, "doremi.max_weight: no such domain: 'wiki'"),
        ({"min_weight": {"code": 0.6, "web": 0.5}}, r"the lower ones sum to 1\.1"),
        ({"min_weight": 0.2, "max_weight": {"code": 0.1}}, "of 'code' has a minimum of 0.2 and a maximum of 0.1"),
        ({"min_weight": -0.1}, "of 'web' has a minimum of -0.1 and a maximum of 1; they must be between 0 and 1"),
        ({"max_weight": {"books": 1.5}}, "of 'books' has a minimum of 0 and a maximum of 1.5"),
        ({"max_main_epochs": 0.99}, r"is 0\.99, but the main run reads 10,000 tokens of 10,000, 1 epochs on"),
    ],
)
def test_refused(section, message):
    with pytest.raises(InputError, match=message):
        options(**section)


def test_a_bound_that_is_no_number():
    """A recipe refuses it earlier; what is made in Python may have it."""
    config = DoReMi().model_copy(update={"max_weight": float("nan")})
    with pytest.raises(InputError, match="of 'web' has a minimum of 0 and a maximum of nan"):
        adversary.options(config, made_up.bench(tokens=TOKENS), prior=None)
