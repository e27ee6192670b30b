"""Batches that keep their shape: never too small, and no dearer than they save."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.engines.on_openvino import filled
from ssd1b.engines.steady import Steady


def played(counts: list[int], row_s: float, change_s: float) -> tuple[list[int], float]:
    """Return the rows that were run, and what it all took where a row and a change take so long."""
    steady, ran, total = Steady(), list[int](), 0.0
    for count in counts:
        rows = steady.rows(count, "kind")
        seconds = rows * row_s + (change_s if ran[-1:] != [rows] else 0.0)
        steady.took(seconds)
        ran.append(rows)
        total += seconds
    return ran, total


def test_rows_that_come_and_go_change_no_shape() -> None:
    ran, _ = played([4, 4, 3, 4, 3, 3, 4, 4, 3, 4], row_s=0.01, change_s=0.04)
    assert set(ran) == {4}


def test_a_batch_that_stays_smaller_is_run_smaller_in_the_end_and_one_that_shrinks_much_at_once() -> None:
    assert played([4, 4, *[3] * 8], row_s=0.01, change_s=0.04)[0] == [4, 4, *[4] * 4, 3, 3, 3, 3]
    assert played([16, 16, 2], row_s=0.01, change_s=0.04)[0] == [16, 16, 2]


def test_where_a_row_costs_more_than_a_change_nothing_is_filled_up() -> None:
    counts = [4, 4, 3, 4, 3, 2, 4]
    assert played(counts, row_s=1.0, change_s=0.04)[0] == counts


def test_another_kind_of_rows_is_another_shape() -> None:
    steady = Steady()
    assert steady.rows(4, "square") == 4
    steady.took(1.0)
    assert steady.rows(2, "wide") == 2


@given(st.lists(st.integers(1, 16), min_size=1, max_size=60), st.floats(0.001, 0.1), st.floats(0, 0.5))
def test_there_is_always_room_and_what_is_wasted_is_less_than_the_changes(
    counts: list[int], row_s: float, change_s: float
) -> None:
    ran, total = played(counts, row_s, change_s)
    assert all(rows >= count for rows, count in zip(ran, counts, strict=True))
    changes = sum(now != before for now, before in zip(ran, [0, *ran], strict=False))
    # copies cost at most a change for each that was made or saved, but for the one call before both costs are known
    first = max(counts) * row_s
    assert total <= sum(counts) * row_s + (2 * changes + 1) * change_s + first + 1e-9


@pytest.mark.parametrize("rows", [3, 5])
def test_filling_up_repeats_the_last_row(rows: int) -> None:
    array = np.arange(6.0).reshape(3, 2)
    made = filled(array, rows)
    assert made.shape == (rows, 2)
    assert np.array_equal(made[:3], array)
    assert all(np.array_equal(row, array[-1]) for row in made[3:])
