"""Threads beside the steps: what waits together goes together, and one that fails does not take the others along."""

import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from serve.steps.lane import Lane


class Work:
    """Doubles numbers; records what it was given at once; fails on 13; held while the gate is shut."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.gate.wait(5)
        self.calls.append(list(items))
        if 13 in items:
            raise ValueError("13 cannot be doubled")
        return [2 * item for item in items]


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def lane(work: Work) -> Iterator[Lane[int, int, str]]:
    lane = Lane[int, int, str]("doubling", work, {"few": 2, "many": 10}.__getitem__)
    yield lane
    work.gate.set()
    lane.close()


def held(work: Work, lane: Lane[int, int, str]) -> None:
    """Let the lane begin on a 0 and stay there."""
    work.gate.clear()
    lane.submit(0, "few")
    while lane._waiting:
        time.sleep(0.001)


def test_what_waits_goes_together_by_kind_and_within_bounds(work: Work, lane: Lane[int, int, str]) -> None:
    held(work, lane)
    few, many = [lane.submit(n, "few") for n in (1, 2, 3)], [lane.submit(n, "many") for n in (4, 5, 6)]
    work.gate.set()
    assert [future.result(5) for future in (*few, *many)] == [2, 4, 6, 8, 10, 12]
    assert work.calls == [[0], [1, 2], [3], [4, 5, 6]]


def test_one_that_fails_fails_alone(work: Work, lane: Lane[int, int, str]) -> None:
    held(work, lane)
    futures = [lane.submit(n, "many") for n in (1, 13, 3)]
    work.gate.set()
    assert [futures[i].result(5) for i in (0, 2)] == [2, 6]
    with pytest.raises(ValueError, match="13 cannot"):
        futures[1].result(5)
    lane.check()


def test_who_goes_before_his_turn_costs_nothing(work: Work, lane: Lane[int, int, str]) -> None:
    held(work, lane)
    gone, stays = lane.submit(1, "few"), lane.submit(2, "few")
    assert gone.cancel()
    work.gate.set()
    assert stays.result(5) == 4
    assert work.calls == [[0], [2]]


def test_closing_cancels_what_waits(work: Work, lane: Lane[int, int, str]) -> None:
    held(work, lane)
    waiting = lane.submit(1, "few")
    threading.Timer(0.05, work.gate.set).start()
    lane.close()
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="is closed"):
        lane.submit(2, "few")
    with pytest.raises(RuntimeError, match="has ended"):
        lane.check()
