"""The step scheduler: exhaustive over small worlds, random over larger ones, against the promises of its docstring."""

import itertools
from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.steps.pace import Pace, Shape
from serve.steps.scheduler import Idle, Limits, Need, Scheduler, Step

A, B = (16, 16, 77), (16, 16, 154)
"""Groups: equal latents, unlike text."""


def need(group: Hashable, steps: int, **fields: Any) -> Need:
    return Need(group=group, steps=steps, **fields)


def scheduler(rows: int, **fields: Any) -> Scheduler[Any]:
    return Scheduler(Limits(rows=rows, **fields))


def batch(of: Scheduler[Any]) -> tuple[Any, ...]:
    decision = of.next()
    return () if isinstance(decision, Idle) else decision.rows


def test_nothing_to_do() -> None:
    assert scheduler(4).next() == Idle()


def test_rows_of_unlike_steps_share_a_batch_and_leave_one_by_one() -> None:
    one = scheduler(4)
    for row, steps in (("one", 1), ("three", 3), ("two", 2)):
        one.add(row, need(A, steps))
    assert set(batch(one)) == {"one", "two", "three"}
    assert one.made(batch(one)) == ("one",)
    assert one.made(batch(one)) == ("two",)
    assert one.next() == Step(("three",))
    assert one.made(batch(one)) == ("three",)
    assert len(one) == one.work() == 0


def test_a_row_joins_at_the_next_step_not_in_the_middle_of_one() -> None:
    one = scheduler(4)
    one.add("old", need(A, 2))
    running = batch(one)
    one.add("new", need(A, 1))
    assert one.made(running) == ()
    assert set(batch(one)) == {"old", "new"}
    assert set(one.made(batch(one))) == {"old", "new"}


def test_of_equal_rows_the_oldest_go_first_and_the_next_takes_a_free_place() -> None:
    one = scheduler(2)
    for row in "abc":
        one.add(row, need(A, 2))
    assert batch(one) == ("a", "b")
    one.cancel("a")
    assert batch(one) == ("b", "c")


def test_a_short_picture_passes_a_long_one_but_not_one_that_is_due() -> None:
    one = scheduler(1, slack=2)
    one.add("long", need(A, 10))  # due at batch 20
    one.add("short", need(A, 2))  # due at 4
    assert batch(one) == ("short",)
    one.made(batch(one))
    one.made(batch(one))
    for _ in range(9):
        one.made(batch(one))
    one.add("late", need(A, 6))  # it is batch 11: due at 23
    assert batch(one) == ("long",)


def test_batch_work_waits_for_interactive_work_but_not_for_ever() -> None:
    one = scheduler(1, slack=1, batch_delay=10)
    one.add("batch", need(A, 1), "batch")  # due at 11
    assert (one.work("batch"), one.work("interactive"), one.work()) == (1, 0, 1)
    waited = 0
    for n in range(20):
        one.add(n, need(A, 1))
        if batch(one) == ("batch",):
            break
        waited += 1
        one.made(batch(one))
    assert waited == 10


def test_larger_latents_fill_a_batch_with_fewer_rows_but_always_one() -> None:
    one = scheduler(8, cells=1000)
    for row in range(8):
        one.add(row, need("large", 1, cells=300))
    assert len(batch(one)) == 3
    huge = scheduler(8, cells=1000)
    huge.add("huge", need("huge", 1, cells=5000))
    assert batch(huge) == ("huge",)


def test_cancel_before_during_and_after() -> None:
    one = scheduler(2)
    one.add("a", need(A, 1))
    one.add("b", need(A, 1))
    running = batch(one)
    assert one.cancel("a")
    assert one.made(running) == ("b",)  # a's step ran, but a is gone
    assert not one.cancel("b")
    assert "b" not in one


@pytest.mark.parametrize("capacity", [1, 2, 3])
@pytest.mark.parametrize("groups", list(itertools.product((A, B), repeat=4)))
def test_every_small_world(capacity: int, groups: tuple[Hashable, ...]) -> None:
    """All mixes of groups and steps, a new row arriving at each of the first steps: none starves, none is overrun."""
    for steps in itertools.product((1, 2, 3), repeat=4):
        one = scheduler(capacity)
        made = dict.fromkeys(range(4), 0)
        finished: list[int] = []
        for turn in range(sum(steps) + 4):
            if turn < 4:
                one.add(turn, need(groups[turn], steps[turn]))
            rows = batch(one)
            if not rows:
                break
            assert 1 <= len(rows) <= capacity
            assert len({groups[row] for row in rows}) == 1
            for row in rows:
                made[row] += 1
            finished += one.made(rows)
        assert sorted(finished) == [0, 1, 2, 3]
        assert tuple(made.values()) == steps


