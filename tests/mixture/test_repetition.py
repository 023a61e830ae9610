"""The limit on epochs, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from doremi.errors import InputError
from doremi.mixture import RepetitionLimit
from doremi.mixture.permutation import MAX_ROWS


def test_four_epochs_and_a_warning_unless_something_else_is_asked_for():
    assert RepetitionLimit() == RepetitionLimit(4.0, "warn")


def test_draws_are_rounded_down():
    draws = RepetitionLimit(1.5).rows(np.array([1, 2, 3, 1000]))
    assert draws.tolist() == [1, 3, 4, 1500]
    assert draws.dtype == np.int64
    assert RepetitionLimit(0.3).rows(np.array([3])).tolist() == [0]


def test_without_a_limit_there_are_as_many_draws_as_can_be_counted():
    assert RepetitionLimit(float("inf")).rows(np.array([1, MAX_ROWS])).tolist() == [MAX_ROWS, MAX_ROWS]


@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_a_limit_of_nothing_is_refused(value):
    with pytest.raises(InputError, match=rf"max_epochs is {value}; it must be above 0"):
        RepetitionLimit(value)


def test_an_unknown_action_is_refused():
    with pytest.raises(InputError, match=r"the action at max_epochs is 'stop'; it must be one of .*'warn'"):
        RepetitionLimit(4.0, "stop")


def test_the_message_has_domain_rows_and_epochs():
    assert (
        RepetitionLimit(2.5).describe("a b", 7).startswith("domain 'a b', which has 7 rows, goes beyond 2.5 epochs; ")
    )
