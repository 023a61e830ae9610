"""DoReMi's options of the adversary, by domain."""

from __future__ import annotations

from collections.abc import Mapping

from doremi.errors import InputError
from doremi.methods.doremi_options import DoReMiOptions
from doremi.methods.group_dro_options import GroupDROOptions
from doremi.methods.protocol import Bench
from doremi.weights import listed, nearest


def options(config: DoReMiOptions, bench: Bench, *, prior: Mapping[str, float] | None) -> GroupDROOptions:
    """What a recipe adds to Group DRO.

    Args:
        config: the method's options.
        bench: the domains, their tokens, the steps of a proxy and the tokens of the main run.
        prior: weights that the adversary is pulled towards, resolved.

    Raises:
        InputError: bounds of a domain that does not exist, or that no weights meet.
    """
    names, num_steps = bench.names, bench.steps["proxy"]
    lower = _by_domain("min_weight", config.min_weight, names, default=0.0)
    upper = _by_domain("max_weight", config.max_weight, names, default=1.0)
    if config.max_main_epochs is not None:
        caps = _shares(
            {name: bench.tokens[name] for name in names},
            max_epochs=config.max_main_epochs,
            main_tokens=bench.main_tokens,
        )
        upper = tuple(min(bound, cap) for bound, cap in zip(upper, caps, strict=True))
    result = GroupDROOptions(
        step_size_schedule=config.step_size_schedule,
        excess_ema=config.excess_ema,
        average_after=num_steps - max(round(config.tail_fraction * num_steps), 1),
        minimum=lower if any(lower) else None,
        maximum=upper if upper != (1.0,) * len(names) else None,
        projection=config.projection,
        prior=tuple(prior.get(name, 0.0) for name in names) if prior else None,
        prior_pull=config.prior_pull,
    )
    result.check(names)
    return result


def _by_domain(
    key: str, bound: float | Mapping[str, float], names: tuple[str, ...], *, default: float
) -> tuple[float, ...]:
    if not isinstance(bound, Mapping):
        return (float(bound),) * len(names)
    if unknown := sorted(set(bound) - set(names)):
        raise InputError(
            f"doremi.{key}: no such domain: {listed(unknown)}; there are {listed(names)}{nearest(unknown, names)}"
        )
    return tuple(float(bound.get(name, default)) for name in names)


def _shares(token_counts: Mapping[str, int], *, max_epochs: float, main_tokens: int) -> tuple[float, ...]:
    """The share of the main run that each domain fills in that many epochs; above 1 where it has more tokens."""
    total = sum(token_counts.values())
    if max_epochs * total < main_tokens:
        raise InputError(
            f"doremi.max_main_epochs is {max_epochs:g}, but the main run reads {main_tokens:,} tokens of "
            f"{total:,}, {main_tokens / total:.4g} epochs on average; raise it to at least that, add data, or train "
            "the main model for fewer steps"
        )
    return tuple(max_epochs * tokens / main_tokens for tokens in token_counts.values())
