import pytest

from doremi.report import numbers


@pytest.mark.parametrize(
    ("show", "value", "shown"),
    [
        (numbers.nats, 3.5526, "3.553"),
        (numbers.signed, 0.0123, "+0.012"),
        (numbers.signed, -0.0523, "-0.052"),
        (numbers.signed, -0.0004, "0.000"),  # no sign that the digits do not bear out
        (numbers.signed, 0.0, "0.000"),
        (numbers.percent, 0.12344, "12.34%"),
        (numbers.percent, 1.0, "100.00%"),
        (numbers.percent, 4.9e-5, "<0.01%"),
        (numbers.percent, 5.1e-5, "0.01%"),
        (numbers.percent, 0.0, "0.00%"),
        (numbers.factor, 1.625, "1.62x"),
        (numbers.factor, 0.004, "<0.01x"),
        (numbers.factor, 0.0, "0.00x"),
        (numbers.factor, 1234.4, "1,234x"),
        (numbers.count, 0, "0"),
        (numbers.count, 999, "999"),
        (numbers.count, 1000, "1.00K"),
        (numbers.count, 12_345, "12.3K"),
        (numbers.count, 99_960, "100K"),
        (numbers.count, 999_499, "999K"),
        (numbers.count, 999_500, "1.00M"),
        (numbers.count, 205_632, "206K"),
        (numbers.count, 1.049e9, "1.05B"),
        (numbers.count, 3.03e12, "3.03T"),
        (numbers.count, 4.2e18, "4.20e+18"),
        (numbers.whole, 1200.0, "1,200"),
        (numbers.epochs, 0.421, "0.42"),
        (numbers.epochs, 0.001, "<0.01"),
        (numbers.epochs, 13.06, "13.1"),
        (numbers.duration, 42.4, "42 s"),
        (numbers.duration, 59.6, "1 min 00 s"),
        (numbers.duration, 372, "6 min 12 s"),
        (numbers.duration, 11_100, "3 h 05 min"),
        (numbers.duration, 3 * 86400, "3.0 days"),
        # the places where the form changes
        (numbers.percent, 0.5e-4, "0.01%"),
        (numbers.factor, 0.005, "0.01x"),
        (numbers.factor, 99.99, "99.99x"),
        (numbers.factor, 100.0, "100x"),
        (numbers.count, 999.4e12, "999T"),
        (numbers.count, 999.5e12, "1.00e+15"),
        (numbers.count, 0.9995e3, "1.00K"),
        (numbers.count, 9_994, "9.99K"),
        (numbers.count, 9_996, "10.0K"),
        (numbers.epochs, 0.005, "0.01"),
        (numbers.epochs, 0.0, "0.00"),
        (numbers.epochs, 9.99, "9.99"),
        (numbers.epochs, 9.995, "10.0"),
        (numbers.duration, 59.4, "59 s"),
        (numbers.duration, 3599, "59 min 59 s"),
        (numbers.duration, 3600, "1 h 00 min"),
        (numbers.duration, 48 * 3600 - 1, "47 h 59 min"),
        (numbers.duration, 48 * 3600, "2.0 days"),
        (numbers.p_value, 0.0123, "0.012"),
        (numbers.p_value, 0.0004, "<0.001"),
        (numbers.p_value, 0.0005, "0.001"),
    ],
)
def test_shown_as(show, value, shown):
    assert show(value) == shown


@pytest.mark.parametrize(
    "show",
    [
        numbers.nats,
        numbers.signed,
        numbers.percent,
        numbers.factor,
        numbers.count,
        numbers.whole,
        numbers.epochs,
        numbers.duration,
        numbers.p_value,
        numbers.interval,
    ],
)
def test_what_was_not_measured_shows_as_a_dash(show):
    assert show(None) == "-"


def test_intervals_and_errors():
    assert numbers.interval((-0.0711, -0.0326)) == "-0.071 to -0.033"
    assert numbers.interval((0.5, 2), numbers.factor) == "0.50x to 2.00x"
    assert numbers.with_interval(-0.052, (-0.0711, -0.0326)) == "-0.052 (-0.071 to -0.033)"
    assert numbers.with_interval(1.5, (1, 2), numbers.factor) == "1.50x (1.00x to 2.00x)"
    assert numbers.with_interval(-0.052, None) == "-0.052"
    assert numbers.with_error(0.3124, 0.0211) == "0.312 +/- 0.021"
    assert numbers.with_error(0.3124, None) == "0.312"
