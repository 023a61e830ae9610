"""Numbers to short text, the same in the page, its Markdown twin and the console table. ASCII."""

from __future__ import annotations

from collections.abc import Callable

MISSING = "-"
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def nats(value: float | None) -> str:
    """A loss with three decimals: ``3.553``."""
    return MISSING if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """A difference of losses with its sign: ``+0.012``, ``-0.052``, and ``0.000`` without one."""
    if value is None:
        return MISSING
    text = f"{value:+.3f}"
    return "0.000" if text in ("+0.000", "-0.000") else text


def interval(ends: tuple[float, float] | None, format_: Callable[[float], str] = signed) -> str:
    """Both ends of an interval: ``-0.071 to -0.033``."""
    return MISSING if ends is None else f"{format_(ends[0])} to {format_(ends[1])}"


def with_interval(
    value: float | None, ends: tuple[float, float] | None, format_: Callable[[float | None], str] = signed
) -> str:
    """``-0.052 (-0.071 to -0.033)``, or the value alone."""
    return format_(value) + (f" ({interval(ends, format_)})" if ends else "")


def with_error(value: float | None, standard_error: float | None) -> str:
    """``0.312 +/- 0.021``, or the value alone."""
    return nats(value) + ("" if standard_error is None else f" +/- {nats(standard_error)}")


def p_value(value: float | None) -> str:
    """``0.012``; ``<0.001`` for what would round to nothing."""
    if value is None:
        return MISSING
    return "<0.001" if value < 0.0005 else f"{value:.3f}"


def percent(fraction: float | None) -> str:
    """A weight as a share of the training tokens: ``12.34%``; ``<0.01%`` for what would round to nothing."""
    if fraction is None:
        return MISSING
    return "<0.01%" if 0 < fraction < 0.5e-4 else f"{fraction:.2%}"


def with_spread(fraction: float | None, standard_deviation: float | None) -> str:
    """``12.34% +/- 0.56%``, or the weight alone."""
    return percent(fraction) + ("" if standard_deviation is None else f" +/- {percent(standard_deviation)}")


def factor(value: float | None) -> str:
    """A ratio: ``1.62x``; ``<0.01x`` for what would round to nothing."""
    if value is None:
        return MISSING
    if 0 < value < 0.005:
        return "<0.01x"
    return f"{value:.2f}x" if value < 100 else f"{value:,.0f}x"


def count(value: float | None) -> str:
    """Tokens, parameters or FLOPs with three digits: ``950``, ``12.3M``, ``1.05B``, ``4.20e+18``."""
    if value is None:
        return MISSING
    if value >= 999.5e12:
        return f"{value:.2e}"
    for unit, letter in _UNITS:
        if value >= 0.9995 * unit:
            return f"{_three_digits(value / unit)}{letter}"
    return f"{value:.0f}"


def _three_digits(value: float) -> str:
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}"


def whole(value: float | None) -> str:
    """Steps or exact counts with thousands separated: ``1,200``."""
    return MISSING if value is None else f"{value:,.0f}"


def epochs(value: float | None) -> str:
    """How often a domain was seen: ``0.42``, ``13.1``; ``<0.01`` for what would round to nothing."""
    if value is None:
        return MISSING
    if 0 < value < 0.005:
        return "<0.01"
    return f"{value:.2f}" if value < 9.995 else f"{value:,.1f}"


def duration(seconds: float | None) -> str:
    """``42 s``, ``6 min 12 s``, ``3 h 05 min``, ``2.1 days``."""
    if seconds is None:
        return MISSING
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    if total < 48 * 3600:
        return f"{total // 3600} h {total % 3600 // 60:02d} min"
    return f"{seconds / 86400:.1f} days"
