"""Prices are whole mills, grow with the work, and are the ones the module's table says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.accounts import prices
from serve.accounts.prices import Prices, credits_of, mills_of
from ssd1b.sizes import Size

sides = st.integers(1, 512).map(lambda eighths: 8 * eighths)
sizes = st.builds(Size, sides, sides)


def test_the_table_of_the_docstring() -> None:
    rows = [line.split() for line in (prices.__doc__ or "").splitlines()]
    table = [row for row in rows if row and row[0][0].isdigit()]
    assert [row[0] for row in table] == ["128x128", "512x512", "1024x1024"]
    for size, *said in table:
        made = [f"{credits_of(Prices().of(1, steps, Size.parse(size))):.3f}" for steps in (8, 20, 30)]
        assert made == said


@given(pictures=st.integers(1, 10), steps=st.integers(1, 100), size=sizes)
def test_more_work_never_costs_less(pictures: int, steps: int, size: Size) -> None:
    price = Prices().of(pictures, steps, size)
    assert price >= pictures * Prices().least
    assert price == pictures * Prices().of(1, steps, size)
    assert price <= Prices().of(pictures, steps + 1, size)
    assert price <= Prices().of(pictures, steps, Size(size.height + 8, size.width))


def test_a_price_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="step is -1"):
        Prices(step=-1)


@pytest.mark.parametrize(("said", "mills"), [("1000", 1_000_000), ("0.25", 250), ("-5", -5000), ("1e3", 1_000_000)])
def test_amounts(said: str, mills: int) -> None:
    assert mills_of(said) == mills
    assert mills_of(str(credits_of(mills))) == mills


@pytest.mark.parametrize("said", ["", "many", "0.0001", "nan", "inf", "1e30"])
def test_amounts_that_cannot_be_booked(said: str) -> None:
    with pytest.raises(ValueError, match="credits"):
        mills_of(said)