Arrival = tuple[int, str, int, int, bool]
arrivals = st.lists(
    st.tuples(
        st.integers(0, 6), st.sampled_from("abcd"), st.integers(1, 12), st.sampled_from((1, 2, 4)), st.booleans()
    ),
    min_size=1,
    max_size=60,
)
"""Batches since the arrival before, group, steps, cells per group, batch work."""


@given(arrivals, st.integers(1, 4), st.integers(1, 8), st.integers(0, 3))
def test_no_group_starves_and_who_is_due_goes_first(trace: list[Arrival], rows: int, patience: int, slack: int) -> None:
    """The two promises of the docstring, on any trace."""
    cells = {group: 1 + "abcd".index(group) for group in "abcd"}
    one = scheduler(rows, cells=2 * rows, patience=patience, slack=slack, batch_delay=9)
    waiting = list(enumerate(trace))
    left: dict[int, int] = {}
    due: dict[int, tuple[int, int]] = {}
    moved: dict[str, int] = {}
    made, gap = 0, waiting[0][1][0]
    while waiting or left:
        while waiting and (gap <= 0 or not left):
            number, (_, group, steps, _, slow) = waiting.pop(0)
            one.add(number, need(group, steps, cells=cells[group]), "batch" if slow else "interactive")
            left[number], due[number] = steps, (made + slack * steps + (9 if slow else 0), number)
            moved.setdefault(group, made)
            gap = waiting[0][1][0] if waiting else 0
        step = one.next()
        assert isinstance(step, Step)
        group = trace[step.rows[0]][1]
        assert {trace[row][1] for row in step.rows} == {group}
        assert len(step.rows) <= max(1, min(rows, 2 * rows // cells[group]))
        # in its group nobody is passed over for a row that is due later
        mine = sorted((due[row], row) for row in left if trace[row][1] == group)
        assert list(step.rows) == [row for _, row in mine[: len(step.rows)]]
        made, gap = made + 1, gap - 1
        one.made(step.rows)
        moved[group] = made
        for row in step.rows:
            left[row] -= 1
            if left[row] == 0:
                del left[row]
        here = {trace[row][1] for row in left}
        moved = {group: last for group, last in moved.items() if group in here}
        assert all(made - last < patience + len("abcd") for last in moved.values()), "a group starves"
    assert len(one) == 0


def test_a_lone_odd_size_moves_under_a_flood_of_another() -> None:
    one = scheduler(2, patience=5)
    one.add("odd", need(B, 3), "batch")
    turns = []
    for n in range(40):
        one.add(n, need(A, 2))
        rows = batch(one)
        turns += [n] if rows == ("odd",) else []
        one.made(rows)
    assert turns == [5, 11, 17]


def test_a_batch_is_cut_where_padding_makes_it_slower() -> None:
    """The engine was built for 1, 2, 4 and 8 rows: five take as long as eight."""
    pace = Pace()
    one: Scheduler[int] = Scheduler(Limits(rows=8), pace)
    for row in range(5):
        one.add(row, need(A, 100))
    sizes = []
    for _ in range(60):
        rows = batch(one)
        sizes.append(len(rows))
        one.made(rows, seconds={1: 1, 2: 1.2, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 8: 4}[len(rows)])
    assert set(sizes) == {5}  # of fours nothing is known yet
    for rows in ((0, 1, 2, 3), (0, 1, 2, 3)):
        one.made(rows, seconds=2)
    sizes = []
    for _ in range(30):
        rows = batch(one)
        sizes.append(len(rows))
        one.made(rows, seconds={4: 2.0, 5: 4.0}[len(rows)])
    assert sizes.count(4) == 30


def test_noise_cuts_nothing_and_what_was_cut_is_measured_again() -> None:
    pace = Pace()
    shapes = [Shape(A, rows, False, rows) for rows in (1, 2, 3, 4)]
    for shape in shapes:
        for _ in range(3):
            pace.record(shape, shape.rows / (1 + 0.09 * (shape.rows == 3)))
    assert pace.best(shapes) == 4  # three make 9 % more a second: not enough to believe
    for _ in range(9):
        pace.record(shapes[3], 8.0)
    taken = [pace.best(shapes) for _ in range(100)]
    assert taken.count(4) == 2
    assert taken.count(3) == 98
    assert pace.rate == pytest.approx(1.09)


def test_a_batch_of_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="the limit is 0"):
        Limits(rows=0)
