"""The state of a policy as JSON and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

from doremi.errors import InputError
from doremi.methods import group_dro
from doremi.methods.protocol import dump, restore


class Inner(NamedTuple):
    share: float
    label: str | None = None


@dataclass(frozen=True)
class State:
    names: tuple[str, ...]
    step: int
    is_done: bool
    rate: float
    weights: np.ndarray
    rows: np.ndarray
    seen: np.ndarray
    history: np.ndarray  # grows
    inner: Inner
    losses: tuple[float, ...] = ()  # grows


def state(**changes: Any) -> State:
    values = {
        "names": ("a", "b"),
        "step": 0,
        "is_done": False,
        "rate": 0.0,
        "weights": np.array([0.5, 0.5]),
        "rows": np.zeros(2, np.int64),
        "seen": np.zeros(2, bool),
        "history": np.zeros((0, 2)),
        "inner": Inner(1.0),
    }
    return State(**values | changes)


LATER = state(
    step=7,
    is_done=True,
    rate=float("inf"),
    weights=np.array([1 / 3, np.nan]),
    rows=np.array([2**60 + 1, 3]),
    seen=np.array([True, False]),
    history=np.array([[0.1, 0.2], [-np.inf, 1e-300], [3.0, 4.0]]),
    inner=Inner(0.1, "x"),
    losses=(0.1, 0.2, 0.3),
)


def test_every_number_survives_json():
    content = json.loads(json.dumps(dump(LATER), allow_nan=False))
    found = restore(state(), content)
    assert type(found) is State
    for name in ("names", "step", "is_done", "rate", "inner", "losses"):
        assert getattr(found, name) == getattr(LATER, name)
        assert type(getattr(found, name)) is type(getattr(LATER, name))
    for name in ("weights", "rows", "seen", "history"):
        np.testing.assert_array_equal(getattr(found, name), getattr(LATER, name))
        assert getattr(found, name).dtype == getattr(LATER, name).dtype
    assert restore(state(), json.loads(json.dumps(dump(state())))).history.shape == (0, 2)


def test_a_state_that_knows_its_own_json_is_stored_as_it_says():
    dro = group_dro.update(group_dro.init(["a", "b"]), excess_sums=[1.0, 0.5], token_counts=[2, 3])
    assert dump(dro) == dro.to_dict()
    restored = restore(group_dro.init(["a", "b"]), json.loads(json.dumps(dump(dro))))
    np.testing.assert_array_equal(restored.weights, dro.weights)
    with pytest.raises(InputError, match=r"is for domains \('a', 'b'\), this run has \('b', 'a'\)"):
        restore(group_dro.init(["b", "a"]), dump(dro))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 1.5}, "State.step is 1.5; it must be of type int"),
        ({"step": True}, "State.step is True"),
        ({"rate": "fast"}, "State.rate is 'fast'"),
        ({"rate": None}, "State.rate is None"),
        ({"weights": [0.5, 0.25, 0.25]}, r"State.weights is \[0.5, 0.25, 0.25\]; it must be an array of float64\[2\]"),
        ({"weights": 3.0}, "State.weights is 3.0"),
        ({"weights": [0.5, [1.0]]}, "State.weights is"),
        ({"rows": [0.5, 1]}, r"it must be an array of int64\[2\]"),
        ({"rows": [2**70, 1]}, r"it must be an array of int64\[2\]"),
        ({"seen": [2, 0]}, r"it must be an array of bool\[2\]"),
        ({"history": [[1.0, 2.0, 3.0]]}, "State.history is"),
        ({"inner": {"share": 1.0}}, "State.inner is .*; it must be the fields share, label"),
        ({"inner": [1.0, None]}, "State.inner is"),
        ({"losses": 3}, "State.losses is 3"),
        ({"names": ["a"]}, r"is for domains \('a',\), this run has \('a', 'b'\)"),
        ({"names": "ab"}, "State.names is 'ab'; it must be 2 values"),
        ({"names": ["b", "a"]}, "is for domains"),
        ({"more": 1}, "it must be the fields names, step"),
    ],
)
def test_what_is_no_state_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        restore(state(), dump(state()) | changes)


@pytest.mark.parametrize("content", [None, [], "text", {}, 3])
def test_what_is_nothing_like_a_state_is_refused(content):
    with pytest.raises(InputError, match="not a saved "):
        restore(state(), content)
    with pytest.raises(InputError, match="not a saved "):
        restore(group_dro.init(["a", "b"]), content)


def test_a_policy_that_keeps_what_is_not_stored_is_a_bug():
    with pytest.raises(TypeError, match=r"State.rate is object; a policy's state holds text, numbers"):
        dump(state(rate=object()))
    with pytest.raises(TypeError, match=r"State.weights is ndarray"):
        dump(state(weights=np.zeros(2, np.float32)))
    with pytest.raises(TypeError, match="a dataclass or NamedTuple, not float"):
        dump(0.5)
