"""The step scheduler: exhaustive over small worlds, against the promises of its docstring."""

import itertools
from collections.abc import Hashable

import pytest

from serve.scheduler import Scheduler

A, B = (16, 16, 77), (16, 16, 154)
"""Groups: equal latents, unlike text."""


def test_nothing_to_do_gives_an_empty_batch() -> None:
    assert Scheduler[str](4).batch() == ()


def test_rows_of_unlike_steps_share_a_batch_and_leave_one_by_one() -> None:
    scheduler = Scheduler[str](4)
    for row, steps in (("one", 1), ("three", 3), ("two", 2)):
        scheduler.add(row, A, steps)
    assert scheduler.batch() == ("one", "three", "two")
    assert scheduler.made(scheduler.batch()) == ("one",)
    assert scheduler.made(scheduler.batch()) == ("two",)
    assert scheduler.batch() == ("three",)
    assert scheduler.made(scheduler.batch()) == ("three",)
    assert len(scheduler) == 0


def test_a_row_joins_at_the_next_step_not_in_the_middle_of_one() -> None:
    scheduler = Scheduler[str](4)
    scheduler.add("old", A, 2)
    running = scheduler.batch()
    scheduler.add("new", A, 1)
    assert scheduler.made(running) == ()
    assert scheduler.batch() == ("old", "new")
    assert scheduler.made(scheduler.batch()) == ("old", "new")


def test_capacity_holds_and_the_next_oldest_takes_a_free_place() -> None:
    scheduler = Scheduler[str](2)
    for row, steps in (("a", 3), ("b", 1), ("c", 1)):
        scheduler.add(row, A, steps)
    assert scheduler.batch() == ("a", "b")
    scheduler.made(scheduler.batch())
    assert scheduler.batch() == ("a", "c")


def test_young_rows_ride_along_but_cannot_hold_the_turn() -> None:
    scheduler = Scheduler[str](2)
    scheduler.add("a", A, 1)
    scheduler.add("odd", B, 1)
    scheduler.add("a2", A, 5)
    assert scheduler.batch() == ("a", "a2")
    scheduler.made(scheduler.batch())
    assert scheduler.batch() == ("odd",)


def test_cancel_before_during_and_after() -> None:
    scheduler = Scheduler[str](2)
    scheduler.add("a", A, 1)
    scheduler.add("b", A, 1)
    running = scheduler.batch()
    assert scheduler.cancel("a")
    assert scheduler.made(running) == ("b",)  # a's step ran, but a is gone
    assert not scheduler.cancel("b")
    assert "b" not in scheduler


@pytest.mark.parametrize("capacity", [1, 2, 3])
@pytest.mark.parametrize("groups", list(itertools.product((A, B), repeat=4)))
def test_every_small_world(capacity: int, groups: tuple[Hashable, ...]) -> None:
    """All mixes of groups and steps, a new row arriving at each of the first steps: none starves, none is overrun."""
    for steps in itertools.product((1, 2, 3), repeat=4):
        scheduler = Scheduler[int](capacity)
        made = dict.fromkeys(range(4), 0)
        finished: list[int] = []
        for turn in range(sum(steps) + 4):
            if turn < 4:
                scheduler.add(turn, groups[turn], steps[turn])
            batch = scheduler.batch()
            if not batch:
                break
            assert 1 <= len(batch) <= capacity
            assert len({groups[row] for row in batch}) == 1
            assert batch[0] == min(
                row for row in made if row <= turn and row not in finished
            )  # the oldest always moves
            for row in batch:
                made[row] += 1
            finished += scheduler.made(batch)
        assert sorted(finished) == [0, 1, 2, 3]
        assert tuple(made.values()) == steps


def test_a_batch_of_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity is 0"):
        Scheduler[str](0)
