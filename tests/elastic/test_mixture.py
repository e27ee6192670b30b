"""Mixing corpora by weight: exact shares in every prefix, a draw of its own for every seed, weights that are exact."""

import heapq
import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssd1b.elastic import mixture
from ssd1b.elastic.mixture import MAX_BLOCK, turn_of, turns, whole_weights


@settings(max_examples=150, deadline=None)
@given(weights=st.lists(st.integers(1, 300), min_size=1, max_size=9), seed=st.integers(0, 99), block=st.integers(0, 99))
@example(weights=[1] * 9, seed=0, block=0)
@example(weights=[997, 1, 1, 1], seed=0, block=0)
@example(weights=[5, 5, 5, 1, 1, 1, 1], seed=3, block=1)
def test_every_prefix_is_within_a_slice_of_the_weights(weights: list[int], seed: int, block: int) -> None:
    lowest = whole_weights(weights)
    total = sum(lowest)
    owner = turns(lowest, seed, block)[:, 0]
    had = np.cumsum(owner[:, None] == np.arange(len(lowest)), axis=0)
    owed = np.arange(1, total + 1)[:, None] * np.array(lowest)
    assert (abs(had * total - owed) < total).all(), "a corpus is a whole slice off its share"
    assert had[-1].tolist() == list(lowest), "a block ends with nothing owed"


@given(weights=st.lists(st.integers(1, 20), min_size=2, max_size=5), seed=st.integers(0, 9))
def test_each_corpus_is_dealt_its_slices_in_order_without_a_hole(weights: list[int], seed: int) -> None:
    lowest = whole_weights(weights)
    dealt: list[list[int]] = [[] for _ in lowest]
    for index in range(3 * sum(lowest) + 5):
        corpus, number = turn_of(lowest, seed, index)
        dealt[corpus].append(number)
    assert all(numbers == list(range(len(numbers))) for numbers in dealt)


def test_who_comes_first_among_equals_is_left_to_the_seed() -> None:
    firsts = [turn_of((1, 1), 0, 2 * block)[0] for block in range(64)]
    assert 16 < sum(firsts) < 48, "the same worker would always be dealt the same corpus"
    assert firsts != [turn_of((1, 1), 1, 2 * block)[0] for block in range(64)]


def test_weights_are_exact() -> None:
    assert whole_weights([Fraction(1, 3), Fraction(1, 2), 1]) == (2, 3, 6)
    assert whole_weights([10, 20]) == (1, 2)
    for weight in (0.5, 0, -1, Fraction(-1, 2)):
        with pytest.raises(ValueError, match="give a whole number or a Fraction above 0"):
            whole_weights([1, weight])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"come to 15,000,001 parts .*: round them"):
        whole_weights([15_000_000, 1])
    assert sum(whole_weights([MAX_BLOCK - 1, 1])) == MAX_BLOCK
    assert math.gcd(*whole_weights([30, 45, 60])) == 1


def test_a_share_that_comes_too_late_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The assertion inside is alive: a heap that pops the wrong end breaks the promise, and says so."""
    turns.cache_clear()
    broken = SimpleNamespace(heappush=heapq.heappush, heappop=lambda heap: heap.pop())
    monkeypatch.setattr(mixture, "heapq", broken)
    with pytest.raises(AssertionError, match="too late"):
        turns((5, 3, 2), 0, 0)
    turns.cache_clear()
