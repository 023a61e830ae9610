"""Where a schedule stands, as a value: what a plan starts from and what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from doremi.errors import InputError
from doremi.mixture.apportion import move_stranded_credits, to_fixed_point

MAX_DIFFERENCES = 3  # domains that an error names before it only counts them


@dataclass(frozen=True, eq=False)
class ScheduleState:
    """Everything that the next global batch depends on, apart from the settings that stay fixed during a run.

    Arrays hold one value per domain, in the order of the schedule's names, and are never written to.
    """

    step: int  # global batches planned so far
    drawn: np.ndarray  # int64[k], rows delivered so far, over all epochs
    credits: np.ndarray  # int64[k], fixed point: see `doremi.mixture.apportion`
    weights: np.ndarray  # int64[k], fixed point: what the next batch is drawn with
    exhausted: np.ndarray  # bool[k], domains that reached their maximum of epochs; their weight stays 0

    @classmethod
    def initial(cls, weights: np.ndarray) -> ScheduleState:
        """Before the first batch: nothing drawn, nothing owed. ``weights`` is float64[k], not all 0."""
        nothing = np.zeros(len(weights), np.int64)
        return cls(0, nothing, nothing, to_fixed_point(weights), nothing.astype(bool))

    def with_weights(self, weights: np.ndarray) -> ScheduleState:
        """The state with other sampling weights (float64[k]); exhausted domains get 0, whatever is asked for.

        At least one domain that is not exhausted must have a weight above 0. Equal weights give the same object.
        """
        fixed = to_fixed_point(np.where(self.exhausted, 0.0, weights))
        if np.array_equal(fixed, self.weights):
            return self
        return replace(self, weights=fixed, credits=move_stranded_credits(self.credits, fixed))

    def to_dict(self, sequence_counts: Mapping[str, int]) -> dict[str, Any]:
        """JSON-able; integers, which survive JSON exactly. Four a domain: [rows, drawn, credit, weight]."""
        columns = np.stack([self.drawn, self.credits, self.weights], axis=1).tolist()
        rows = zip(sequence_counts.items(), columns, strict=True)
        return {
            "step": self.step,
            "domains": {name: [num_rows, *values] for (name, num_rows), values in rows},
            "exhausted": [name for name, done in zip(sequence_counts, self.exhausted, strict=True) if done],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], sequence_counts: Mapping[str, int]) -> ScheduleState:
        """The state that `to_dict` wrote; a domain that it does not know starts from nothing, with weight 0.

        Raises:
            InputError: a key is missing or a value is not of its type.
        """
        try:
            domains, exhausted = content["domains"], set(content["exhausted"])
            values = np.array([domains.get(name, [0, 0, 0, 0]) for name in sequence_counts], np.int64).reshape(-1, 4)
            return cls(
                step=int(content["step"]),
                drawn=values[:, 1],
                credits=values[:, 2],
                weights=values[:, 3],
                exhausted=np.array([name in exhausted for name in sequence_counts]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"not a saved state of a mixture: {error!r}") from None


def refuse_changes(saved: Mapping[str, Any], current: Mapping[str, Any], *, accept: Collection[str]) -> None:
    """Check that the settings that fix the order of the data are what they were, apart from those in ``accept``.

    Raises:
        InputError: a setting differs; the message gives its value in the saved state and now.
    """
    changed = [name for name, now in current.items() if name not in accept and not _same(saved.get(name), now)]
    if changed:
        lines = [line for name in changed for line in _differences(name, saved.get(name), current[name])]
        raise InputError(
            f"cannot continue the data order: {'; '.join(lines)}. Go back to the saved settings, or pass "
            f"accept={changed!r} to go on all the same: rows may then be repeated or left out in the current epoch"
        )


def _same(saved: object, current: object) -> bool:
    """Equality; of mappings, in the same order too, because it gives the domain ids."""
    if isinstance(saved, Mapping) and isinstance(current, Mapping):
        return list(saved.items()) == list(current.items())
    return saved == current


def _differences(name: str, saved: object, current: object) -> Iterator[str]:
    if not (isinstance(saved, Mapping) and isinstance(current, Mapping)):
        yield f"{name} was {saved!r} and is now {current!r}"
        return
    keys = [key for key in {**saved, **current} if saved.get(key) != current.get(key)]
    for key in keys[:MAX_DIFFERENCES]:
        yield from _differences(f"{name} of {key!r}", saved.get(key), current.get(key))
    if not keys:
        yield f"the order of {name} has changed"
    elif len(keys) > MAX_DIFFERENCES:
        yield f"{name} of {len(keys) - MAX_DIFFERENCES} more differ"
